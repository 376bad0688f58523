"""Tasks for reservoirs, and the models that solve them."""

from dataclasses import dataclass, field

import keras
import numpy as np

import keras_rnnkit as rk

AHEAD = 84  # steps
TRIALS = 100
WARM_UP = 2000


@dataclass(frozen=True)
class Task:
    """A task with settings that a search found on separate validation data.

    Attributes:
        run: callable `(units, seed, split, settings) -> score`; `split` is "test" or
            "validation".
        units: int, size of the reservoir.
        settings: dict, arguments of the reservoir, and `ridge`.
        score: str, name of the score.
        wanted: float, the target, an upper bound or with `larger` a lower bound; `None`
            for no target.
        larger: bool, whether larger scores are better.
        published: str, the published score.
    """

    run: callable
    units: int
    settings: dict = field(default_factory=dict)
    score: str = "NRMSE"
    wanted: float | None = None
    larger: bool = False
    published: str = "–"


def model_of(features, outputs, units, seed, *, wide=False, **settings):
    """Returns a reservoir with a linear readout, in float64.

    The input of a `wide` readout is the states, their squares and the input.
    """
    x = keras.Input((None, features), dtype="float64")
    h = rk.ESN(units, seed=seed, dtype="float64", **settings)(x)
    if wide:
        parts = [h, keras.layers.Multiply(dtype="float64")([h, h]), x]
        h = keras.layers.Concatenate(dtype="float64")(parts)
    return keras.Model(x, keras.layers.Dense(outputs, dtype="float64")(h))


def mackey_glass(steps):
    """Error of a closed-loop forecast 84 steps ahead, over 100 series."""

    def run(units, seed, split, settings):
        settings = dict(settings)
        ridge = settings.pop("ridge")
        offset = 0 if split == "test" else 5000
        series = rk.datasets.mackey_glass(steps + 1, seed=1000 + seed + offset)
        trials = rk.datasets.mackey_glass(
            WARM_UP + AHEAD, rows=TRIALS, seed=2000 + seed + offset
        )
        model = model_of(1, 1, units, seed, wide=True, **settings)
        rk.fit_readout(
            model, series[:, :-1], series[:, 1:], ridge=ridge, washout=steps // 10
        )
        predicted = rk.forecast(model, trials[:, :WARM_UP], AHEAD)[:, -1]
        error = np.mean((predicted - trials[:, -1]) ** 2)
        return float(np.sqrt(error / series.var()))

    return run


def narma(units, seed, split, settings):
    """Error of the tenth-order moving average (NARMA10), predicted from its input."""
    settings = dict(settings)
    ridge = settings.pop("ridge")
    offset = 0 if split == "test" else 5000
    u, y = rk.datasets.narma(2200, seed=1000 + seed + offset)
    u_test, y_test = rk.datasets.narma(2200, seed=2000 + seed + offset)
    model = model_of(1, 1, units, seed, wide=True, **settings)
    rk.fit_readout(model, u, y, ridge=ridge, washout=200)
    predicted = model.predict_on_batch(u_test)[:, 200:]
    error = np.mean((predicted - y_test[:, 200:]) ** 2)
    return float(np.sqrt(error / y_test[:, 200:].var()))


def santa_fe(units, seed, split, settings):
    """Error of the laser's next value.

    Trains on steps 200 to 2,000, validates on the next 5,000, tests on the next 3,000.
    """
    settings = dict(settings)
    ridge = settings.pop("ridge")
    series = rk.datasets.santa_fe() / 255
    steps = slice(2000, 7000) if split == "validation" else slice(7000, 10_000)
    model = model_of(1, 1, units, seed, wide=True, **settings)
    x, y = series[:, :10_000], series[:, 1:10_001]
    rk.fit_readout(model, x[:, :2000], y[:, :2000], ridge=ridge, washout=200)
    predicted = model.predict_on_batch(x)[:, steps]
    return float(np.mean((predicted - y[:, steps]) ** 2) / y[:, steps].var())


def japanese_vowels(units, seed, split, settings):
    """Accuracy of naming the speaker from each unit's mean, maximum and minimum."""
    settings = dict(settings)
    ridge = settings.pop("ridge")
    train, test = (rk.datasets.japanese_vowels(s) for s in ("train", "test"))
    x, y, lengths = train.x, train.y, train.lengths
    x_test, y_test, test_lengths = test.x, test.y, test.lengths
    if split == "validation":  # every fifth utterance of the training data
        held_out = np.arange(len(x)) % 5 == seed % 5
        x_test, y_test, test_lengths = x[held_out], y[held_out], lengths[held_out]
        x, y, lengths = x[~held_out], y[~held_out], lengths[~held_out]
    frames = x[np.arange(x.shape[1]) < lengths[:, None]]
    scale = frames.mean(axis=0), frames.std(axis=0)
    model = speaker_model(units, seed, **settings)
    rk.fit_readout(model, padded(x, lengths, *scale), np.eye(9)[y], ridge=ridge)
    predicted = model.predict_on_batch(padded(x_test, test_lengths, *scale))
    return float(np.mean(np.argmax(predicted, axis=1) == y_test))


def padded(x, lengths, mean, deviation):
    """Scales the sequences and fills their padding with a value that no frame has."""
    inside = np.arange(x.shape[1]) < lengths[:, None]
    return np.where(inside[..., None], (x - mean) / deviation, -9).astype("float32")


def speaker_model(units, seed, **settings):
    """Returns a reservoir with a readout of its states, pooled over steps."""
    x = keras.Input((None, 12))
    inside = keras.layers.Masking(-9.0)(x)
    # The layer repeats its last output at masked steps, so pools ignore the padding.
    h = rk.ESN(units, seed=seed, **settings)(inside)
    mean = keras.layers.GlobalAveragePooling1D()(h)
    pools = [mean, keras.ops.max(h, axis=1), keras.ops.min(h, axis=1)]
    return keras.Model(x, keras.layers.Dense(9)(keras.layers.Concatenate()(pools)))


def memory_capacity(units, seed, split, settings):
    """Memory capacity of a linear reservoir, divided by its units."""
    layer = rk.ESN(units, seed=seed, activation="linear", dtype="float64", **settings)
    return rk.reservoir.measures.memory_capacity(layer, seed=seed).total / units
