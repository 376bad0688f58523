"""Masks, and lengths in place of masks."""

import numpy as np
import tensorflow as tf


def as_mask(mask, lengths, sequences: tf.Tensor) -> tf.Tensor | None:
    """Combines mask and lengths to bool `(batch, time)`, or `None` for all steps.

    Args:
        mask: `(batch, time)` or `(batch, time, 1)` of any type, or `None`.
        lengths: int `(batch,)` or `None`. With a mask, a step counts if both say so.
        sequences: `(batch, time, ...)`.

    Raises:
        ValueError: as `lengths_to_mask`.
    """
    if mask is not None:
        mask = tf.cast(mask, tf.bool)
        mask = tf.squeeze(mask, 2) if mask.shape.rank == 3 else mask
    if lengths is None:
        return mask
    within = lengths_to_mask(lengths, sequences)
    return within if mask is None else tf.logical_and(mask, within)


def lengths_to_mask(lengths, sequences: tf.Tensor) -> tf.Tensor:
    """Returns the bool mask `(batch, time)` that is True for the steps within a length.

    Args:
        lengths: int `(batch,)`, each from 0 to the number of steps.
        sequences: `(batch, time, ...)`.

    Raises:
        ValueError: a length is negative or beyond the sequence.
        tf.errors.InvalidArgumentError: the same, if only known when the graph runs.
    """
    lengths = tf.convert_to_tensor(lengths)
    steps = tf.shape(sequences)[1]
    values, limit = tf.get_static_value(lengths), tf.get_static_value(steps)
    if values is None or limit is None:
        lengths = _checked_when_run(lengths, steps)
    else:
        check_lengths_within(values, limit)
    return tf.sequence_mask(lengths, steps)


def check_lengths_within(values: np.ndarray, limit: int) -> None:
    """Raises `ValueError` unless all values lie between 0 and `limit`."""
    wrong = np.flatnonzero((values < 0) | (values > limit))
    if wrong.size:
        raise ValueError(
            f"`lengths` must lie between 0 and the number of steps, {limit}; "
            f"received {values[wrong[0]]} in row {wrong[0]}"
        )


def _checked_when_run(lengths, steps):
    lengths, steps = tf.cast(lengths, tf.int64), tf.cast(steps, tf.int64)
    rule = "`lengths` must lie between 0 and the number of steps"
    checks = [
        tf.debugging.assert_non_negative(lengths, rule),
        tf.debugging.assert_less_equal(lengths, steps, rule),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(lengths)


def where_mask(mask, new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
    """Returns `new` for the rows where `mask`, bool `(batch,)`, is True, else `old`."""
    return tf.where(tf.reshape(mask, [-1] + [1] * (new.shape.rank - 1)), new, old)
