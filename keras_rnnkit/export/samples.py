"""Inputs to compare and to calibrate on."""

import numpy as np

SIZES = (1, 16), (3, 24), (2, 33)  # rows and steps of random data, if not known


def samples(name, given, specs) -> dict[str, np.ndarray]:
    """The rows of all inputs by name.

    Args:
        name: of the argument.
        given: an array, a list of one for each input, or a dict of them by name.
        specs: list of `tf.TensorSpec`.
    """
    if isinstance(given, dict):
        given = [given[spec.name] for spec in specs if spec.name in given]
    given = given if isinstance(given, (list, tuple)) else [given]
    arrays = [np.asarray(x) for x in given]
    shapes = [x.shape for x in arrays]
    fits = len(arrays) == len(specs) and all(
        x.ndim == len(spec.shape) and spec.shape[1:].is_compatible_with(x.shape[1:])
        for x, spec in zip(arrays, specs, strict=True)
    )
    rows = min((spec.shape[0] or 1 for spec in specs), default=1)
    if not fits or min(map(len, arrays)) < rows:
        wanted = {spec.name: ("rows", *spec.shape[1:]) for spec in specs}
        raise ValueError(
            f"`{name}` must hold {len(specs)} arrays of at least `batch_size` = {rows} "
            f"rows, {wanted}; received {len(arrays)} of shapes {shapes}"
        )
    return {
        spec.name: x.astype(spec.dtype.as_numpy_dtype)
        for spec, x in zip(specs, arrays, strict=True)
    }


def calls_of(rows: dict, specs) -> list[dict]:
    """The rows as they go into the file, call by call; three calls or more."""
    count = min(map(len, rows.values()))
    step = specs[0].shape[0] or count
    calls = [
        {name: x[i : i + step] for name, x in rows.items()}
        for i in range(0, count - step + 1, step)
    ]
    return calls * (3 if len(calls) < 3 else 1)


def random_calls(specs, unit=1) -> list[dict]:
    """Random inputs, of several sizes where the file takes any multiple of `unit`."""
    rng = np.random.default_rng(0)
    return [
        {spec.name: _random(rng, spec, rows, unit * size) for spec in specs}
        for rows, size in SIZES
    ]


def _random(rng, spec, rows, size):
    """Draws an input; `rows` and `size` stand for a batch and an axis of any size."""
    shape = [n or (size if axis else rows) for axis, n in enumerate(spec.shape)]
    if spec.dtype.is_floating:
        return rng.normal(size=shape).astype(spec.dtype.as_numpy_dtype)
    return rng.integers(0, 2, shape).astype(spec.dtype.as_numpy_dtype)
