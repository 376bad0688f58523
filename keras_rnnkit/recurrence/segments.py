"""A long sequence in segments side by side, for cells that forget their first state."""

import tensorflow as tf

SEGMENTS = 24
FEWEST_UNITS = 150  # with fewer, the overhead of a step outweighs its products
# How much the states may differ where two segments meet, in units of rounding.
ROUNDING = 16


def segments_of(cell, x, states) -> tuple[int, int] | None:
    """Returns the number of segments and of warm-up steps, or `None` for no segments.

    Args:
        cell: may have `memory`, the number of steps after which a state has no effect.
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
    """Runs segments of a sequence side by side, each after a warm-up.

    Every segment but the first starts `memory` steps early, from the given states.
    Where two segments meet, the states are compared: if they differ by more than
    rounding, the result is invalid.

    Args:
        forward: callable `(x, states, mask) -> (output, states)`.
        x: `(batch, time, ...)`.
        states: list of `(batch, ...)`.
        count: int, the number of segments.
        memory: int, the number of warm-up steps.
        return_sequences: bool, of `forward`.

    Returns:
        `(met, output, states)`; `met` is False if the result is invalid.
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
