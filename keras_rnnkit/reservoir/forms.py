"""The forms that sequences are given in: a batch, a list, one sequence, a series."""

from typing import NamedTuple

import numpy as np

from keras_rnnkit.recurrence import as_arrays


class Data(NamedTuple):
    """What was given, with an axis of rows.

    Attributes:
        nest: the structure of the model's inputs, as they were given.
        x: list of one for each input: an array `(rows, ...)`, or a list of arrays
            `(steps, ...)` of several lengths.
        ys, weights: the same of the outputs and of the weights, which may be None.
        rows: int.
        lengths: list of the steps of each row, a tuple of one for each list in `x`; or
            None if there is none.
    """

    nest: object
    x: list
    ys: list
    weights: object
    rows: int
    lengths: list | None


class Forms:
    """Reads data for a model in any form; the ranks of its inputs tell them apart.

    Args:
        body: `Body` of the model.
    """

    def __init__(self, body):
        self._inputs = body.model.inputs
        self._given = body.model.input
        self._tokens = body.has_tokens
        self._names = body.names
        self._outputs = [
            (dense.units, len(dense.output.shape)) for dense in body.readouts
        ]

    def read(self, x, y, weights=None) -> Data:
        """Returns `Data`.

        Raises:
            ValueError: shapes that do not fit the model or each other.
        """
        values, inputs, nest = self._split(x)
        names = ["x" if len(inputs) == 1 else f"x of {each.name}" for each in inputs]
        xs, alone = [], []
        for name, value, given in zip(names, values, inputs, strict=True):
            if self._is_sequence(given):
                value, one = sequences(name, value, given.shape)
                alone.append(one)
            else:
                value = as_arrays(name, value)
            xs.append(value)
        one = bool(alone) and all(alone)
        if one:
            xs = [
                each if len(each.shape) == len(given.shape) else each[None]
                for each, given in zip(xs, inputs, strict=True)
            ]
        first = max(xs, key=lambda each: np.ndim(each[0]) if len(each) else 0)
        ys = [
            targets("y" if len(self._names) == 1 else f"y of {name}", *each, first, one)
            for name, *each in zip(
                self._names, self._split_targets(y), self._outputs, strict=True
            )
        ]
        weights = self._weights(weights, xs, one)
        counts = {len(each) for each in [*xs, *ys]}
        if weights is not None:
            counts.add(len(weights))
        if len(counts) != 1:
            raise ValueError(
                "`x`, `y` and `sample_weight` must have as many rows; received "
                f"{sorted(counts)}"
            )
        (rows,) = counts
        lists = [each for each in xs if isinstance(each, list)]
        lengths = None
        if lists:
            lengths = [tuple(map(len, row)) for row in zip(*lists, strict=True)]
        return Data(nest, xs, ys, weights, rows, lengths)

    def _is_sequence(self, given):
        return len(given.shape) > 2 or (len(given.shape) == 2 and self._tokens)

    def _split(self, x):
        """The data of each input, the inputs, and the structure they are given in."""
        inputs = self._inputs
        if isinstance(x, dict):
            by_name = {each.name: each for each in inputs}
            if isinstance(self._given, dict):
                by_name |= self._given
            names = sorted(x)
            if len(names) != len(inputs) or not {*names} <= {*by_name}:
                raise ValueError(
                    f"`x` must have the keys {[each.name for each in inputs]}; "
                    f"received {names}"
                )
            inputs = [by_name[name] for name in names]
            return [x[name] for name in names], inputs, dict.fromkeys(names, 0)
        listed = isinstance(x, (list, tuple))
        full = listed and len(x) == 1 and _rank(x[0]) == len(inputs[0].shape)
        if len(inputs) == 1 and not full:
            return [x], inputs, 0
        if not listed or len(x) != len(inputs):
            raise ValueError(
                f"`x` must be a list or dict of {len(inputs)}, one for each input; "
                f"received {len(x) if listed else type(x).__name__}"
            )
        return list(x), inputs, type(x)([0] * len(x))

    def _split_targets(self, y):
        """The data of each output, in the order of the readouts."""
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

    def _weights(self, weights, xs, one):
        if weights is None:
            return None
        weights = as_arrays("sample_weight", weights)
        if isinstance(weights, list) or any(isinstance(x, list) for x in xs):
            return self._weights_of_list(weights, xs)
        if one and len(weights.shape) == 1 and len(weights) != 1:
            weights = weights[None]
        return weights

    def _weights_of_list(self, weights, xs):
        x = next((x for x in xs if isinstance(x, list)), xs[0])
        if not isinstance(weights, list) and len(weights.shape) == 1:
            return weights
        if len(x) != len(weights):
            return list(weights)
        weights = [
            checked(f"sample_weight[{i}]", each, len(of_x), None, f"x[{i}]")
            for i, (each, of_x) in enumerate(zip(weights, x, strict=True))
        ]
        return weights if isinstance(x, list) else np.stack(weights)


