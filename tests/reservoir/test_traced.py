"""Models of one structure share what is traced; others, and their results, do not."""

import gc
import logging
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.reservoir import shared_graphs
from tests.helpers import assert_close
from tests.reservoir.test_forecast import by_hand
from tests.reservoirs import (
    L,
    assert_solved,
    counted,
    data,
    esn,
    features_of,
    frozen,
    model_of,
    ridge,
)

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def traces(monkeypatch):
    """Has nothing traced so far, and counts."""
    found, call = [], shared_graphs._Stateless.__call__
    monkeypatch.setattr(shared_graphs, "_shared", type(shared_graphs._shared)())
    monkeypatch.setattr(
        shared_graphs._Stateless,
        "__call__",
        lambda *given: found.append(given[0]) or call(*given),
    )
    return found


def fit(model, x, y):
    """Fits a readout, and compares it with scikit-learn's."""
    y = y if len(model.output_shape) == 3 else y[:, -1]
    rk.fit_readout(model, x, y, ridge=0.01, training=False)
    dense = model.layers[-1]
    phi = features_of(model, dense, x)
    assert_solved(dense, ridge(*counted(phi, y)))


def with_squares(seed):
    x = keras.Input((None, 2))
    h = esn(seed)(x)
    return keras.Model(x, L.Dense(2)(L.Concatenate()([h, keras.ops.square(h), x])))


SAME = {
    "ESN": lambda seed: model_of(esn(seed, loop="auto")),
    "noise": lambda seed: model_of(esn(seed, noise=0.1)),
    "sparse": lambda seed: model_of(esn(seed, sparse=True)),
    "matrix": lambda seed: model_of(
        esn(seed, topology=np.random.default_rng(seed).normal(size=(6, 6)))
    ),
    "deep": lambda seed: model_of(
        rk.StackedRNN([esn(seed), esn(9)], outputs="all", return_sequences=True)
    ),
    "squares": with_squares,
    "LSTM": lambda seed: model_of(frozen(rk.LSTM(4, return_sequences=True))),
    "dropout": lambda seed: model_of(L.Dropout(0.5, seed=seed), esn(seed)),
    "within a model": lambda seed: model_of(
        keras.Sequential([L.Identity(), esn(seed)]), esn(seed + 1)
    ),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", SAME)
def test_a_model_of_the_same_structure_traces_nothing(name, rng, traces):
    (x, y), first = data(rng), SAME[name](1)
    fit(first, x, y)
    rk.forecast(first, x, 4)
    seen = len(traces)
    assert seen == 2
    alive = weakref.ref(first)
    del first
    gc.collect()
    assert alive() is None
    for seed in 2, 3:
        keras.backend.clear_session()
        model = SAME[name](seed)
        fit(model, x, y)
        assert_close(rk.forecast(model, x, 4), by_hand(model, x, 4), "float64")
    assert len(traces) == seen


class Doubled(L.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x


def changed(**settings):
    layer = esn()
    for name, value in settings.items():
        setattr(layer.cell, name, value)
    return layer


def normalized(rng):
    layer = L.Normalization()
    layer.adapt(rng.normal(2, 3, size=(9, 2)))
    return layer


def of_inputs(order):
    first, second = keras.Input((None, 1)), keras.Input((None, 1))
    x = L.Concatenate()([first, second][::order])
    return keras.Model([first, second], L.Dense(2)(esn(1)(x)))


OTHER = {
    "a setting": lambda n: [esn(1, leak_rate=0.2 * n)],
    "a setting made later": lambda n: [changed(leak_rate=0.2 * n)],
    "a function": lambda n: [esn(1, activation=lambda x: tf.tanh(n * x))],
    "what was adapted": lambda n: [normalized(np.random.default_rng(n)), esn(1)],
    "a layer of a user's": lambda n: [Doubled(n), esn(1)],
    "a function of a user's": lambda n: [L.Lambda(lambda x: n * x), esn(1)],
    "direction": lambda n: [esn(1, go_backwards=n == 2)],
    "steps": lambda n: [esn(1, return_sequences=n == 2)],
}


@pytest.mark.parametrize("name", OTHER)
def test_a_model_that_differs_is_not_taken_for_another(name, rng):
    (x, y), models = data(rng), [model_of(*OTHER[name](n)) for n in (1, 2)]
    for model in models:
        fit(model, x, y)


def test_what_is_wired_in_another_way_is_not_taken_for_the_same(rng):
    x, y = data(rng)
    for order in 1, -1:
        model = of_inputs(order)
        rk.fit_readout(model, [x[..., :1], x[..., 1:]], y, ridge=0.01)
        phi = features_of(model, model.layers[-1], [x[..., :1], x[..., 1:]])
        assert_solved(model.layers[-1], ridge(*counted(phi, y)))


def test_another_type_is_not_taken_for_the_same(rng, traces):
    x, y = data(rng)
    for dtype in "float64", "float32":
        keras.config.set_floatx(dtype)
        keras.config.set_dtype_policy(dtype)
        model = model_of(esn())
        rk.fit_readout(model, x, y)
        assert rk.forecast(model, x, 2).dtype == dtype
    assert len(traces) == 4


def test_noise_is_that_of_the_models_seed(rng, traces):
    (x, y), found = data(rng), []
    for seed in 1, 1, 2:
        model = model_of(esn(seed, noise=0.1))
        for _ in range(2):
            rk.fit_readout(model, x, y)
            found.append(model.layers[-1].kernel.numpy())
    assert len(traces) == 1
    np.testing.assert_array_equal(found[:2], found[2:4])
    assert abs(found[0] - found[1]).max() > 1e-3  # it goes on from fit to fit
    assert abs(found[0] - found[4]).max() > 1e-3


def test_tensorflow_warns_of_nothing(rng):
    said = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger, level = tf.get_logger(), tf.get_logger().level
    logger.addHandler(handler)
    logger.setLevel("WARNING")
    try:
        for units in range(2, 10):
            model, (x, y) = model_of(esn(units=units)), data(rng, steps=units)
            rk.fit_readout(model, x, y)
            rk.forecast(model, x, 2)
        for steps in range(2, 10):
            rk.fit_readout(model, *data(rng, steps=steps))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert said == []


def test_so_many_graphs_are_kept(rng, traces, monkeypatch):
    monkeypatch.setattr(shared_graphs, "MAX_GRAPHS", 2)
    models = [model_of(esn(leak_rate=rate)) for rate in (0.1, 0.2, 0.3)]
    for model in models:
        fit(model, *data(rng))
    assert len(shared_graphs._shared) == 2
    fit(models[2], *data(rng))
    assert len(traces) == 3
    fit(models[0], *data(rng))
    assert len(traces) == 4
