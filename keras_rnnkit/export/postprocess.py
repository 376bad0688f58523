"""A file as TFLite's converter leaves it, put right."""

import copy
import math

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_rnnkit.export.flatbuffer import IDENTIFIER, parse
from keras_rnnkit.export.scale_repair import mend_scales

FUSED_OPTIONS = schema.UnidirectionalSequenceLSTMOptionsT
HIDDEN_STATE, CELL_STATE = 18, 19  # the places of a fused LSTM's states


def finished(content: bytes, first: str, largest_state: float = 0.0) -> bytes:
    """A file as TFLite's converter leaves it, put right.

    - Fused LSTMs let the cell state grow, as Keras's do; the converter has them clip it
      to -10 to 10.
    - They have states of their own; the converter takes the tensor that they write to
      for any other zeros of that shape, such as the first states of a loop.
    - In 8 bits, their outputs have one scale wherever they stand, and their cell states
      one for `largest_state`: the converter takes what it saw after the last step.
    - What moves numbers, or adds a bias, has the scales that it needs.
    - The signature `first` is what runs where none is named; the converter sorts them.
    """
    model = parse(content)
    for graph in model.subgraphs:
        for op in graph.operators or ():
            if isinstance(op.builtinOptions, FUSED_OPTIONS):
                op.builtinOptions.cellClip = 0.0
                _give_states(graph, op)
                if graph.tensors[op.outputs[0]].type == schema.TensorType.INT8:
                    _give_scales(graph, op, largest_state)
    mend_scales(model)
    index = {s.signatureKey.decode(): s.subgraphIndex for s in model.signatureDefs}
    other = index[first]
    # No operation refers to the graph of a signature.
    graphs = model.subgraphs
    graphs[0], graphs[other] = graphs[other], graphs[0]
    for signature in model.signatureDefs:
        if signature.subgraphIndex in (0, other):
            signature.subgraphIndex = other - signature.subgraphIndex
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _give_states(graph, op):
    """Has an operation keep its states in tensors that no other one has.

    What no operation writes to stays zero.
    """
    op.inputs = op.inputs.copy()
    for place in (HIDDEN_STATE, CELL_STATE):
        number = op.inputs[place]
        if sum(number in other.inputs for other in graph.operators) == 1:
            continue
        shared = graph.tensors[number]
        own = copy.copy(shared)
        own.name = shared.name + f"_{len(graph.tensors)}".encode()
        op.inputs[place] = len(graph.tensors)
        graph.tensors.append(own)


def _give_scales(graph, op, largest_state):
    """Gives outputs and states of a fused LSTM scales that its kernel can work with."""
    of_outputs = graph.tensors[op.outputs[0]].quantization
    for number in (op.inputs[HIDDEN_STATE], op.intermediates[-1]):
        graph.tensors[number].quantization = of_outputs
    cell = copy.copy(graph.tensors[op.inputs[CELL_STATE]].quantization)
    # A power of two that covers from 1, less than which its tanh does not know, to 64.
    whole_bits = math.ceil(math.log2(min(max(largest_state, 1.0), 64.0)))
    cell.scale = np.array([2.0 ** (whole_bits - 15)], np.float32)
    graph.tensors[op.inputs[CELL_STATE]].quantization = cell
