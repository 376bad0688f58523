"""Corrects the output of TFLite's converter."""

import copy
import math

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_rnnkit.export.flatbuffer import IDENTIFIER, parse
from keras_rnnkit.export.scale_repair import repair_scales

FUSED_OPTIONS = schema.UnidirectionalSequenceLSTMOptionsT
HIDDEN_STATE, CELL_STATE = 18, 19  # inputs of a fused LSTM


def postprocess(flatbuffer: bytes, first: str, largest_state: float = 0.0) -> bytes:
    """Returns the file that TFLite's converter wrote, with these corrections:

    - Fused LSTMs do not clip the cell state, as in Keras; the converter clips it to
      [-10, 10].
    - Their states are not shared; the converter merges them with other zeros of the
      same shape, such as the initial states of a loop.
    - In 8 bits, their outputs have the same scale everywhere, and their cell states one
      for `largest_state`; the converter uses the range after the last step.
    - Operations that move values or add a bias have the scales that they need.
    - The signature `first` is the default one; the converter sorts them by name.

    Args:
        flatbuffer: bytes, the file.
        first: str, name of the default signature.
        largest_state: float, largest absolute cell state of the calibration data.
    """
    model = parse(flatbuffer)
    for graph in model.subgraphs:
        for op in graph.operators or ():
            if isinstance(op.builtinOptions, FUSED_OPTIONS):
                op.builtinOptions.cellClip = 0.0
                _separate_states(graph, op)
                if graph.tensors[op.outputs[0]].type == schema.TensorType.INT8:
                    _set_lstm_scales(graph, op, largest_state)
    repair_scales(model)
    index = {s.signatureKey.decode(): s.subgraphIndex for s in model.signatureDefs}
    other = index[first]
    # No operation refers to the graph of a signature, so that two can be swapped.
    graphs = model.subgraphs
    graphs[0], graphs[other] = graphs[other], graphs[0]
    for signature in model.signatureDefs:
        if signature.subgraphIndex in (0, other):
            signature.subgraphIndex = other - signature.subgraphIndex
    builder = flatbuffers.Builder(len(flatbuffer))
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _separate_states(graph, op):
    """Gives an operation state tensors that no other operation uses.

    A tensor that no operation writes to stays zero.
    """
    op.inputs = op.inputs.copy()
    for position in (HIDDEN_STATE, CELL_STATE):
        number = op.inputs[position]
        if sum(number in other.inputs for other in graph.operators) == 1:
            continue
        shared = graph.tensors[number]
        own = copy.copy(shared)
        own.name = shared.name + f"_{len(graph.tensors)}".encode()
        op.inputs[position] = len(graph.tensors)
        graph.tensors.append(own)


def _set_lstm_scales(graph, op, largest_state):
    """Sets the scales that the kernel of a fused LSTM needs for outputs and states."""
    of_outputs = graph.tensors[op.outputs[0]].quantization
    for number in (op.inputs[HIDDEN_STATE], op.intermediates[-1]):
        graph.tensors[number].quantization = of_outputs
    cell = copy.copy(graph.tensors[op.inputs[CELL_STATE]].quantization)
    # The kernel's tanh needs a power of two; it supports ranges from 1 to 64.
    integer_bits = math.ceil(math.log2(min(max(largest_state, 1.0), 64.0)))
    cell.scale = np.array([2.0 ** (integer_bits - 15)], np.float32)
    graph.tensors[op.inputs[CELL_STATE]].quantization = cell
