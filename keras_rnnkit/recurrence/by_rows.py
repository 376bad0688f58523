"""A function that knows no row from another, compiled for shards of a batch."""

import tensorflow as tf

from keras_rnnkit.recurrence.gradient import Gradients
from keras_rnnkit.recurrence.shards import (
    added,
    by_batch,
    joined,
    on_shards,
    shard_count,
    split,
)


class RowFunction:
    """Runs on one core for each shard of a batch, with a gradient of its own.

    Args:
        forward: callable `(rows, shared) -> result`; `rows` is a list of tensors
            `(batch, ...)`, as is the result, `shared` a list of tensors of all rows.
        backward: callable `(rows, shared, d_result) -> (d_rows, d_shared)`.
        reference: callable as `forward`, in ordinary ops, for derivatives of the
            gradients.
    """

    def __init__(self, forward, backward, reference):
        self._forward = tf.function(forward, autograph=False, jit_compile=True)
        self._backward = tf.function(backward, autograph=False, jit_compile=True)
        self._reference = reference

    def __call__(self, rows, shared):
        count, number = shard_count(), len(rows)

        def parts(values):
            return list(values[:number]), list(values[number:])

        def forward(*values):
            rows, shared = parts(values)
            result = on_shards(lambda rows: self._forward(rows, shared), rows)
            return (result,), []

        def backward(values, saved, d_results):
            del saved
            rows, shared = parts(values)

            def sharded():
                shards = zip(
                    split(rows, count),
                    split(list(d_results), count, fill="zeros"),
                    strict=True,
                )
                results = [self._backward(some, shared, *d) for some, d in shards]
                by_rows, by_all = zip(*results, strict=True)
                return joined(by_rows, rows[0]), added(by_all)

            def whole(_):
                return self._backward(rows, shared, *d_results)

            d_rows, d_shared = by_batch(rows[0], count, whole, sharded)
            return [*d_rows, *d_shared]

        def reference(*values):
            return (self._reference(*parts(values)),)

        # Kept by the graph in which they are made.
        run = Gradients().of_any_order(forward, backward, reference)
        return run(*rows, *shared)[0]
