"""What reservoirs are tried on, and the models that they are tried with."""

from dataclasses import dataclass, field

import keras
import numpy as np

import keras_rnnkit as rk

AHEAD = 84  # steps
TRIALS = 100
WARM_UP = 2000


@dataclass(frozen=True)
class Task:
    """A task, and the settings that a search found on validation data of its own.

    Attributes:
        run: callable `(units, seed, split, settings) -> score`; `split` is "test" or
            "validation".
        units: int.
        settings: dict, of the reservoir, `ridge` among them.
        score: what it is called.
        wanted: the largest score to reach, or with `larger` the least; None if open.
        published: str.
    """

    run: callable
    units: int
    settings: dict = field(default_factory=dict)
    score: str = "NRMSE"
    wanted: float | None = None
    larger: bool = False
    published: str = "–"


def model_of(features, outputs, units, seed, *, wide=False, **settings):
    """A reservoir and a linear readout, in float64; a `wide` readout sees the states,
    their squares and the input."""
    x = keras.Input((None, features), dtype="float64")
    h = rk.ESN(units, seed=seed, dtype="float64", **settings)(x)
    if wide:
        parts = [h, keras.layers.Multiply(dtype="float64")([h, h]), x]
        h = keras.layers.Concatenate(dtype="float64")(parts)
    return keras.Model(x, keras.layers.Dense(outputs, dtype="float64")(h))


def mackey_glass(steps):
    """Forecasts 84 steps ahead, fed its own output, from 100 series."""

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
        said = rk.forecast(model, trials[:, :WARM_UP], AHEAD)[:, -1]
        error = np.mean((said - trials[:, -1]) ** 2)
        return float(np.sqrt(error / series.var()))

    return run


def narma(units, seed, split, settings):
    """The next value of the tenth-order moving average, from its input."""
    settings = dict(settings)
    ridge = settings.pop("ridge")
    offset = 0 if split == "test" else 5000
    u, y = rk.datasets.narma(2200, seed=1000 + seed + offset)
    u_test, y_test = rk.datasets.narma(2200, seed=2000 + seed + offset)
    model = model_of(1, 1, units, seed, wide=True, **settings)
    rk.fit_readout(model, u, y, ridge=ridge, washout=200)
    said = model.predict_on_batch(u_test)[:, 200:]
    error = np.mean((said - y_test[:, 200:]) ** 2)
    return float(np.sqrt(error / y_test[:, 200:].var()))


def santa_fe(units, seed, split, settings):
    """The laser's next value: learned from steps 200 to 2,000, validated on 5,000 that
    follow, tested on the 3,000 after these."""
    settings = dict(settings)
    ridge = settings.pop("ridge")
    series = rk.datasets.santa_fe() / 255
    asked = slice(2000, 7000) if split == "validation" else slice(7000, 10_000)
    model = model_of(1, 1, units, seed, wide=True, **settings)
    x, y = series[:, :10_000], series[:, 1:10_001]
    rk.fit_readout(model, x[:, :2000], y[:, :2000], ridge=ridge, washout=200)
    said = model.predict_on_batch(x)[:, asked]
    return float(np.mean((said - y[:, asked]) ** 2) / y[:, asked].var())


def japanese_vowels(units, seed, split, settings):
    """Who speaks: from mean, largest and least value of each unit."""
    settings = dict(settings)
    ridge = settings.pop("ridge")
    train, test = (rk.datasets.japanese_vowels(s) for s in ("train", "test"))
    x, y, lengths = train.x, train.y, train.lengths
    x_test, y_test, test_lengths = test.x, test.y, test.lengths
    if split == "validation":  # every fifth utterance of the training data
        held = np.arange(len(x)) % 5 == seed % 5
        x_test, y_test, test_lengths = x[held], y[held], lengths[held]
        x, y, lengths = x[~held], y[~held], lengths[~held]
    frames = x[np.arange(x.shape[1]) < lengths[:, None]]
    scale = frames.mean(axis=0), frames.std(axis=0)
    model = speaker_model(units, seed, **settings)
    rk.fit_readout(model, padded(x, lengths, *scale), np.eye(9)[y], ridge=ridge)
    said = model.predict_on_batch(padded(x_test, test_lengths, *scale))
    return float(np.mean(np.argmax(said, axis=1) == y_test))


def padded(x, lengths, mean, deviation):
    """The sequences, scaled, with a value after their end that no frame has."""
    inside = np.arange(x.shape[1]) < lengths[:, None]
    return np.where(inside[..., None], (x - mean) / deviation, -9).astype("float32")


def speaker_model(units, seed, **settings):
    """A reservoir whose states are pooled over the steps of a sequence."""
    x = keras.Input((None, 12))
    inside = keras.layers.Masking(-9.0)(x)
    # After a sequence's end a layer holds its output: no pool sees the padding.
    h = rk.ESN(units, seed=seed, **settings)(inside)
    mean = keras.layers.GlobalAveragePooling1D()(h)
    pools = [mean, keras.ops.max(h, axis=1), keras.ops.min(h, axis=1)]
    return keras.Model(x, keras.layers.Dense(9)(keras.layers.Concatenate()(pools)))


def memory_capacity(units, seed, split, settings):
    """How much of its input a linear reservoir remembers, over its units."""
    layer = rk.ESN(units, seed=seed, activation="linear", dtype="float64", **settings)
    return rk.reservoir.measures.memory_capacity(layer, seed=seed).total / units
