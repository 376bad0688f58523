"""What stands in a TFLite file."""

import copy
import dataclasses
import json
import math
import struct
from collections import Counter
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_rnnkit.recurrence import OPERATION


def names_of(enumeration) -> dict[int, str]:
    """The names of an enumeration of the file format."""
    return {v: k for k, v in vars(enumeration).items() if not k.startswith("_")}


OPERATORS = names_of(schema.BuiltinOperator)
TYPES = names_of(schema.TensorType)
FUSED_OPTIONS = schema.UnidirectionalSequenceLSTMOptionsT
HIDDEN_STATE, CELL_STATE = 18, 19  # the places of a fused LSTM's states
IDENTIFIER = b"TFL3"


@dataclasses.dataclass(frozen=True)
class Content:
    """What stands in a TFLite file; prints as a table.

    Attributes:
        size: bytes of the file.
        weights: bytes of its constants.
        tensors: how many there are.
        ops: list of dicts, how often each operation stands in the main graph and then
            in each of the graphs that it calls, such as the bodies of loops.
        signatures: dict of `{"inputs": ..., "outputs": ...}`, each a dict of shape and
            type by name. An axis of any size is -1.
    """

    size: int
    weights: int
    tensors: int
    ops: list[dict[str, int]]
    signatures: dict[str, dict]

    @property
    def counted(self) -> dict[str, int]:
        """How often each operation stands in the file; most first."""
        return dict(sum(map(Counter, self.ops), Counter()).most_common())

    def to_json(self) -> str:
        """Returns the attributes as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def __str__(self):
        fused = sum(ops.get(OPERATION, 0) for ops in self.ops)
        rows = [
            ("size", f"{self.size / 1024:.1f} KiB"),
            ("constants", f"{self.weights / 1024:.1f} KiB"),
            ("tensors", f"{self.tensors:,}"),
            ("fused LSTMs", f"{fused}"),
            *describe(self.signatures),
        ]
        for number, ops in enumerate(self.ops):
            counted = ", ".join(f"{name} {count}" for name, count in ops.items())
            rows.append((f"graph {number}", counted or "no operation"))
        return "\n".join(f"{name:<12}{value}" for name, value in rows)


def describe(signatures) -> list[tuple[str, str]]:
    """The lines of a table on signatures: first column, and the rest."""
    rows = []
    for name, signature in signatures.items():
        rows.append(("signature", name))
        for side, arrow in (("inputs", "<-"), ("outputs", "->")):
            rows += [("", f"{arrow} {n} {d}") for n, d in signature[side].items()]
    return rows


def inspect_tflite(source) -> Content:
    """Reads what stands in a TFLite file.

    Args:
        source: the file's path, or its content as bytes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TFLite file.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    model = parse(content)
    codes = [
        (code.customCode or b"CUSTOM").decode()
        if code.builtinCode == schema.BuiltinOperator.CUSTOM
        else OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes or ()
    ]
    counted = [
        Counter(codes[op.opcodeIndex] for op in graph.operators or ())
        for graph in model.subgraphs
    ]
    return Content(
        size=len(content),
        weights=sum(
            len(buffer.data) for buffer in model.buffers if buffer.data is not None
        ),
        tensors=sum(len(graph.tensors) for graph in model.subgraphs),
        ops=[dict(ops.most_common()) for ops in counted],
        signatures={
            signature.signatureKey.decode(): {
                side: {
                    each.name.decode(): _describe(
                        model.subgraphs[signature.subgraphIndex].tensors[
                            each.tensorIndex
                        ]
                    )
                    for each in getattr(signature, side) or ()
                }
                for side in ("inputs", "outputs")
            }
            for signature in model.signatureDefs or ()
        },
    )


def parse(content: bytes):
    """The file as objects of its schema."""
    if content[4:8] != IDENTIFIER:
        raise ValueError(
            "the file must be a TFLite file; received one that begins with "
            f"{content[:8]!r}"
        )
    try:
        return schema.ModelT.InitFromPackedBuf(content, 0)
    except (struct.error, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            f"the file must be a TFLite file; received a broken one: {error}"
        ) from error


def _describe(tensor) -> str:
    """Shape, type and scale of a tensor."""
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    shape = tuple(int(size) for size in (() if shape is None else shape))
    text = f"{shape} {TYPES[tensor.type].lower()}"
    scales = tensor.quantization and tensor.quantization.scale
    if scales is not None and len(scales) == 1:
        zero = int(tensor.quantization.zeroPoint[0])
        text += f", {float(scales[0]):.4g} * (q - {zero})"
    return text


def finished(content: bytes, first: str, largest_state: float = 0.0) -> bytes:
    """A file as TFLite's converter leaves it, put right.

    - Fused LSTMs let the cell state grow, as Keras's do; the converter has them clip it
      to -10 to 10.
    - They have states of their own; the converter takes the tensor that they write to
      for any other zeros of that shape, such as the first states of a loop.
    - In 8 bits, their outputs have one scale wherever they stand, and their cell states
      one for `largest_state`: the converter takes what it saw after the last step.
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
