"""Batches of whatever holds data: arrays, `tf.data`, Keras sequences, iterables."""

from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

ENDLESS = tf.data.INFINITE_CARDINALITY


class Batches:
    """Batches `(x, y, sample_weight)` of NumPy arrays or tensors.

    Args:
        x: array or a nest of arrays; or, without `y`, a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or another iterable of `(x, y)` or
            `(x, y, sample_weight)`.
        y: array, or a nest of them, one for each output.
        sample_weight: array `(rows,)` or `(rows, steps)`, or None.
        batch_size: int, the rows of a batch of arrays.

    Attributes:
        repeats: bool, whether the data can be gone through again.
    """

    def __init__(self, x, y=None, sample_weight=None, batch_size=32):
        self._arrays = y is not None
        if self._arrays:
            self._size, self._data = batch_size, (x, y, sample_weight)
            for each in keras.tree.flatten(self._data):
                if each is not None and not getattr(each, "shape", ()):
                    raise ValueError(
                        "`x`, `y` and `sample_weight` must be arrays, or `x` a dataset "
                        f"that yields all of them; received {type(each).__name__}"
                    )
            rows = {len(each) for each in keras.tree.flatten([x, y])}
            if sample_weight is not None:
                rows.add(len(sample_weight))
            if len(rows) != 1:
                raise ValueError(
                    "`x`, `y` and `sample_weight` must have as many rows; received "
                    f"{sorted(rows)}"
                )
            (self._rows,) = rows
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
            for i in range(0, self._rows, self._size):
                yield tuple(
                    _rows(part, slice(i, i + self._size)) for part in self._data
                )
            return
        data = self._data
        if isinstance(data, keras.utils.PyDataset):
            data = (self._data[i] for i in range(len(self._data)))
        for batch in data:
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise ValueError(
                    "`x` must yield (x, y) or (x, y, sample_weight); received "
                    f"{type(batch).__name__}"
                )
            yield (*batch, None)[:3]


def _rows(part, rows):
    if part is None:
        return None
    return keras.tree.map_structure(lambda each: np.asarray(each)[rows], part)
