"""Batches of whatever holds data: arrays, lists, `tf.data`, Keras sequences."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.recurrence import LENGTH_BUCKETS, pad_rows
from keras_rnnkit.reservoir.forms import Forms

ENDLESS = tf.data.INFINITE_CARDINALITY


class Batch(NamedTuple):
    """Rows that are run side by side.

    Attributes:
        x: the model's inputs, a nest of arrays or tensors `(batch, ...)`.
        ys: list of one for each output.
        weights: `(batch,)`, `(batch, steps)` or None.
        lengths: int `(batch,)`, the steps of each row that are no padding; None without
            padding.
        rows: int `(batch,)`, the numbers of the rows in the data.
    """

    x: object
    ys: list
    weights: np.ndarray | None
    lengths: np.ndarray | None
    rows: np.ndarray

    def weights_of_last(self):
        """The weights of the last steps, `(batch,)`, or None."""
        w = self.weights
        if w is None or w.ndim == 1:
            return w
        last = w.shape[1] if self.lengths is None else self.lengths
        return w[np.arange(len(w)), last - 1]


class Batches:
    """Batches of what is held as arrays, or yielded, in any of the forms of `Forms`.

    Sequences of several lengths are padded if the model computes each step from those
    before it, and if not are run with those of their own length.

    Args:
        body: `Body` of the model.
        x: data of the inputs; or, without `y`, a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or another iterable of `(x, y)` or
            `(x, y, sample_weight)`.
        y: data of the outputs.
        sample_weight: weights of rows or of steps, or None.
        batch_size: int, the rows of a batch, but of arrays that are yielded.

    Attributes:
        repeats: bool, whether the data can be gone through again.
    """

    def __init__(self, body, x, y=None, sample_weight=None, batch_size=32):
        self._body, self._size = body, batch_size
        self._forms, self._arrays = Forms(body), y is not None
        if self._arrays:
            for each in [*_values(x), *_values(y), sample_weight]:
                if not _holds_numbers(each):
                    raise ValueError(
                        "`x`, `y` and `sample_weight` must be arrays, or `x` a dataset "
                        f"that yields all of them; received {type(each).__name__}"
                    )
            self._data = self._forms.read(x, y, sample_weight)
        elif sample_weight is not None:
            raise ValueError(
                "`sample_weight` goes with arrays; received one beside "
                f"`{type(x).__name__}`: have that yield (x, y, sample_weight)"
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
            if isinstance(x, tf.data.Dataset) and x.cardinality() == ENDLESS:
                raise ValueError("`x` must end; received a dataset that does not")
        self.repeats = not isinstance(x, Iterator)

    def __iter__(self):
        if self._arrays:
            yield from self._cut(self._data, self._size)
            return
        data, done = self._data, 0
        if isinstance(data, keras.utils.PyDataset):
            data = (self._data[i] for i in range(len(self._data)))
        for batch in data:
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise ValueError(
                    "`x` must yield (x, y) or (x, y, sample_weight); received "
                    f"{type(batch).__name__}"
                )
            data = self._forms.read(*batch)
            yield from self._cut(data, self._size if data.lengths else None, done)
            done += data.rows

    def _cut(self, data, size, done=0):
        """Batches of some rows each, of whose numbers some are before."""
        for rows in self._groups(data, size):
            lengths = None
            if data.lengths:
                lengths = np.array([data.lengths[i][0] for i in rows])
                lengths = lengths if lengths.min() < lengths.max() else None
            steps = None if lengths is None else at_least(int(lengths.max()))

            def part(value, rows=rows, steps=steps):
                if isinstance(value, list):
                    return pad_rows([value[i] for i in rows], steps)
                return None if value is None else np.asarray(value)[rows]

            numbers = np.arange(data.rows)[rows] + done
            x = keras.tree.pack_sequence_as(data.nest, [part(each) for each in data.x])
            yield Batch(x, [*map(part, data.ys)], part(data.weights), lengths, numbers)

    def _groups(self, data, size):
        """The numbers of the rows of each batch."""
        size = size or max(data.rows, 1)
        if not data.lengths:
            for start in range(0, data.rows, size):
                yield slice(start, start + size)
            return
        order = sorted(range(data.rows), key=lambda i: data.lengths[i])
        start = 0
        while start < len(order):
            rows = order[start : start + size]
            if not self._body.streams:
                own = data.lengths[rows[0]]
                rows = [i for i in rows if data.lengths[i] == own]
            yield rows
            start += len(rows)


def at_least(steps):
    """One of a few numbers of steps, for each of which something is compiled."""
    return LENGTH_BUCKETS[bisect_left(LENGTH_BUCKETS, steps)]


def _values(nest):
    return nest.values() if isinstance(nest, dict) else [nest]


def _holds_numbers(value):
    kinds = tf.RaggedTensor, list, tuple
    held = isinstance(value, kinds) or hasattr(value, "to_numpy")
    return value is None or held or bool(getattr(value, "shape", ()))
