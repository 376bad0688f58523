"""Shards of a batch, one for each core. All functions take nests of tensors."""

import os

import tensorflow as tf

from keras_rnnkit.internals import in_xla
from keras_rnnkit.recurrence.scope import Scoped

nest = tf.nest

MOST_SHARDS = 16
# XLA compiles for each size that it meets: sizes that the graph does not know are
# padded to one of these.
ROW_BUCKETS = [2, 4, *sorted(m << e for m in (4, 5, 6, 7) for e in range(1, 28))]
LENGTH_BUCKETS = sorted(m << e for m in (2, 3) for e in range(2, 28))  # 8, 12, 16, ...

_loops = Scoped(1)


def side_by_side(number: int):
    """A context manager for loops that run side by side: they share the cores.

    Eager loops run one after the other, and each has all cores.

    Args:
        number: how many loops there are.
    """
    return _loops.set(_loops.value * (1 if tf.executing_eagerly() else number))


def shard_count() -> int:
    """Returns one for each core that TensorFlow may use and the loop does not share.

    Inside a function with `jit_compile=True` it is 1: XLA runs shards in turn.
    """
    if in_xla():
        return 1
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    cores = (threads or available_cores()) // _loops.value
    return max(1, min(cores, MOST_SHARDS))


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def by_batch(x, count, whole, sharded):
    """Calls `sharded`, or `whole` for one row or one shard that needs no padding.

    Args:
        x: `(batch, ...)`.
        count: number of shards.
        whole: callable that takes a bool, whether there is one row.
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

    If the graph does not know the batch size, each shard is padded to one of a few
    sizes. The padding repeats the last row, which is sure to have valid values; with
    `fill="zeros"`, for gradients, it is zero.
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
    """The rows of a padded batch, over all shards."""
    return at_least(-(-batch // count), ROW_BUCKETS) * count


def padded_length(steps):
    """The steps of a padded sequence."""
    return at_least(steps, LENGTH_BUCKETS)


def at_least(number, sizes):
    """The smallest of the ascending `sizes` that is at least `number`."""
    return tf.reduce_min(tf.where(tf.less(sizes, number), sizes[-1], sizes))


def joined(shards, like):
    """Concatenates nests of shards, and cuts them to the rows of `like`."""
    batch = tf.shape(like)[0] if like.shape[0] is None else like.shape[0]
    return nest.map_structure(lambda *parts: tf.concat(parts, 0)[:batch], *shards)


def added(shards):
    """Adds up lists of tensors, one list for each shard."""
    return [tf.add_n(parts) for parts in zip(*shards, strict=True)]


def pad(tensor, axis, widths):
    """Pads a tensor with zeros along one axis."""
    rank = tensor.shape.rank
    return tf.pad(tensor, [widths if i == axis else [0, 0] for i in range(rank)])
