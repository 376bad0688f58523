"""A function that treats all rows alike, run on shards of a batch."""

from keras_rnnkit.recurrence.gradient import Gradients
from keras_rnnkit.recurrence.often import if_often
from keras_rnnkit.recurrence.shards import (
    added,
    by_batch,
    joined,
    on_shards,
    shard_count,
    split,
)


class RowFunction:
    """Runs on one core for each shard of a batch, with gradients of any order.

    All functions take three lists of tensors: `rows`, each `(batch, ...)`, `shared`,
    the same for all rows, and `given`, each `(batch, ...)`, which has no gradient. A
    `forward` returns a list of `(batch, ...)`. A `backward` also takes the gradients by
    these, and returns two lists, the gradients by `rows` and by `shared`.

    Args:
        ordinary: `(forward, backward)`, in ordinary ops.
        compiled: the same, compiled by XLA.
        reference: `forward` in ordinary ops, for gradients of the gradients.

    Call arguments:
        rows, shared, given: see above.
        often: whether to run compiled; see `is_often`.
    """

    def __init__(self, ordinary, compiled, reference):
        self._ordinary, self._compiled = ordinary, compiled
        self._reference = reference

    def __call__(self, rows, shared, given=(), often=None):
        count, number, given = shard_count(), len(rows), list(given)

        def parts(values):
            return list(values[:number]), list(values[number:])

        def forward(*values):
            rows, shared = parts(values)
            ordinary, compiled = self._ordinary[0], self._compiled[0]
            results = if_often(
                often,
                lambda: on_shards(
                    lambda rows, given: compiled(rows, shared, given), rows, given
                ),
                lambda: ordinary(rows, shared, given),
            )
            return tuple(results), []

        def backward(values, saved, d_results):
            del saved
            (rows, shared), d_results = parts(values), list(d_results)
            ordinary, compiled = self._ordinary[1], self._compiled[1]

            def sharded():
                shards = zip(
                    split([rows, given], count),
                    split(d_results, count, fill="zeros"),
                    strict=True,
                )
                results = [compiled(r, shared, g, d) for (r, g), d in shards]
                by_rows, by_all = zip(*results, strict=True)
                return joined(by_rows, rows[0]), added(by_all)

            def whole(_):
                return compiled(rows, shared, given, d_results)

            d_rows, d_shared = if_often(
                often,
                lambda: by_batch(rows[0], count, whole, sharded),
                lambda: ordinary(rows, shared, given, d_results),
            )
            return [*d_rows, *d_shared]

        def reference(*values):
            return tuple(self._reference(*parts(values), given))

        # The gradients live as long as the graph in which they are made.
        run = Gradients().of_any_order(forward, backward, reference)
        return list(run(*rows, *shared))
