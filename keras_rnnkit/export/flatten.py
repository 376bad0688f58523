"""Flattens rows of any rank to vectors within a loop: TFLite slices at most five axes,
and loses the static shape of images there."""

import math
from functools import wraps

import tensorflow as tf

nest = tf.nest


def with_flattened_rows(write):
    """Makes a loop carry rows of several axes as vectors; see `run_in_blocks` for its
    arguments."""

    @wraps(write)
    def run(step, inputs, states, output, previous_output, return_sequences):
        rows = nest.map_structure(lambda x: x.shape[2:], inputs)
        carried = nest.map_structure(
            lambda x: x.shape[1:], (output, previous_output, states)
        )
        shapes = nest.flatten((rows, carried))
        if all(len(shape) < 2 for shape in shapes) or not all(
            shape.is_fully_defined() for shape in shapes
        ):
            return write(
                step, inputs, states, output, previous_output, return_sequences
            )

        def flat_step(x, previous_output, states):
            x = restore(x, rows)
            previous_output, states = restore((previous_output, states), carried[1:])
            return flatten(step(x, previous_output, states))

        output, previous_output, states = flatten((output, previous_output, states))
        outputs, states = write(
            flat_step,
            flatten(inputs, 2),
            states,
            output,
            previous_output,
            return_sequences,
        )
        outputs = restore(outputs, carried[0], 1 + return_sequences)
        return outputs, restore(states, carried[2])

    return run


def flatten(tensors, axes=1):
    """Merges all axes of each tensor after the first `axes` into one."""

    def flat(x):
        row = x.shape[axes:]
        return x if len(row) < 2 else reshape_rows(x, axes, [math.prod(row)])

    return nest.map_structure(flat, tensors)


def restore(tensors, shapes, axes=1):
    """Reverses `flatten`."""

    def row(x, shape):
        return x if len(shape) < 2 else reshape_rows(x, axes, shape)

    return nest.map_structure(row, tensors, shapes)


def reshape_rows(x, axes, row):
    """Reshapes everything after the first `axes` axes to `row`."""
    # Within a loop the converter does not track shapes that are computed.
    row = list(row)
    shape = [-1, *row] if axes == 1 else tf.concat([tf.shape(x)[:axes], row], 0)
    return with_static_shape(tf.reshape(x, shape), [*x.shape[:axes], *row])


def with_static_shape(tensor, shape):
    """Sets the static shape of a tensor and returns it. `tf.ensure_shape` would add an
    operation that TFLite lacks."""
    tensor.set_shape(shape)
    return tensor
