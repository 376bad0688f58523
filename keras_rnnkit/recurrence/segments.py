"""A long sequence in segments side by side, for cells that forget where they began."""

import tensorflow as tf

SEGMENTS = 24
FEWEST_UNITS = 150  # of less, steps cost more than products
# How far the states may be apart where two segments meet, in units of rounding.
ROUNDING = 16


def segments_of(cell, x, states) -> tuple[int, int] | None:
    """How many segments, and steps of warm-up; None to run the sequence as it is.

    Args:
        cell: may have `memory`, the steps after which no trace of a state is left.
        x: `(batch, time, ...)`.
        states: list of `(batch, ...)`.
    """
    memory, (rows, steps) = getattr(cell, "memory", None), x.shape[:2]
    if None in (memory, rows, steps) or not rows:
        return None
    if sum(state.shape[-1] for state in states) < FEWEST_UNITS:
        return None
    count = min(SEGMENTS // rows, steps // memory)
    return (count, memory) if count > 2 else None


def in_segments(forward, x, states, count, memory, return_sequences):
    """Runs segments of a sequence side by side, each after a warm-up of its own.

    A segment but the first begins `memory` steps early, with the states given. Where
    two segments meet, the states are compared: they are the same but for rounding, or
    the result is not to be used.

    Args:
        forward: callable `(x, states, mask) -> (output, states)`.
        x: `(batch, time, ...)`.
        states: list of `(batch, ...)`.
        count: int, of segments.
        memory: int, steps.
        return_sequences: bool, of `forward`.

    Returns:
        `(met, output, states)`.
    """
    rows, steps = x.shape[:2]
    length = steps // count
    first = steps - count * length  # steps of the sequence before its first segment
    missing = memory - first
    padded = tf.pad(x, [[0, 0], [missing, 0], *[[0, 0] for _ in x.shape[2:]]])

    def windows(start, size):
        starts = range(start, start + count * length, length)
        return tf.concat([padded[:, at : at + size] for at in starts], 0)

    there = tf.range(memory) + length * tf.range(count)[:, None] >= missing
    spread = [tf.concat([state] * count, 0) for state in states]
    early, warm = forward(windows(0, memory), spread, [tf.repeat(there, rows, axis=0)])
    output, last = forward(windows(memory, length), warm, [])
    met = [
        tf.reduce_all(
            abs(after[rows:] - before[:-rows])
            <= ROUNDING * tf.experimental.numpy.finfo(after.dtype.as_numpy_dtype).eps
        )
        for after, before in zip(warm, last, strict=True)
    ]
    if return_sequences:
        output = tf.concat([early[:rows, missing:], *tf.split(output, count)], 1)
    else:
        output = output[-rows:]
    return tf.reduce_all(met), output, [state[-rows:] for state in last]