def sequences(name, value, shape, rule=""):
    """Reads sequences in any form.

    Args:
        name: str, of the value, for errors.
        rule: str, what else an error tells of the shape.
        value: `(rows, steps, features)`, a list of `(steps, features)`, or one
            sequence without an axis of rows. Of one feature, its axis may be missing.
        shape: of the model's input.

    Returns:
        `(sequences, one)`: an array `(rows, steps, features)`, or a list of arrays of
        several lengths; and whether it is one sequence that was given without rows.

    Raises:
        ValueError: another shape.
    """
    value, rank = as_arrays(name, value), len(shape)
    width = shape[-1] if rank > 2 else None
    if isinstance(value, list):
        return [
            _sequence(f"{name}[{i}]", each, shape, width)
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
    own = _told(shape[2:])
    series = ", or (steps,) for a series" if width == 1 else ""
    raise ValueError(
        f"`{name}` must have shape (batch, steps{own}){rule}, or (steps{own or ','}) "
        f"for one sequence{series}; received shape {given}"
    )


def targets(name, y, output, x, one):
    """Reads the targets of an output in any form.

    Args:
        name: str, for errors.
        output: `(units, rank)` of the output.
        x, one: as `sequences` returns them.

    Returns:
        An array with an axis of rows, or where `x` is a list, a list for each step.
    """
    y, (units, rank) = as_arrays(name, y), output
    listed = isinstance(y, list)
    if rank == 2:
        if listed:
            raise ValueError(
                f"`{name}` must have shape ({len(x)}, {units}), one output a sequence; "
                "received arrays of different shapes"
            )
        if one and np.size(y) == units and len(y.shape) < 3:
            return np.reshape(y, (1, units))
        # ReservoirPy has a list of `(1, units)`.
        return y[:, 0] if len(y.shape) == 3 and y.shape[1] == 1 else y
    if one:
        alone = not listed and len(y.shape) == 3 and len(y) == 1
        alone = alone or (not listed and units == 1 and y.shape == (1, x.shape[1]))
        y = checked(name, y[0] if alone else y, x.shape[1], units, "x")
        return np.reshape(y, (*x.shape[:2], units))
    if not isinstance(x, list) and not listed:
        return y
    if len(x) != len(y):
        return list(y)
    ys = [
        np.reshape(
            checked(f"{name}[{i}]", each, len(of_x), units, f"x[{i}]"),
            (len(of_x), units),
        )
        for i, (each, of_x) in enumerate(zip(y, x, strict=True))
    ]
    return ys if isinstance(x, list) else np.stack(ys)


def _sequence(name, value, shape, width):
    """One of a list."""
    given = tuple(value.shape)
    if width == 1 and len(shape) == 3 and len(given) == 1:
        return value[:, None]
    if len(given) != len(shape) - 1 or width not in (None, given[-1]):
        raise ValueError(
            f"`{name}` must have shape (steps{_told(shape[2:]) or ','}); received "
            f"shape {given}"
        )
    return value


def checked(name, value, steps, units, like):
    """An array of so many steps, `(steps, units)`, or of one unit `(steps,)` too.

    Args:
        units: int, or None for `(steps,)` alone.
        like: str, the name of what has as many steps.
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
            f"`{name}` must have {steps} steps, as `{like}`; received {received}"
        )
    allowed = [(steps,)] if units in (None, 1) else []
    allowed += [] if units is None else [(steps, units)]
    if given not in allowed:
        raise ValueError(
            f"`{name}` must have shape {allowed[-1]}; received shape {given}"
        )
    return np.asarray(value)


def _told(sizes):
    """What follows `(rows, steps` in a shape."""
    return "".join(f", {'...' if size is None else size}" for size in sizes)


def _rank(value):
    return len(value.shape) if hasattr(value, "shape") else None
