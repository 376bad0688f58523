"""Lists of sequences, ragged tensors and tables, as one padded array."""

import numpy as np
import tensorflow as tf


def padded(sequences) -> tuple[np.ndarray, np.ndarray]:
    """Pads sequences of several lengths to one array; returns it with their lengths.

    `fit` and `predict` need arrays of one shape. Pass both results to a model that
    calls its recurrent layers with `lengths`, or pass the sequences as a
    `tf.RaggedTensor`.

    Args:
        sequences: list of arrays `(steps, ...)`, of lists or of tables, or a
            `tf.RaggedTensor`.

    Returns:
        `(array, lengths)`: `(rows, steps, ...)`, zeros after the end of a sequence, and
        int32 `(rows,)`.

    Raises:
        ValueError: no sequence, or sequences whose shapes differ beyond the steps.
    """
    arrays = list(as_arrays("sequences", sequences))
    if not arrays or not all(np.ndim(each) for each in arrays):
        raise ValueError(
            "`sequences` must be a list of arrays (steps, ...); received "
            f"{'none' if not arrays else 'numbers'}"
        )
    for number, each in enumerate(arrays):
        if each.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"`sequences[{number}]` must have shape "
                f"{_shape_of('steps', *arrays[0].shape[1:])}, as `sequences[0]`; "
                f"received shape {tuple(each.shape)}"
            )
    return pad_rows(arrays), np.array([len(each) for each in arrays], "int32")


def pad_rows(arrays, steps=None) -> np.ndarray:
    """Stacks arrays `(steps, ...)` to `(rows, steps, ...)`, padded with zeros."""
    arrays = [np.asarray(each) for each in arrays]
    steps = max(map(len, arrays)) if steps is None else steps
    shape = len(arrays), steps, *arrays[0].shape[1:]
    rows = np.zeros(shape, np.result_type(*{each.dtype for each in arrays}))
    for row, each in zip(rows, arrays, strict=True):
        row[: len(each)] = each
    return rows


def as_arrays(name: str, value):
    """Converts whatever holds numbers to an array or tensor, or to a list of arrays if
    their shapes differ.

    Args:
        name: name of the value, for error messages.
        value: array, tensor, `tf.RaggedTensor`, a table or series that has `to_numpy`
            as those of pandas do, or a list of these or of lists.

    Raises:
        ValueError: the value holds no numbers, or lists of different shapes.
    """
    if isinstance(value, tf.RaggedTensor):
        value = _rows_of(name, value)
    elif hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim:
        value = list(value)
    if isinstance(value, (list, tuple)):
        try:
            array = np.array(value)
        except ValueError:  # of different shapes
            array = None
        if array is None or array.dtype == object:
            parts = [as_arrays(f"{name}[{i}]", each) for i, each in enumerate(value)]
            if len({np.shape(each) for each in parts}) > 1:
                return [_array(f"{name}[{i}]", each) for i, each in enumerate(parts)]
            array = np.array(parts)
        value = array
    return value if tf.is_tensor(value) else _array(name, value)


def _array(name, value):
    if isinstance(value, list):
        raise ValueError(
            f"`{name}` must be an array; received a list of {len(value)} arrays of "
            "different shapes"
        )
    array = np.asarray(value)
    if array.dtype.kind in "OSUmM":
        kind = type(value).__name__ if array.dtype == object else array.dtype
        raise ValueError(f"`{name}` must hold numbers; received {kind}")
    return array


def _rows_of(name, ragged):
    """Returns the rows of a tensor that is ragged only in its steps."""
    splits, values = ragged.row_splits.numpy(), ragged.values
    if isinstance(values, tf.RaggedTensor):
        sizes = np.unique(values.row_lengths())
        if values.ragged_rank > 1 or len(sizes) > 1:
            raise ValueError(
                f"`{name}` must be ragged in its steps alone; received features of "
                f"{', '.join(map(str, sizes))} values"
            )
        values = values.to_tensor()
    return np.split(values.numpy(), splits[1:-1])


def _shape_of(*sizes):
    return f"({', '.join(map(str, sizes))}{',' * (len(sizes) == 1)})"
