"""Has every operation of a file get the scales that its kernel needs."""

import copy

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_rnnkit.export.scales import (
    FILLS,
    MOVES,
    TYPES,
    VALUES,
    Scale,
    biases,
    is_same,
    moved,
    name_of,
    scale_of,
)

REQUANTIZE = schema.BuiltinOperator.QUANTIZE
VERSION = 2  # of that operation: from integers to integers


def mend_scales(model):
    """Has every operation of a file get the scales that its kernel needs.

    What moves numbers gets its inputs in the scale of its output, by an operation
    `QUANTIZE` before it; where its outputs have several scales, they get that of the
    input, and a `QUANTIZE` behind each. A constant is written once more, in the scale
    that its reader needs.

    Args:
        model: a file as `parse` gives it; changed in place.
    """
    for graph in model.subgraphs:
        mender = _Mender(model, graph)
        for op in graph.operators or ():
            mender.take(op)
        graph.operators = mender.operators


class _Mender:
    """Goes through the operations of a graph, in their order."""

    def __init__(self, model, graph):
        self.model = model
        self.graph = graph
        self.operators = []
        self._known = {}  # what stands in another scale too: its number, by both

    def take(self, op):
        """Takes the next operation, and what has to stand before and behind it."""
        name = name_of(self.model, op)
        tensors = [self.graph.tensors[i] if i >= 0 else None for i in op.inputs]
        outputs = [i for i in op.outputs if scale_of(self.graph.tensors[i])]
        scales = [scale_of(self.graph.tensors[i]) for i in outputs]
        behind = []
        if name in MOVES and scales:
            wanted = scales[0]
            if name in FILLS:
                wanted = _about_zero(wanted, self.graph.tensors[outputs[0]].type)
            elif not all(is_same(wanted, scale) for scale in scales):
                wanted = scale_of(moved(name, tensors)[0])
            for source in moved(name, tensors):
                self._give(op, source, wanted)
            for number, scale in zip(outputs, scales, strict=True):
                if not is_same(scale, wanted):
                    new = self._add(self.graph.tensors[number], wanted)
                    op.outputs = np.where(op.outputs == number, new, op.outputs)
                    behind.append(self._requantize(new, number))
        for bias, wanted in biases(name, tensors):
            self._give(op, bias, wanted)
        self.operators += [op, *behind]

    def _give(self, op, tensor, wanted):
        """Has an operation read a tensor in another scale, if it has that not yet."""
        scale = scale_of(tensor)
        if scale is None or is_same(scale, wanted):
            return
        number = next(i for i, each in enumerate(self.graph.tensors) if each is tensor)
        key = number, wanted.scale.tobytes(), wanted.zero.tobytes()
        if key not in self._known:
            data = self.model.buffers[tensor.buffer].data
            if data is not None and len(data):
                new = self._add(tensor, wanted)
                values = _rewritten(tensor, data, scale, wanted)
                self.graph.tensors[new].buffer = self._buffer(values)
            elif len(scale.scale) == len(wanted.scale) == 1 and tensor.type in VALUES:
                new = self._add(tensor, wanted)
                self.operators.append(self._requantize(number, new))
            else:
                return  # `faults_of` tells.
            self._known[key] = new
        op.inputs = np.where(op.inputs == number, self._known[key], op.inputs)

    def _add(self, like, scale):
        """The number of a new tensor that is like another one, in a scale."""
        new = copy.copy(like)
        new.name = like.name + f"_{len(self.graph.tensors)}".encode()
        new.buffer = 0  # the one that is empty
        new.quantization = schema.QuantizationParametersT()
        new.quantization.scale = np.float32(scale.scale)
        new.quantization.zeroPoint = np.int64(scale.zero)
        new.quantization.quantizedDimension = scale.axis
        self.graph.tensors.append(new)
        return len(self.graph.tensors) - 1

    def _buffer(self, values):
        """The number of a new buffer."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def _requantize(self, source, target):
        """An operation that brings a tensor to the scale of another one."""
        op = schema.OperatorT()
        op.opcodeIndex = self._code_of_requantize()
        op.inputs, op.outputs = np.int32([source]), np.int32([target])
        op.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
        op.builtinOptions = schema.QuantizeOptionsT()
        return op

    def _code_of_requantize(self):
        codes = self.model.operatorCodes
        for number, code in enumerate(codes):
            if code.builtinCode == REQUANTIZE and code.version >= VERSION:
                return number
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = REQUANTIZE
        code.version = VERSION
        codes.append(code)
        return len(codes) - 1


def _about_zero(scale, kind) -> Scale:
    """A scale of as large numbers, in which the integer 0 stands for zero."""
    if not scale.zero.any():
        return scale
    limits = np.iinfo(TYPES[kind])
    largest = abs(np.array([limits.min, limits.max]) - scale.zero).max() * scale.scale
    return Scale(np.float32(largest / limits.max), np.zeros(1, np.int64))


def _rewritten(tensor, data, scale, wanted):
    """The integers of a constant in another scale."""
    dtype = np.dtype(TYPES[tensor.type])
    values = np.frombuffer(data.tobytes(), dtype).reshape(tensor.shape)
    values = (values - _along(scale, scale.zero, values)) * _along(
        scale, scale.scale, values
    )
    steps = values / _along(wanted, wanted.scale, values)
    steps = np.rint(steps) + _along(wanted, wanted.zero, values)
    limits = np.iinfo(dtype)
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def _along(scale, numbers, values):
    """The numbers of a scale, to be broadcast to values."""
    shape = np.ones(values.ndim, int)
    if values.ndim:
        shape[scale.axis] = len(numbers)
    return np.float64(numbers).reshape(shape)
