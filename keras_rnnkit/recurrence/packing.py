"""Fewer parts in the body of a loop, for XLA."""

import tensorflow as tf


class Packing:
    """Concatenates tensors to one, and splits it again.

    XLA runs the body of a loop in one thread, without overhead, if it has few parts;
    each tensor that is carried or written is a part.

    Args:
        like: tensors `(rows, width)`. Those of another rank or type stay apart.
    """

    def __init__(self, like):
        self.widths = [tensor.shape[-1] for tensor in like]
        types = {(tensor.dtype, tensor.shape.rank) for tensor in like}
        self.joins = len(like) > 1 and len(types) == 1 and like[0].shape.rank == 2

    def pack(self, tensors):
        return [tf.concat(tensors, -1)] if self.joins else tensors

    def unpack(self, tensors):
        return tf.split(*tensors, self.widths, -1) if self.joins else tensors


def after(first, tensor, condition):
    """Returns `tensor`; XLA computes what depends on it after `first`."""
    some = tf.reduce_sum(tf.reshape(first, [-1])[:1])  # there may be no rows
    nothing = tf.where(tf.math.is_nan(some) & condition, 0.0, -0.0)
    return tensor + tf.cast(nothing, tensor.dtype)
