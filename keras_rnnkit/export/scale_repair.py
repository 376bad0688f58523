"""Gives every operation of a file the scales that its kernel needs."""

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
    moved_inputs,
    name_of,
    scale_of,
)

REQUANTIZE = schema.BuiltinOperator.QUANTIZE
VERSION = 2  # of that operation, which converts integers to integers


def repair_scales(model):
    """Gives every operation of a file the scales that its kernel needs.

    A `QUANTIZE` before an operation that moves values converts the inputs to the scale
    of the output. If its outputs have different scales, they get that of the input,
    and a `QUANTIZE` follows each. A constant is copied in the scale that its consumer
    needs.

    Args:
        model: a file as returned by `parse`; changed in place.
    """
    for graph in model.subgraphs:
        repair = _GraphRepair(model, graph)
        for op in graph.operators or ():
            repair.add(op)
        graph.operators = repair.operators


class _GraphRepair:
    """Repairs the operations of a graph, added in order."""

    def __init__(self, model, graph):
        self.model = model
        self.graph = graph
        self.operators = []
        self._rescaled = {}  # the copies of tensors by `(tensor, scale, zero)`

    def add(self, op):
        """Adds the next operation, and the conversions before and after it."""
        name = name_of(self.model, op)
        tensors = [self.graph.tensors[i] if i >= 0 else None for i in op.inputs]
        outputs = [i for i in op.outputs if scale_of(self.graph.tensors[i])]
        scales = [scale_of(self.graph.tensors[i]) for i in outputs]
        after = []
        if name in MOVES and scales:
            wanted = scales[0]
            if name in FILLS:
                wanted = _symmetric(wanted, self.graph.tensors[outputs[0]].type)
            elif not all(is_same(wanted, scale) for scale in scales):
                wanted = scale_of(moved_inputs(name, tensors)[0])
            for source in moved_inputs(name, tensors):
                self._set_scale(op, source, wanted)
            for number, scale in zip(outputs, scales, strict=True):
                if not is_same(scale, wanted):
                    new = self._add_tensor(self.graph.tensors[number], wanted)
                    op.outputs = np.where(op.outputs == number, new, op.outputs)
                    after.append(self._requantize(new, number))
        for bias, wanted in biases(name, tensors):
            self._set_scale(op, bias, wanted)
        self.operators += [op, *after]

    def _set_scale(self, op, tensor, wanted):
        """Makes an operation read a tensor in the scale `wanted`."""
        scale = scale_of(tensor)
        if scale is None or is_same(scale, wanted):
            return
        number = next(i for i, each in enumerate(self.graph.tensors) if each is tensor)
        key = number, wanted.scale.tobytes(), wanted.zero.tobytes()
        if key not in self._rescaled:
            data = self.model.buffers[tensor.buffer].data
            if data is not None and len(data):
                new = self._add_tensor(tensor, wanted)
                values = _requantized_constant(tensor, data, scale, wanted)
                self.graph.tensors[new].buffer = self._add_buffer(values)
            elif len(scale.scale) == len(wanted.scale) == 1 and tensor.type in VALUES:
                new = self._add_tensor(tensor, wanted)
                self.operators.append(self._requantize(number, new))
            else:
                return  # reported by `find_scale_errors`
            self._rescaled[key] = new
        op.inputs = np.where(op.inputs == number, self._rescaled[key], op.inputs)

    def _add_tensor(self, like, scale):
        """Adds a copy of a tensor with another scale; returns its index."""
        new = copy.copy(like)
        new.name = like.name + f"_{len(self.graph.tensors)}".encode()
        new.buffer = 0  # the empty one
        new.quantization = schema.QuantizationParametersT()
        new.quantization.scale = np.float32(scale.scale)
        new.quantization.zeroPoint = np.int64(scale.zero)
        new.quantization.quantizedDimension = scale.axis
        self.graph.tensors.append(new)
        return len(self.graph.tensors) - 1

    def _add_buffer(self, values):
        """Adds a buffer; returns its index."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def _requantize(self, source, target):
        """Returns an operation that converts a tensor to the scale of another one."""
        op = schema.OperatorT()
        op.opcodeIndex = self._requantize_opcode()
        op.inputs, op.outputs = np.int32([source]), np.int32([target])
        op.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
        op.builtinOptions = schema.QuantizeOptionsT()
        return op

    def _requantize_opcode(self):
        codes = self.model.operatorCodes
        for number, code in enumerate(codes):
            if code.builtinCode == REQUANTIZE and code.version >= VERSION:
                return number
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = REQUANTIZE
        code.version = VERSION
        codes.append(code)
        return len(codes) - 1


def _symmetric(scale, kind) -> Scale:
    """Returns a symmetric scale of the same range: the integer 0 represents zero."""
    if not scale.zero.any():
        return scale
    limits = np.iinfo(TYPES[kind])
    largest = abs(np.array([limits.min, limits.max]) - scale.zero).max() * scale.scale
    return Scale(np.float32(largest / limits.max), np.zeros(1, np.int64))


def _requantized_constant(tensor, data, scale, wanted):
    """Returns the integers of a constant in another scale."""
    dtype = np.dtype(TYPES[tensor.type])
    values = np.frombuffer(data.tobytes(), dtype).reshape(tensor.shape)
    values = (values - _broadcastable(scale, scale.zero, values)) * _broadcastable(
        scale, scale.scale, values
    )
    steps = values / _broadcastable(wanted, wanted.scale, values)
    steps = np.rint(steps) + _broadcastable(wanted, wanted.zero, values)
    limits = np.iinfo(dtype)
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def _broadcastable(scale, numbers, values):
    """Returns the numbers of a scale in a shape that broadcasts to `values`."""
    shape = np.ones(values.ndim, int)
    if values.ndim:
        shape[scale.axis] = len(numbers)
    return np.float64(numbers).reshape(shape)
