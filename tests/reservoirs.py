"""Small reservoirs, and readouts of them by scikit-learn."""

import keras
import numpy as np
import pytest

import keras_rnnkit as rk

L = keras.layers
ROWS, STEPS, UNITS = 5, 12, 6


def esn(seed=1, units=UNITS, *, loop="portable", **options):
    own = {"connectivity": 0.5, "bias_scaling": 0.3, "seed": seed, "loop": loop}
    return rk.ESN(units, **own | options)


def model_of(*layers, shape=(None, 2), units=2, bias=True):
    dense = L.Dense(units, use_bias=bias)
    return keras.Sequential([keras.Input(shape), *layers, dense])


def frozen(layer):
    layer.trainable = False
    return layer


def data(rng, rows=ROWS, steps=STEPS, units=2):
    return rng.normal(size=(rows, steps, 2)), rng.normal(size=(rows, steps, units))


def features_of(model, dense, x):
    """What a model computes below a readout, all steps at once."""
    sequential = isinstance(model, keras.Sequential)
    inputs = model.inputs[0] if sequential else model.input
    return keras.Model(inputs, dense.input).predict_on_batch(x)


def counted(phi, y, sample_weight=None, washout=0, mask=None):
    """Rows of features and targets that count, and their weights."""
    w = np.ones(phi.shape[:-1])
    if sample_weight is not None:
        w *= sample_weight if sample_weight.ndim == w.ndim else sample_weight[:, None]
    if washout:
        w[:, :washout] = 0
    w *= 1 if mask is None else mask
    return phi[w > 0], y[w > 0], w[w > 0]


def ridge(phi, y, w=None, alpha=0.01, bias=True):
    """scikit-learn's solution, by the most exact of its ways."""
    sklearn = pytest.importorskip("sklearn.linear_model")
    return sklearn.Ridge(alpha, fit_intercept=bias, solver="svd").fit(phi, y, w)


def assert_solved(dense, solved):
    """The weights of a layer are those that scikit-learn found."""
    expected = [np.atleast_2d(solved.coef_).T, np.atleast_1d(solved.intercept_)]
    largest = np.abs(expected[0]).max()
    for got, weight in zip(dense.get_weights(), expected, strict=dense.use_bias):
        np.testing.assert_allclose(got, weight, rtol=0, atol=1e-8 * largest)


def assert_same(model, other):
    for got, weight in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(got, weight, rtol=0, atol=1e-9 * abs(weight).max())
