"""Sums over the replicas of a `tf.distribute` strategy."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.reservoir.body import features_of


def current_strategy():
    """The strategy in whose scope this runs, if it has several replicas."""
    strategy = tf.distribute.get_strategy()
    return strategy if strategy.num_replicas_in_sync > 1 else None


class Replicas:
    """Sums up batches, of which each replica takes a share of the rows.

    Args:
        strategy: `tf.distribute.Strategy`.
        rows: `Rows`.
    """

    def __init__(self, strategy, rows):
        self._strategy = strategy
        self._rows = rows
        self._run = tf.function(
            lambda *given: strategy.run(self._grams_here, args=given), autograph=False
        )

    def grams(self, sums, batch):
        """Yields, chunk by chunk, a list of what is to be added to each sum.

        Args:
            sums: list of `Sums`, one for each readout, or None where no step counts.
            batch: `Batch` as `Rows.checked` yields it.
        """
        body, states, start = self._rows.body, {}, 0
        x, ys = batch.x, batch.ys
        whole = not body.has_more(x, 0)
        shifts = [
            np.zeros(dense.kernel.shape[0] + dense.units)
            if each is None
            else each.shift
            for each, dense in zip(sums, body.readouts, strict=True)
        ]
        for chunk in body.chunks(x):
            more = body.has_more(x, start)
            end = start + chunk.shape[1] if more else None
            weights = [self._weights(y, batch, slice(start, end), more) for y in ys]
            targets = [y[:, start:end] if y.ndim > 2 else y for y in ys]
            left = body.left(batch.lengths, start)
            given = [chunk, targets, weights, [] if left is None else [left]]
            given = keras.tree.map_structure(self._share, given)
            found, states = self._run(*given, shifts, states, whole)
            reduce = self._strategy.reduce
            yield [reduce("SUM", gram, axis=None).numpy() for gram in found]
            start = end

    def _share(self, value):
        """The rows for each replica."""
        parts = np.array_split(np.asarray(value), self._strategy.num_replicas_in_sync)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    def _weights(self, y, batch, steps, more):
        """What the steps of a chunk count, or the rows at their last step."""
        w = batch.weights
        if y.ndim == 2:
            w = np.ones(len(y)) if w is None else batch.weights_of_last()
            return 0 * w if more else w
        w = 1.0 if w is None else w[:, None] if w.ndim == 1 else w
        w = np.array(np.broadcast_to(w, y.shape[:2]))
        w[:, : self._rows.washout] = 0
        if batch.lengths is not None:
            w *= np.arange(w.shape[1]) < batch.lengths[:, None]
        return w[:, steps]

    def _grams_here(self, x, ys, ws, left, shifts, states, whole):
        """The sums of one replica, and the states after the chunk."""
        rows = self._rows
        features, masks, states = features_of(
            rows.body.model, x, states, *(left or [None]), rows.training, whole
        )
        found = []
        for f, mask, y, w, shift in zip(features, masks, ys, ws, shifts, strict=True):
            if mask is not None and f.shape.rank == 3:
                w = tf.where(mask, w, 0)
            both = tf.concat([tf.cast(f, "float64"), tf.cast(y, "float64")], -1) - shift
            both = tf.concat([both, tf.ones_like(both[..., :1])], -1)
            both = tf.reshape(both * tf.sqrt(w)[..., None], [-1, both.shape[-1]])
            found.append(tf.matmul(both, both, transpose_a=True))
        return found, states
