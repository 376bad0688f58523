"""The loop for TFLite, which has no arrays of tensors: in blocks of steps."""

import math

import tensorflow as tf

from keras_rnnkit.export.flatten import shaped, with_flat_rows
from keras_rnnkit.recurrence import run_each, write_at, written_out

nest = tf.nest

# Steps that a turn of the loop writes out: a turn costs about as much as a small step.
TURN = 4
# At every turn TFLite copies the outputs so far, so that a long sequence of them is put
# together from blocks, of so many turns.
BLOCK = 16
LONG = 4 * BLOCK * TURN


@with_flat_rows
def in_blocks(step, inputs, states, output, held, return_sequences):
    """A `tf.while_loop` of some steps a turn, which carries the outputs as a tensor.

    It has no gradient. Arguments and results are those of `recurrence.in_arrays`.
    """

    def run(depth, inputs, output, states):
        """Runs over `(count, *sizes, batch, ...)`, with `depth` sizes."""
        if not depth:
            outputs, output, states = run_each(step, inputs, states, output, held)
            return [tf.stack(outputs)] if return_sequences else [], output, states
        first = nest.flatten(inputs)[0]
        count, outputs = tf.shape(first)[0], []
        known = [first.shape[0], *first.shape[1 : depth + 1], *output.shape]
        if return_sequences:
            # TFLite prepares a loop of no turn too, and wants a place for its output.
            places = tf.maximum(count, 1)
            size = tf.concat([[places, *known[1 : depth + 1]], tf.shape(output)], 0)
            outputs = [shaped(tf.zeros(size, output.dtype), known)]

        def turn(n, outputs, output, states):
            x = nest.map_structure(lambda x: tf.gather(x, n), inputs)
            new, output, states = run(depth - 1, x, output, states)
            if return_sequences:
                at = tf.concat([[n], tf.zeros_like(tf.shape(new[0]))], 0)
                outputs = [shaped(write_at(*outputs, tf.stack(new), at), known)]
            return n + 1, outputs, output, states

        _, outputs, output, states = tf.while_loop(
            lambda n, *_: n < count, turn, (tf.constant(0), outputs, output, states)
        )
        return [each[:count] for each in outputs], output, states

    steps, parts = nest.flatten(inputs)[0].shape[0], []
    if steps == 0:
        return written_out(step, inputs, states, output, held, return_sequences)
    for sizes in plan(steps, return_sequences):
        blocks, inputs = cut(inputs, sizes)
        part, output, states = run(len(sizes), blocks, output, states)
        parts += part
    if not return_sequences:
        return output, states
    shape = tf.concat([[-1], tf.shape(output)], 0)
    outputs = tf.concat([tf.reshape(part, shape) for part in parts], 0)
    return shaped(outputs, [steps, *output.shape]), states


def plan(steps: int | None, return_sequences: bool) -> list[tuple]:
    """The sizes of the blocks of each loop, one loop after the other.

    `()`, at the end, stands for steps that are left and written out.
    """
    many = return_sequences and (steps is None or steps >= LONG)
    sizes = [(BLOCK, TURN), (TURN,)] if many else [(TURN,)]
    if steps is None:
        return [*sizes, (1,)]
    taken = []
    for each in sizes:
        if steps >= math.prod(each):
            taken.append(each)
            steps %= math.prod(each)
    return [*taken, ()] if steps else taken


def cut(inputs, sizes):
    """What fills blocks, `(count, *sizes, batch, ...)`, and the steps that are left."""
    if not sizes:
        return inputs, None
    first, span = nest.flatten(inputs)[0], math.prod(sizes)
    known = first.shape[0]
    count = (tf.shape(first)[0] if known is None else known) // span

    def blocks(x):
        shape = tf.concat([[count, *sizes], tf.shape(x)[1:]], 0)
        y = tf.reshape(x[: count * span], shape)
        return shaped(y, [known and count, *sizes, *x.shape[1:]])

    left = nest.map_structure(lambda x: x[count * span :], inputs)
    return nest.map_structure(blocks, inputs), left
