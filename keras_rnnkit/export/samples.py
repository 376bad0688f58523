"""Input data for comparison and calibration."""

import keras
import numpy as np

from keras_rnnkit.export.names import signature_names

SIZES = (1, 16), (3, 24), (2, 33)  # rows and steps of random data, where unknown
MAGNITUDES = 1.0, 0.25, 4.0  # of random floats


def samples(name, given, specs) -> dict[str, np.ndarray]:
    """Checks input data and returns it as arrays by input name.

    Args:
        name: str, of the argument, for errors.
        given: an array, a list with one per input, or a dict of them by name.
        specs: list of `tf.TensorSpec`.
    """
    if isinstance(given, dict):
        names = [spec.name for spec in specs]
        if set(given) != set(names):
            raise ValueError(
                f"`{name}` must hold an array for each of {names}; received arrays for "
                f"{sorted(given)}"
            )
        given = [given[each] for each in names]
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


def split_into_calls(rows: dict, specs) -> list[dict]:
    """Splits rows into the inputs of calls; repeats them to at least three calls."""
    count = min(map(len, rows.values()))
    step = specs[0].shape[0] or count
    calls = [
        {name: x[i : i + step] for name, x in rows.items()}
        for i in range(0, count - step + 1, step)
    ]
    return calls * (3 if len(calls) < 3 else 1)


def random_calls(specs, unit=1, tokens=None, words=()) -> list[dict]:
    """Returns random inputs of several magnitudes, and of several sizes where an axis
    of `specs` is unknown.

    Args:
        specs: list of `tf.TensorSpec`.
        unit: int, the number of steps is a multiple of it.
        tokens: dict of vocabulary sizes by input name. Sequences of tokens are padded
            with 0. Other integers are 0 and 1.
        words: list of str, vocabulary for string inputs.
    """
    rng = np.random.default_rng(0)
    draw = _RandomInputs(rng, tokens or {}, words)
    return [
        {spec.name: draw(spec, rows, unit * size, scale) for spec in specs}
        for scale in MAGNITUDES
        for rows, size in SIZES
    ]


class _RandomInputs:
    """Draws inputs; `rows` and `size` replace an unknown batch or other axis."""

    def __init__(self, rng, tokens, words):
        self.rng = rng
        self.tokens = tokens
        self.words = [*words, "", "unknown"]

    def __call__(self, spec, rows, size, scale):
        shape = [n or (size if axis else rows) for axis, n in enumerate(spec.shape)]
        if spec.dtype == "string":
            return self._texts(shape)
        dtype = spec.dtype.as_numpy_dtype
        if spec.name in self.tokens:
            return self._sequences(shape, self.tokens[spec.name]).astype(dtype)
        if spec.dtype.is_floating:
            return self.rng.normal(0, scale, shape).astype(dtype)
        return self.rng.integers(0, 2, shape).astype(dtype)

    def _sequences(self, shape, tokens):
        drawn = self.rng.integers(min(1, tokens - 1), tokens, shape)
        if len(shape) < 2:
            return drawn
        ones = [1] * (drawn.ndim - 2)
        lengths = self.rng.integers(1, shape[1] + 1, (shape[0], 1, *ones))
        steps = np.arange(shape[1]).reshape(-1, *ones)
        return np.where(steps < lengths, drawn, 0)

    def _texts(self, shape):
        count = int(np.prod(shape))
        texts = [
            " ".join(self.rng.choice(self.words, self.rng.integers(1, 4)))
            for _ in range(count)
        ]
        return np.array(texts, object).reshape(shape)


def vocabulary_sizes(model) -> dict[str, int]:
    """Returns the vocabulary sizes of the inputs that an `Embedding` reads, by name."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Embedding):
            for tensor, name in zip(model.inputs, signature_names(model), strict=True):
                if _reads(layer, tensor):
                    known = found.get(name, layer.input_dim)
                    found[name] = min(known, layer.input_dim)
    return found


def known_words(layers) -> list[str]:
    """Returns the vocabulary of all lookup layers."""
    known = [x.get_vocabulary() for x in layers if hasattr(x, "get_vocabulary")]
    return sorted({str(word) for words in known for word in words})


def _reads(layer, tensor) -> bool:
    try:
        return any(x is tensor for x in keras.tree.flatten(layer.input))
    except (AttributeError, ValueError):  # not called, or more than once
        return False
