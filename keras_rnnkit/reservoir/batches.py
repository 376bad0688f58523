"""Batches of data from arrays, lists, `tf.data` or Keras data sets."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.recurrence import LENGTH_BUCKETS, pad_rows
from keras_rnnkit.reservoir.input_formats import DataReader

INFINITE = tf.data.INFINITE_CARDINALITY


class Batch(NamedTuple):
    """Rows that run side by side.

    Attributes:
        x: the model's inputs, a nested structure of arrays or tensors `(batch, ...)`.
        ys: list of targets, one for each output.
        weights: `(batch,)`, `(batch, steps)` or None.
        lengths: int `(batch,)`, the steps of each row without padding, or None if
            nothing is padded.
        row_numbers: int `(batch,)`, the numbers of the rows in the data.
    """

    x: object
    ys: list
    weights: np.ndarray | None
    lengths: np.ndarray | None
    row_numbers: np.ndarray

    def last_step_weights(self):
        """The weights at the last valid steps, `(batch,)`, or None."""
        w = self.weights
        if w is None or w.ndim == 1:
            return w
        last = w.shape[1] if self.lengths is None else self.lengths
        return w[np.arange(len(w)), last - 1]


class Batches:
    """Batches of arrays or of a dataset, in any format that `DataReader` reads.

    Sequences of different lengths are padded if the model can stream. Otherwise each
    batch holds sequences of equal length.

    Args:
        extractor: `FeatureExtractor` of the model.
        x: data of the inputs; or, without `y`, a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or another iterable of `(x, y)` or
            `(x, y, sample_weight)`.
        y: data of the outputs.
        sample_weight: weights of rows or of steps, or None.
        batch_size: int, the rows of a batch; does not split arrays from a dataset.

    Attributes:
        is_repeatable: bool, whether the data can be read again.
    """

    def __init__(self, extractor, x, y=None, sample_weight=None, batch_size=32):
        self._extractor, self._size = extractor, batch_size
        self._reader, self._has_arrays = DataReader(extractor), y is not None
        if self._has_arrays:
            for each in [*_values(x), *_values(y), sample_weight]:
                if not _is_array_like(each):
                    raise ValueError(
                        "`x`, `y` and `sample_weight` must be arrays, or `x` a dataset "
                        f"that yields all of them; received {type(each).__name__}"
                    )
            self._data = self._reader.read(x, y, sample_weight)
        elif sample_weight is not None:
            raise ValueError(
                "`sample_weight` goes with arrays; received one with "
                f"`{type(x).__name__}`: let that yield (x, y, sample_weight)"
            )
        elif not isinstance(x, (Iterable, keras.utils.PyDataset)) or hasattr(
            x, "shape"
        ):
            raise ValueError(
                "`x` without `y` must be a dataset or an iterable of (x, y); received "
                f"{type(x).__name__}"
            )
        else:
            self._data = x
            if isinstance(x, tf.data.Dataset) and x.cardinality() == INFINITE:
                raise ValueError("`x` must end; received an infinite dataset")
        self.is_repeatable = not isinstance(x, Iterator)

    def __iter__(self):
        if self._has_arrays:
            yield from self._split(self._data, self._size)
            return
        data, rows_before = self._data, 0
        if isinstance(data, keras.utils.PyDataset):
            data = (self._data[i] for i in range(len(self._data)))
        for batch in data:
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise ValueError(
                    "`x` must yield (x, y) or (x, y, sample_weight); received "
                    f"{type(batch).__name__}"
                )
            data = self._reader.read(*batch)
            size = self._size if data.lengths else None
            yield from self._split(data, size, rows_before)
            rows_before += data.row_count

    def _split(self, data, size, rows_before=0):
        """Yields `ArrayData` in batches of `size` rows, or all rows if it is None."""
        for rows in self._group_rows(data, size):
            lengths = None
            if data.lengths:
                lengths = np.array([data.lengths[i][0] for i in rows])
                lengths = lengths if lengths.min() < lengths.max() else None
            steps = None if lengths is None else bucket_length(int(lengths.max()))

            def take(value, rows=rows, steps=steps):
                if isinstance(value, list):
                    return pad_rows([value[i] for i in rows], steps)
                return None if value is None else np.asarray(value)[rows]

            row_numbers = np.arange(data.row_count)[rows] + rows_before
            xs = [take(each) for each in data.xs]
            x = keras.tree.pack_sequence_as(data.structure, xs)
            ys, weights = [*map(take, data.ys)], take(data.weights)
            yield Batch(x, ys, weights, lengths, row_numbers)

    def _group_rows(self, data, size):
        """Yields the rows of each batch, a slice or a list of indices."""
        size = size or max(data.row_count, 1)
        if not data.lengths:
            for start in range(0, data.row_count, size):
                yield slice(start, start + size)
            return
        order = sorted(range(data.row_count), key=lambda i: data.lengths[i])
        start = 0
        while start < len(order):
            rows = order[start : start + size]
            if not self._extractor.can_stream:
                length = data.lengths[rows[0]]
                rows = [i for i in rows if data.lengths[i] == length]
            yield rows
            start += len(rows)


def bucket_length(steps):
    """Rounds a number of steps up to a bucket, so that few shapes are compiled."""
    return LENGTH_BUCKETS[bisect_left(LENGTH_BUCKETS, steps)]


def _values(structure):
    return structure.values() if isinstance(structure, dict) else [structure]


def _is_array_like(value):
    types = tf.RaggedTensor, list, tuple
    is_known = isinstance(value, types) or hasattr(value, "to_numpy")
    return value is None or is_known or bool(getattr(value, "shape", ()))
