"""The formats of sequences: a batch, a list, one sequence, or a series."""

from typing import NamedTuple

import numpy as np

from keras_rnnkit.recurrence import as_arrays


class ArrayData(NamedTuple):
    """Data as arrays whose first axis is rows.

    Attributes:
        structure: the nested structure in which the model's inputs were given.
        xs: list with one entry for each input: an array `(rows, ...)`, or a list of
            arrays `(steps, ...)` of different lengths.
        ys, weights: the same for the outputs and for the weights, which may be None.
        row_count: int.
        lengths: list of tuples, the steps of each row in each list of `xs`; or None if
            `xs` holds no list.
    """

    structure: object
    xs: list
    ys: list
    weights: object
    row_count: int
    lengths: list | None


class DataReader:
    """Reads data for a model; the ranks of the model's inputs decide the format.

    Args:
        extractor: `FeatureExtractor` of the model.
    """

    def __init__(self, extractor):
        self._inputs = extractor.model.inputs
        self._input_structure = extractor.model.input
        self._has_tokens = extractor.has_tokens
        self._names = extractor.names
        self._outputs = [
            (dense.units, len(dense.output.shape)) for dense in extractor.readouts
        ]

    def read(self, x, y, weights=None) -> ArrayData:
        """Returns `ArrayData`.

        Raises:
            ValueError: shapes that do not fit the model or each other.
        """
        values, inputs, structure = self._split_inputs(x)
        names = ["x" if len(inputs) == 1 else f"x of {each.name}" for each in inputs]
        xs, are_single = [], []
        for name, value, spec in zip(names, values, inputs, strict=True):
            if self._is_sequence(spec):
                value, is_single = read_sequences(name, value, spec.shape)
                are_single.append(is_single)
            else:
                value = as_arrays(name, value)
            xs.append(value)
        is_single = bool(are_single) and all(are_single)
        if is_single:
            xs = [
                each if len(each.shape) == len(spec.shape) else each[None]
                for each, spec in zip(xs, inputs, strict=True)
            ]
        sequences = max(xs, key=lambda each: np.ndim(each[0]) if len(each) else 0)
        ys = [
            read_targets(
                "y" if len(self._names) == 1 else f"y of {name}",
                *each,
                sequences,
                is_single,
            )
            for name, *each in zip(
                self._names, self._split_targets(y), self._outputs, strict=True
            )
        ]
        weights = self._read_weights(weights, xs, is_single)
        counts = {len(each) for each in [*xs, *ys]}
        if weights is not None:
            counts.add(len(weights))
        if len(counts) != 1:
            raise ValueError(
                "`x`, `y` and `sample_weight` must have the same number of rows; "
                f"received {sorted(counts)}"
            )
        (row_count,) = counts
        lists = [each for each in xs if isinstance(each, list)]
        lengths = None
        if lists:
            lengths = [tuple(map(len, row)) for row in zip(*lists, strict=True)]
        return ArrayData(structure, xs, ys, weights, row_count, lengths)

    def _is_sequence(self, spec):
        return len(spec.shape) > 2 or (len(spec.shape) == 2 and self._has_tokens)

    def _split_inputs(self, x):
        """Returns the data of each input, the inputs, and the structure of `x`."""
        inputs = self._inputs
        if isinstance(x, dict):
            by_name = {each.name: each for each in inputs}
            if isinstance(self._input_structure, dict):
                by_name |= self._input_structure
            names = sorted(x)
            if len(names) != len(inputs) or not {*names} <= {*by_name}:
                raise ValueError(
                    f"`x` must have the keys {[each.name for each in inputs]}; "
                    f"received {names}"
                )
            inputs = [by_name[name] for name in names]
            return [x[name] for name in names], inputs, dict.fromkeys(names, 0)
        is_list = isinstance(x, (list, tuple))
        holds_batch = is_list and len(x) == 1 and _rank(x[0]) == len(inputs[0].shape)
        if len(inputs) == 1 and not holds_batch:
            return [x], inputs, 0
        if not is_list or len(x) != len(inputs):
            raise ValueError(
                f"`x` must be a list or dict of {len(inputs)}, one for each input; "
                f"received {len(x) if is_list else type(x).__name__}"
            )
        return list(x), inputs, type(x)([0] * len(x))

    def _split_targets(self, y):
        """Returns the data of each output, in the order of the readouts."""
        names = self._names
        if isinstance(y, dict):
            if set(y) != set(names):
                raise ValueError(f"`y` must have the keys {names}; received {[*y]}")
            y = [y[name] for name in names]
        elif len(names) == 1 or not isinstance(y, (list, tuple)):
            y = [y]
        if len(y) != len(names):
            raise ValueError(
                f"`y` must be a list or dict of {len(names)}, one for each of {names}; "
                f"received {len(y)}"
            )
        return list(y)

    def _read_weights(self, weights, xs, is_single):
        if weights is None:
            return None
        weights = as_arrays("sample_weight", weights)
        if isinstance(weights, list) or any(isinstance(x, list) for x in xs):
            return self._read_list_weights(weights, xs)
        if is_single and len(weights.shape) == 1 and len(weights) != 1:
            weights = weights[None]
        return weights

    def _read_list_weights(self, weights, xs):
        x = next((x for x in xs if isinstance(x, list)), xs[0])
        if not isinstance(weights, list) and len(weights.shape) == 1:
            return weights
        if len(x) != len(weights):
            return list(weights)
        weights = [
            steps_array(f"sample_weight[{i}]", each, len(row), None, f"x[{i}]")
            for i, (each, row) in enumerate(zip(weights, x, strict=True))
        ]
        return weights if isinstance(x, list) else np.stack(weights)


