"""Rows of any rank as vectors: TFLite slices no more than five axes, and loses track of
the sizes of an image within a loop."""

import math
from functools import wraps

import tensorflow as tf

nest = tf.nest


def with_flat_rows(write):
    """Has a loop, `(step, inputs, states, output, held, return_sequences)`, carry rows
    of several axes as vectors."""

    @wraps(write)
    def run(step, inputs, states, output, held, return_sequences):
        rows = nest.map_structure(lambda x: x.shape[2:], inputs)
        kept = nest.map_structure(lambda x: x.shape[1:], (output, held, states))
        shapes = nest.flatten((rows, kept))
        if all(len(shape) < 2 for shape in shapes) or not all(
            shape.is_fully_defined() for shape in shapes
        ):
            return write(step, inputs, states, output, held, return_sequences)

        def flat_step(x, held, states):
            x, (held, states) = restore(x, rows), restore((held, states), kept[1:])
            return flatten(step(x, held, states))

        output, held, states = flatten((output, held, states))
        outputs, states = write(
            flat_step, flatten(inputs, 2), states, output, held, return_sequences
        )
        return restore(outputs, kept[0], 1 + return_sequences), restore(states, kept[2])

    return run


def flatten(tensors, axes=1):
    """Tensors whose axes behind the first are one, if they were several."""

    def flat(x):
        row = x.shape[axes:]
        return x if len(row) < 2 else reshaped(x, axes, [math.prod(row)])

    return nest.map_structure(flat, tensors)


def restore(tensors, shapes, axes=1):
    """The tensors as they were before `flatten`."""

    def row(x, shape):
        return x if len(shape) < 2 else reshaped(x, axes, shape)

    return nest.map_structure(row, tensors, shapes)


def reshaped(x, axes, row):
    """A tensor with another shape behind its first axes."""
    # Of a shape that is computed the converter knows nothing within a loop.
    row = list(row)
    shape = [-1, *row] if axes == 1 else tf.concat([tf.shape(x)[:axes], row], 0)
    return shaped(tf.reshape(x, shape), [*x.shape[:axes], *row])


def shaped(tensor, shape):
    """The tensor, of which the graph now knows a shape. `tf.ensure_shape` would be an
    operation, which TFLite does not have."""
    tensor.set_shape(shape)
    return tensor
