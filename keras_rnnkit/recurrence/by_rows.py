"""A function that knows no row from another, compiled for shards of a batch."""

from keras_rnnkit.recurrence.gradient import Gradients
from keras_rnnkit.recurrence.often import both_ways, if_often
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

    Call arguments:
        rows, shared: as for `forward`.
        often: whether to run compiled; see `is_often`.
    """

    def __init__(self, forward, backward, reference):
        self._ordinary, self._compiled = both_ways(forward, backward)
        self._reference = reference

    def __call__(self, rows, shared, often=None):
        count, number = shard_count(), len(rows)

        def parts(values):
            return list(values[:number]), list(values[number:])

        def forward(*values):
            rows, shared = parts(values)
            ordinary, compiled = self._ordinary[0], self._compiled[0]
            result = if_often(
                often,
                lambda: on_shards(lambda rows: compiled(rows, shared), rows),
                lambda: ordinary(rows, shared),
            )
            return (result,), []

        def backward(values, saved, d_results):
            del saved
            rows, shared = parts(values)
            ordinary, compiled = self._ordinary[1], self._compiled[1]

            def sharded():
                shards = zip(
                    split(rows, count),
                    split(list(d_results), count, fill="zeros"),
                    strict=True,
                )
                results = [compiled(some, shared, *d) for some, d in shards]
                by_rows, by_all = zip(*results, strict=True)
                return joined(by_rows, rows[0]), added(by_all)

            def whole(_):
                return compiled(rows, shared, *d_results)

            d_rows, d_shared = if_often(
                often,
                lambda: by_batch(rows[0], count, whole, sharded),
                lambda: ordinary(rows, shared, *d_results),
            )
            return [*d_rows, *d_shared]

        def reference(*values):
            return (self._reference(*parts(values)),)

        # Kept by the graph in which they are made.
        run = Gradients().of_any_order(forward, backward, reference)
        return run(*rows, *shared)[0]
