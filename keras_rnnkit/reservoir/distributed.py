"""Sufficient statistics over the replicas of a `tf.distribute` strategy."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.reservoir.streaming import run_chunk


def current_strategy():
    """The current `tf.distribute` strategy if it has several replicas, else None."""
    strategy = tf.distribute.get_strategy()
    return strategy if strategy.num_replicas_in_sync > 1 else None


class ReplicatedGram:
    """Computes Gram matrices of batches, with the rows split among the replicas.

    Args:
        strategy: `tf.distribute.Strategy`.
        reader: `SampleReader`.
    """

    def __init__(self, strategy, reader):
        self._strategy = strategy
        self._reader = reader
        self._run = tf.function(
            lambda *args: strategy.run(self._replica_grams, args=args), autograph=False
        )

    def grams(self, statistics, batch):
        """Yields, for each chunk, a list of the matrices to add to the statistics.

        Args:
            statistics: list of `SufficientStatistics`, one for each readout, or None
                where no step has been seen.
            batch: `Batch` from `SampleReader.checked_batches`.
        """
        extractor, states, start = self._reader.extractor, {}, 0
        x, ys = batch.x, batch.ys
        is_only_chunk = not extractor.has_next_chunk(x, 0)
        shifts = [
            np.zeros(dense.kernel.shape[0] + dense.units)
            if each is None
            else each.shift
            for each, dense in zip(statistics, extractor.readouts, strict=True)
        ]
        for chunk in extractor.chunks(x):
            has_next = extractor.has_next_chunk(x, start)
            end = start + chunk.shape[1] if has_next else None
            steps = slice(start, end)
            weights = [self._weights(y, batch, steps, has_next) for y in ys]
            targets = [y[:, start:end] if y.ndim > 2 else y for y in ys]
            remaining = extractor.remaining_lengths(batch.lengths, start)
            args = [chunk, targets, weights, [] if remaining is None else [remaining]]
            args = keras.tree.map_structure(self._split_rows, args)
            grams, states = self._run(*args, shifts, states, is_only_chunk)
            reduce = self._strategy.reduce
            yield [reduce("SUM", gram, axis=None).numpy() for gram in grams]
            start = end

    def _split_rows(self, value):
        """The rows of an array, distributed over the replicas."""
        parts = np.array_split(np.asarray(value), self._strategy.num_replicas_in_sync)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    def _weights(self, y, batch, steps, has_next):
        """The weights of the steps of a chunk, or of the rows for a last step."""
        w = batch.weights
        if y.ndim == 2:
            w = np.ones(len(y)) if w is None else batch.last_step_weights()
            return 0 * w if has_next else w
        w = 1.0 if w is None else w[:, None] if w.ndim == 1 else w
        w = np.array(np.broadcast_to(w, y.shape[:2]))
        w[:, : self._reader.washout] = 0
        if batch.lengths is not None:
            w *= np.arange(w.shape[1]) < batch.lengths[:, None]
        return w[:, steps]

    def _replica_grams(self, x, ys, ws, remaining, shifts, states, is_only_chunk):
        """The Gram matrices of one replica, and the states after the chunk."""
        features, masks, states = run_chunk(
            self._reader.extractor.model,
            x,
            states,
            *(remaining or [None]),
            self._reader.training,
            is_only_chunk,
        )
        grams = []
        for f, mask, y, w, shift in zip(features, masks, ys, ws, shifts, strict=True):
            if mask is not None and f.shape.rank == 3:
                w = tf.where(mask, w, 0)
            rows = tf.concat([tf.cast(f, "float64"), tf.cast(y, "float64")], -1) - shift
            rows = tf.concat([rows, tf.ones_like(rows[..., :1])], -1)
            rows = tf.reshape(rows * tf.sqrt(w)[..., None], [-1, rows.shape[-1]])
            grams.append(tf.matmul(rows, rows, transpose_a=True))
        return grams, states
