"""A batch in shards, one for each core. They are functions of nests of tensors."""

import os
import threading
from contextlib import contextmanager

import tensorflow as tf

from keras_rnnkit.internals import in_xla

nest = tf.nest

MOST_SHARDS = 16
# XLA compiles for each size that it meets: one that the graph does not know is padded
# to one of these.
ROWS = [2, 4, *sorted(m << e for m in (4, 5, 6, 7) for e in range(1, 28))]
LENGTHS = sorted(m << e for m in (2, 3) for e in range(2, 28))  # 8, 12, 16, 24, ...

_local = threading.local()


@contextmanager
def side_by_side(number: int):
    """Has loops inside leave cores to one another, in a graph: eager ones run in turn.

    Args:
        number: how many loops there are to run side by side.
    """
    before = getattr(_local, "loops", 1)
    _local.loops = before * (1 if tf.executing_eagerly() else number)
    try:
        yield
    finally:
        _local.loops = before


def shard_count() -> int:
    """One shard for each core that TensorFlow may use and the loop has for itself.

    Within a function that XLA compiles whole, one: it would run them in turn.
    """
    if in_xla():
        return 1
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    cores = (threads or available_cores()) // getattr(_local, "loops", 1)
    return max(1, min(cores, MOST_SHARDS))


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def by_batch(x, count, whole, sharded):
    """Calls `sharded`, or `whole` for one row, or if one shard needs no padding.

    Args:
        x: `(batch, ...)`.
        count: number of shards.
        whole: callable; its argument tells whether there is one row.
    """
    rows = x.shape[0]
    if rows is None:
        several = (lambda: whole(False)) if in_xla() else sharded
        return tf.cond(tf.shape(x)[0] > 1, several, lambda: whole(True))
    return sharded() if rows > 1 and count > 1 else whole(rows == 1)


def on_shards(function, *values):
    """Calls a function on shards of a batch, side by side.

    Args:
        function: callable.
        values: nests of `(batch, ...)`.
    """
    x, count = nest.flatten(values)[0], shard_count()

    def sharded():
        shards = [function(*shard) for shard in split(list(values), count)]
        return joined(shards, x)

    return by_batch(x, count, lambda _: function(*values), sharded)


def split(tensors, count, fill="last"):
    """Splits nests of `(batch, ...)` into shards of one size, of two rows or more.

    XLA compiles for each size that it meets: where the batch is not known when the
    graph is made, a shard gets one of a few sizes. Rows that are missing repeat the
    last one, which is sure to compute; for gradients, with `fill="zeros"`, they are
    zeros.
    """
    flat = nest.flatten(tensors)
    batch = flat[0].shape[0]
    if batch is None:
        batch = tf.shape(flat[0])[0]
        missing = padded_rows(batch, count) - batch
    else:
        missing = max(-(-batch // count), 2) * count - batch

    def filled():
        if fill == "zeros":
            return [pad(v, 0, [0, missing]) for v in flat]
        return [tf.concat([v, tf.repeat(v[-1:], missing, axis=0)], 0) for v in flat]

    if tf.is_tensor(missing):
        flat = tf.cond(missing > 0, filled, lambda: flat)
    elif missing:
        flat = filled()
    shards = zip(*[tf.split(v, count) for v in flat], strict=True)
    return [nest.pack_sequence_as(tensors, shard) for shard in shards]


def padded_rows(batch, count):
    """How many rows a batch that the graph does not know has once it is split."""
    return at_least(-(-batch // count), ROWS) * count


def padded_length(steps):
    """How many steps a sequence has once it is padded."""
    return at_least(steps, LENGTHS)


def at_least(number, sizes):
    """The smallest of `sizes`, which end in the largest, that is no less."""
    return tf.reduce_min(tf.where(tf.less(sizes, number), sizes[-1], sizes))


def joined(shards, like):
    """Joins nests of shards to nests of as many rows as `like` has."""
    batch = tf.shape(like)[0] if like.shape[0] is None else like.shape[0]
    return nest.map_structure(lambda *parts: tf.concat(parts, 0)[:batch], *shards)


def added(shards):
    """Adds up lists of what shards found for all rows."""
    return [tf.add_n(parts) for parts in zip(*shards, strict=True)]


def pad(tensor, axis, widths):
    """Puts zeros before and after a tensor along one axis."""
    rank = tensor.shape.rank
    return tf.pad(tensor, [widths if i == axis else [0, 0] for i in range(rank)])
