"""The quantization scales of a file of integers, and the rules that kernels impose.

A kernel that only moves values copies integers: its inputs and outputs must have the
same scale. A kernel that adds a bias to a product adds integers: the bias must have the
scale of the product. TFLite's converter breaks both rules: it scales inputs and outputs
by the range of each, and gives a constant that several operations share the scale that
one of them needs.
"""

from typing import NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_rnnkit.export.flatbuffer import OPERATORS

ALL = slice(None)
# Operations that only move values, and the indices of the inputs that they move
MOVES = {
    **dict.fromkeys(
        (
            *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "TILE"),
            *("BROADCAST_TO", "REVERSE_V2", "REVERSE_SEQUENCE", "GATHER", "GATHER_ND"),
            *("SLICE", "STRIDED_SLICE", "SPLIT_V", "UNPACK", "PAD", "MIRROR_PAD"),
            *("SPACE_TO_DEPTH", "DEPTH_TO_SPACE", "SPACE_TO_BATCH_ND"),
            *("BATCH_TO_SPACE_ND", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MATRIX_DIAG"),
            *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REDUCE_MAX"),
            *("REDUCE_MIN", "TOPK_V2", "UNIQUE", "NEG"),
        ),
        (0,),
    ),
    **dict.fromkeys(("SPLIT", "FILL", "SCATTER_ND", "EMBEDDING_LOOKUP"), (1,)),
    **dict.fromkeys(("CONCATENATION", "PACK"), ALL),
    **dict.fromkeys(("MAXIMUM", "MINIMUM"), (0, 1)),
    **dict.fromkeys(("DYNAMIC_UPDATE_SLICE", "MATRIX_SET_DIAG"), (0, 1)),
    **dict.fromkeys(("SELECT", "SELECT_V2"), (1, 2)),
    **dict.fromkeys(("ONE_HOT", "SPARSE_TO_DENSE"), (2, 3)),
    "PADV2": (0, 2),
}
# Operations that add a bias to a product: the indices of input, weights and bias
PRODUCTS = {
    "FULLY_CONNECTED": [(0, 1, 2)],
    "CONV_2D": [(0, 1, 2)],
    "DEPTHWISE_CONV_2D": [(0, 1, 2)],
    "TRANSPOSE_CONV": [(2, 1, 3)],
    # Of the gates i, f, g, o
    "UNIDIRECTIONAL_SEQUENCE_LSTM": [(0, 1 + gate, 12 + gate) for gate in range(4)],
}
FILLS = "SCATTER_ND", "MATRIX_DIAG"  # of MOVES; they fill the rest with the integer 0
BODIES = {"WHILE": ("condSubgraphIndex", "bodySubgraphIndex")}
BODIES |= {"IF": ("thenSubgraphIndex", "elseSubgraphIndex")}
TYPES = {
    schema.TensorType.INT8: np.int8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}
VALUES = schema.TensorType.INT8, schema.TensorType.INT16, schema.TensorType.UINT8
SCALE_TOLERANCE = 1e-3  # relative difference of scales due to rounding


class Scale(NamedTuple):
    """The quantization of a tensor: an integer q represents `scale * (q - zero)`.

    Attributes:
        scale, zero: arrays of one number, or of one per index along `axis`.
        axis: int.
    """

    scale: np.ndarray
    zero: np.ndarray
    axis: int = 0

    def __str__(self):
        if len(self.scale) > 1:
            return f"{len(self.scale)} scales"
        return f"{self.scale[0]:.3g} * (q - {self.zero[0]})"


def find_scale_errors(model) -> list[str]:
    """Returns the errors in the scales of a file, as sentences."""
    return [
        f"{name_of(model, op)} of `{_output_name(graph, op)}` {error}"
        for graph in model.subgraphs
        for op in graph.operators or ()
        for error in _scale_errors(model, graph, op)
    ]


def _scale_errors(model, graph, op):
    name = name_of(model, op)
    inputs, outputs = (
        [graph.tensors[i] if i >= 0 else None for i in indices]
        for indices in (op.inputs, op.outputs)
    )
    pairs = [(x, y) for x in moved_inputs(name, inputs) for y in _quantized(outputs)]
    for body in BODIES.get(name, ()):
        inner = model.subgraphs[getattr(op.builtinOptions, body)]
        taken, returned = (
            [inner.tensors[i] for i in indices]
            for indices in (inner.inputs, inner.outputs)
        )
        pairs += zip(inputs[len(inputs) - len(taken) :], taken, strict=True)
        if body != "condSubgraphIndex":
            pairs += zip(returned, outputs, strict=True)
    for source, target in pairs:
        if not is_same(scale_of(source), scale_of(target)):
            yield f"moves numbers from {scale_of(source)} to {scale_of(target)}"
    for target in _quantized(outputs) if name in FILLS else ():
        if scale_of(target) and scale_of(target).zero.any():
            yield f"fills with the integer 0, which is not zero in {scale_of(target)}"
    for bias, wanted in biases(name, inputs):
        if not is_same(scale_of(bias), wanted):
            yield f"adds a bias in {scale_of(bias)} to a product in {wanted}"
    if name == "CAST" and not is_same(scale_of(inputs[0]), scale_of(outputs[0])):
        yield f"takes integers in {scale_of(inputs[0])} for {scale_of(outputs[0])}"


def name_of(model, op) -> str:
    """Returns the name of an operation."""
    code = model.operatorCodes[op.opcodeIndex]
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def scale_of(tensor) -> Scale | None:
    """Returns the scale of a tensor; None if it is not quantized."""
    given = tensor.quantization
    if given is None or given.scale is None or tensor.type not in TYPES:
        return None
    return Scale(given.scale, given.zeroPoint, given.quantizedDimension)


def _output_name(graph, op) -> str:
    """Returns the name that the converter gave the output of an operation."""
    return graph.tensors[op.outputs[0]].name.decode()


def _quantized(tensors) -> list:
    return [tensor for tensor in tensors if tensor and tensor.type in VALUES]


def moved_inputs(name, inputs) -> list:
    """Returns the inputs whose values an operation moves."""
    indices = MOVES.get(name, [])
    return _quantized(inputs if indices is ALL else [inputs[i] for i in indices])


def biases(name, inputs):
    """Yields the biases of an operation, and the scale that each must have."""
    for indices in PRODUCTS.get(name, ()):
        x, weights, bias = (inputs[i] if i < len(inputs) else None for i in indices)
        if bias and len(_quantized([x, weights])) == 2:
            of_x, of_weights = scale_of(x), scale_of(weights)
            scale = np.float64(of_x.scale) * of_weights.scale
            yield bias, Scale(np.float32(scale), np.zeros(len(scale), np.int64))


def is_same(one, other) -> bool:
    """Returns whether two scales are equal up to rounding."""
    if one is None or other is None:
        return one is other
    return (
        one.scale.shape == other.scale.shape
        and np.allclose(one.scale, other.scale, rtol=SCALE_TOLERANCE, atol=0)
        and np.array_equal(one.zero, other.zero)
    )