def read_sequences(name, value, shape, rule=""):
    """Reads sequences in any format.

    Args:
        name: str, the name of the argument, for errors.
        value: `(rows, steps, features)`, a list of `(steps, features)`, or one
            sequence without the axis of rows. A single feature needs no axis.
        shape: the shape of the model's input.
        rule: str, a further condition that errors state after the shape.

    Returns:
        `(sequences, is_single)`: an array `(rows, steps, features)`, or a list of
        arrays of different lengths; and whether `value` is one sequence without rows.

    Raises:
        ValueError: another shape.
    """
    value, rank = as_arrays(name, value), len(shape)
    width = shape[-1] if rank > 2 else None
    if isinstance(value, list):
        return [
            _read_sequence(f"{name}[{i}]", each, shape, width)
            for i, each in enumerate(value)
        ], False
    given = tuple(value.shape)
    last = given[-1] if given else None
    if len(given) == rank and width in (None, last):
        return value, False
    if len(given) == rank - 1 and width in (None, last):
        return value[None], True
    if width == 1 and rank == 3 and len(given) == 2:
        return value[..., None], False
    if width == 1 and rank == 3 and len(given) == 1:
        return value[None, :, None], True
    sizes = _format_sizes(shape[2:])
    series = ", or (steps,) for a series" if width == 1 else ""
    raise ValueError(
        f"`{name}` must have shape (batch, steps{sizes}){rule}, or "
        f"(steps{sizes or ','}) for one sequence{series}; received shape {given}"
    )


def read_targets(name, y, output, x, is_single):
    """Reads the targets of an output in any format.

    Args:
        name: str, the name of the argument, for errors.
        y: the targets.
        output: `(units, rank)` of the output.
        x, is_single: as returned by `read_sequences`.

    Returns:
        An array whose first axis is rows; or a list of arrays, for an output at every
        step and a list `x`.

    Raises:
        ValueError: another shape.
    """
    y, (units, rank) = as_arrays(name, y), output
    is_list = isinstance(y, list)
    if rank == 2:
        if is_list:
            raise ValueError(
                f"`{name}` must have shape ({len(x)}, {units}), one output per "
                "sequence; received arrays of different shapes"
            )
        if is_single and np.size(y) == units and len(y.shape) < 3:
            return np.reshape(y, (1, units))
        # ReservoirPy takes a list of `(1, units)`.
        return y[:, 0] if len(y.shape) == 3 and y.shape[1] == 1 else y
    if is_single:
        has_rows = not is_list and len(y.shape) == 3 and len(y) == 1
        has_rows = has_rows or (
            not is_list and units == 1 and y.shape == (1, x.shape[1])
        )
        y = steps_array(name, y[0] if has_rows else y, x.shape[1], units, "x")
        return np.reshape(y, (*x.shape[:2], units))
    if not isinstance(x, list) and not is_list:
        return y
    if len(x) != len(y):
        return list(y)
    ys = [
        np.reshape(
            steps_array(f"{name}[{i}]", each, len(row), units, f"x[{i}]"),
            (len(row), units),
        )
        for i, (each, row) in enumerate(zip(y, x, strict=True))
    ]
    return ys if isinstance(x, list) else np.stack(ys)


def _read_sequence(name, value, shape, width):
    """Reads one sequence of a list."""
    given = tuple(value.shape)
    if width == 1 and len(shape) == 3 and len(given) == 1:
        return value[:, None]
    if len(given) != len(shape) - 1 or width not in (None, given[-1]):
        raise ValueError(
            f"`{name}` must have shape (steps{_format_sizes(shape[2:]) or ','}); "
            f"received shape {given}"
        )
    return value


def steps_array(name, value, steps, units, peer):
    """An array `(steps, units)`, which may be `(steps,)` for a single unit.

    Args:
        name: str, the name of the argument, for errors.
        value: what to read.
        steps: int, how many steps it must have.
        units: int, or None for `(steps,)` only.
        peer: str, the name of the argument with as many steps, for errors.

    Raises:
        ValueError: another shape.
    """
    if isinstance(value, list):
        raise ValueError(
            f"`{name}` must be one array; received a list of {len(value)} of different "
            "shapes"
        )
    given = tuple(value.shape)
    if given[:1] != (steps,):
        received = given[0] if given else "a number"
        raise ValueError(
            f"`{name}` must have {steps} steps, as `{peer}`; received {received}"
        )
    allowed = [(steps,)] if units in (None, 1) else []
    allowed += [] if units is None else [(steps, units)]
    if given not in allowed:
        raise ValueError(
            f"`{name}` must have shape {allowed[-1]}; received shape {given}"
        )
    return np.asarray(value)


def _format_sizes(sizes):
    """The axes after `(rows, steps` in the text of a shape."""
    return "".join(f", {'...' if size is None else size}" for size in sizes)


def _rank(value):
    return len(value.shape) if hasattr(value, "shape") else None
