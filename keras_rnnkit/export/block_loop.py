"""A loop for TFLite, which has no TensorArrays: it runs in blocks of steps."""

import math

import tensorflow as tf

from keras_rnnkit.export.flatten import with_flattened_rows, with_static_shape
from keras_rnnkit.internals import write_at
from keras_rnnkit.recurrence import run_each, written_out

nest = tf.nest

# Steps unrolled in each iteration, whose overhead is about that of a small step
STEPS_PER_ITERATION = 4
# TFLite copies all outputs so far in every iteration, so a long sequence is assembled
# from blocks of this many iterations.
ITERATIONS_PER_BLOCK = 16
LONG_SEQUENCE = 4 * ITERATIONS_PER_BLOCK * STEPS_PER_ITERATION


@with_flattened_rows
def run_in_blocks(step, inputs, states, output, previous_output, return_sequences):
    """Runs a `tf.while_loop` of several steps per iteration; outputs are one tensor.

    It has no gradient. Arguments and results are those of `recurrence.in_arrays`.
    """

    def run(depth, inputs, output, states):
        """Runs over `(count, *sizes, batch, ...)`, with `depth` sizes."""
        if not depth:
            outputs, output, states = run_each(
                step, inputs, states, output, previous_output
            )
            return [tf.stack(outputs)] if return_sequences else [], output, states
        first = nest.flatten(inputs)[0]
        count, outputs = tf.shape(first)[0], []
        known = [first.shape[0], *first.shape[1 : depth + 1], *output.shape]
        if return_sequences:
            # TFLite allocates the output even of a loop without iterations.
            rows = tf.maximum(count, 1)
            size = tf.concat([[rows, *known[1 : depth + 1]], tf.shape(output)], 0)
            outputs = [with_static_shape(tf.zeros(size, output.dtype), known)]

        def iteration(n, outputs, output, states):
            x = nest.map_structure(lambda x: tf.gather(x, n), inputs)
            new, output, states = run(depth - 1, x, output, states)
            if return_sequences:
                at = tf.concat([[n], tf.zeros_like(tf.shape(new[0]))], 0)
                outputs = [
                    with_static_shape(write_at(*outputs, tf.stack(new), at), known)
                ]
            return n + 1, outputs, output, states

        _, outputs, output, states = tf.while_loop(
            lambda n, *_: n < count,
            iteration,
            (tf.constant(0), outputs, output, states),
        )
        return [each[:count] for each in outputs], output, states

    steps, parts = nest.flatten(inputs)[0].shape[0], []
    if steps == 0:
        return written_out(
            step, inputs, states, output, previous_output, return_sequences
        )
    for sizes in plan_blocks(steps, return_sequences):
        blocks, inputs = split_into_blocks(inputs, sizes)
        part, output, states = run(len(sizes), blocks, output, states)
        parts += part
    if not return_sequences:
        return output, states
    shape = tf.concat([[-1], tf.shape(output)], 0)
    outputs = tf.concat([tf.reshape(part, shape) for part in parts], 0)
    return with_static_shape(outputs, [steps, *output.shape]), states


def plan_blocks(steps: int | None, return_sequences: bool) -> list[tuple]:
    """Returns the block sizes of each loop, in the order in which the loops run.

    A final `()` stands for the remaining steps, which are unrolled.
    """
    many = return_sequences and (steps is None or steps >= LONG_SEQUENCE)
    sizes: list[tuple[int, ...]] = [(STEPS_PER_ITERATION,)]
    if many:
        sizes = [(ITERATIONS_PER_BLOCK, STEPS_PER_ITERATION), *sizes]
    if steps is None:
        return [*sizes, (1,)]
    taken = []
    for each in sizes:
        if steps >= math.prod(each):
            taken.append(each)
            steps %= math.prod(each)
    return [*taken, ()] if steps else taken


def split_into_blocks(inputs, sizes):
    """Splits inputs into blocks, `(count, *sizes, batch, ...)`, and remaining steps."""
    if not sizes:
        return inputs, None
    first, span = nest.flatten(inputs)[0], math.prod(sizes)
    known = first.shape[0]
    count = (tf.shape(first)[0] if known is None else known) // span

    def blocks(x):
        shape = tf.concat([[count, *sizes], tf.shape(x)[1:]], 0)
        y = tf.reshape(x[: count * span], shape)
        return with_static_shape(y, [known and count, *sizes, *x.shape[1:]])

    left = nest.map_structure(lambda x: x[count * span :], inputs)
    return nest.map_structure(blocks, inputs), left
