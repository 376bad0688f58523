"""Which ridge the readout takes, on how many replicas, and what it refuses."""

import gc
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.layers.test_bad_input import assert_raises
from tests.reservoirs import (
    ROWS,
    STEPS,
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
RIDGES = [10.0, 0.3, 0.0, 1e-3]


# A list of ridges


def left_out(phi, y, w, alpha, bias):
    """The mean squared error of rows that a regression of all the others predicts."""
    squares = []
    for i in range(len(phi)):
        rest = np.delete(np.arange(len(phi)), i)
        solved = ridge(phi[rest], y[rest], w[rest], alpha, bias)
        squares.append(w[i] * np.square(y[i] - solved.predict(phi[i : i + 1])).mean())
    return sum(squares) / w.sum()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_ridge_of_the_least_error_left_out_is_taken(weighted, bias, rng):
    model = model_of(esn(), bias=bias)
    x, y = data(rng, steps=8)
    y += 5 if bias else 0
    weights = rng.integers(0, 3, (ROWS, 8)) if weighted else None
    found = rk.fit_readout(
        model, x, y, ridge=RIDGES, sample_weight=weights, batch_size=2
    )
    dense = model.layers[-1]
    rows = counted(features_of(model, dense, x), y, weights)
    errors = {alpha: left_out(*rows, alpha, bias) for alpha in RIDGES}
    assert list(found.errors) == RIDGES
    assert found.errors == pytest.approx(errors, rel=1e-8)
    assert found.ridge == min(errors, key=errors.get)
    assert_solved(dense, ridge(*rows, found.ridge, bias))


@pytest.mark.parametrize("form", ["arrays", "weights", "dataset", "iterator"])
def test_the_ridge_of_the_least_error_of_validation_is_taken(form, rng):
    model, dense = (model := model_of(esn())), model.layers[-1]
    x, y = data(rng)
    other, weights = data(rng, 3), rng.random((3, STEPS)) if form == "weights" else None
    given = (*other, weights) if form == "weights" else other
    if form == "dataset":
        given = tf.data.Dataset.from_tensor_slices(other).batch(2)
    fitted = (iter([(x, y)]),) if form == "iterator" else (x, y)
    found = rk.fit_readout(
        model, *fitted, ridge=RIDGES, validation_data=given, washout=2
    )
    rows = counted(features_of(model, dense, x), y, None, 2)
    phi, y, w = counted(features_of(model, dense, other[0]), other[1], weights, 2)
    for alpha in RIDGES:
        squares = np.square(y - ridge(*rows, alpha).predict(phi)).mean(axis=1)
        expected = np.average(squares, weights=w)
        assert found.errors[alpha] == pytest.approx(expected, rel=1e-8)
    assert found.ridge == min(RIDGES, key=found.errors.get)
    assert_solved(dense, ridge(*rows, found.ridge))


def test_a_step_that_alone_tells_of_itself_cannot_be_left_out(rng):
    model = model_of(L.Identity(), units=1)
    x = np.array([[1.0, 0], [2, 0], [4, 0], [0, 1]])[None]
    found = rk.fit_readout(model, x, rng.normal(size=(1, 4, 1)), ridge=[0.0, 1.0])
    assert found.errors[0.0] == np.inf
    assert found.ridge == 1


# Replicas

REPLICAS = """
import keras, numpy as np, tensorflow as tf, keras_rnnkit as rk
from keras_rnnkit.reservoir import feature_extractor
from tests.reservoirs import L, assert_same, data, esn

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices()[0], two)
rng = np.random.default_rng(0)
(x, y), weights = data(rng), rng.random((5, 12))
x[:3] = x[3, 4:] = 0  # a first batch of masked steps alone
chosen = {"ridge": [0.1, 10.0], "washout": 2, "batch_size": 3}


def solved():
    inputs = keras.Input((None, 2))
    states = esn()(L.Masking()(inputs))
    lasts = esn(2, return_sequences=False)(states)
    model = keras.Model(inputs, [L.Dense(2)(states), L.Dense(2)(states)])
    rk.fit_readout(model, x, [y, y], sample_weight=weights, verbose=1, **chosen)
    single = keras.Model(inputs, L.Dense(2)(lasts))
    rk.fit_readout(single, x, y[:, -1], ridge=0.1, batch_size=3)
    listed = keras.Model(inputs, L.Dense(2)(esn(3)(inputs)))
    parts = [x[0, :5], *x[3:], x[3, :9]], [y[0, :5], *y[3:], y[3, :9]]
    rk.fit_readout(listed, *parts, ridge=0.1)
    last = keras.Model(inputs, L.Dense(2)(esn(3, return_sequences=False)(inputs)))
    rk.fit_readout(last, parts[0], y[:4, 0], ridge=0.1)
    models = model, single, listed, last
    return keras.Model(inputs, [each for m in models for each in m.outputs])


expected = solved()
for feature_extractor.MAX_CHUNK_STEPS in 5, 100:
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        assert_same(solved(), expected)
"""


@pytest.mark.slow
def test_replicas_find_what_one_device_finds(pytestconfig):
    run, folder = [sys.executable, "-c", REPLICAS], pytestconfig.rootpath
    out = subprocess.run(run, capture_output=True, text=True, cwd=folder)
    assert out.returncode == 0, out.stderr
    assert "Unknown" in out.stdout  # the progress


# What is refused. Each case: what is wrong, and what is said.


def changed(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


def trained():
    return model_of(rk.LSTM(3, return_sequences=True, name="mine"))


def feeding():
    first = L.Dense(2, name="first")
    inputs = keras.Input((None, 2))
    lower = first(esn()(inputs))
    return keras.Model(inputs, [lower, L.Dense(2)(esn()(lower))])


def of_two():
    states = esn()(inputs := keras.Input((None, 2)))
    return keras.Model(
        inputs, [L.Dense(2, name="a")(states), L.Dense(2, name="b")(states)]
    )


def softmax():
    layers = esn(), L.Dense(2, "softmax", name="mine")
    return keras.Sequential([keras.Input((None, 2)), *layers])


RNG = np.random.default_rng(0)
X, Y = data(RNG)
W = RNG.random((ROWS, STEPS))
NAN, INF = float("nan"), float("inf")
DATASET = tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)
LAST = {"model": lambda: model_of(esn(return_sequences=False)), "y": Y[:, 0]}
TWICE = {"model": lambda: keras.Sequential([keras.Input((None, 2)), L.Dense(2)])}
LINEAR = {
    "model": lambda: model_of(esn(activation="linear", spectral_radius=3.0)),
    "x": np.ones((2, 1200, 2)),
    "y": np.ones((2, 1200, 2)),
}
BAD = {
    "washout of all": ({"washout": STEPS}, "`washout` .* data, 12; received 12"),
    "washout of last states": (
        LAST | {"washout": 1},
        "`washout` .* one output per seq",
    ),
    "washout of half": ({"washout": 0.5}, "`washout` .* received 0.5"),
    **{
        f"ridge {bad}": ({"ridge": bad}, f"`ridge` must be .* received .*{bad}")
        for bad in (-1, NAN, INF, "x")
    },
    "a ridge of several": ({"ridge": [1, -2]}, "`ridge` must be >= 0; received -2"),
    "no ridge": ({"ridge": []}, r"`ridge` .* received \[\]"),
    "verbose": ({"verbose": 2}, "`verbose` .* received 2"),
    "batch_size": ({"batch_size": 0}, "`batch_size` .* received 0"),
    "x": ({"x": changed(X, (3, 5, 1), NAN)}, "`x` .* received nan in row 3, step 5"),
    "y": ({"y": changed(Y, (4, 2), -INF)}, "`y` .* received -inf in row 4, step 2"),
    "y of last states": (
        LAST | {"y": changed(Y[:, 0], (2, 1), NAN)},
        "`y` .* received nan in row 2$",
    ),
    "weights": (
        {"sample_weight": changed(W, (1, 7), NAN)},
        "`sample_weight` .* received nan in row 1, step 7",
    ),
    "weights of rows": (
        {"sample_weight": changed(W[:, 0], 4, INF)},
        "`sample_weight` .* received inf in row 4$",
    ),
    "negative weights": (
        {"sample_weight": changed(W, 2, -3)},
        "`sample_weight` must be >= 0; received -3",
    ),
    "weights of steps too few": (
        {"sample_weight": W[:, 1:]},
        r"`sample_weight` .* received shape \(2, 11\)",
    ),
    "a weight for all": ({"sample_weight": 2.0}, "must be arrays.* received float"),
    "softmax": (
        {"model": softmax},
        "linear activation; received `mine`, activation 'softmax'",
    ),
    "no readout": (
        {"model": lambda: keras.Sequential([keras.Input((None, 2)), esn()])},
        "`Dense` .* received `esn.*`, ESN",
    ),
    "an operation": (
        {"model": lambda: keras.Model(i := keras.Input((None, 2)), 2 * L.Dense(2)(i))},
        "must come from a `Dense` layer of its own; received an operation",
    ),
    "training below": ({"model": trained}, "must be frozen; received `mine`"),
    "a readout below another": (
        {"model": feeding, "y": [Y, Y]},
        "must not feed another; received `first`",
    ),
    "a model not built": (
        {"model": lambda: keras.Sequential([L.Dense(2)])},
        "the model must be built",
    ),
    "units of y": ({"y": Y[..., :1]}, r"`y` of .* received shape \(2, 12, 1\)"),
    "steps of y": ({"y": Y[:, 1:]}, r"`y` of .* received shape \(2, 11, 2\)"),
    "rows of y": ({"y": Y[1:]}, r"same number of rows; received \[4, 5\]"),
    "outputs of y": ({"model": of_two, "y": [Y]}, r"`y` .* \['a', 'b'\]; received 1"),
    "names of y": (
        {"model": of_two, "y": {"a": Y, "c": Y}},
        r"`y` must have the keys \['a', 'b'\]; received \['a', 'c'\]",
    ),
    "fewer steps than there were": (
        {"model": lambda: model_of(frozen(L.Conv1D(3, 4)))},
        "must keep the number of steps; received 9 for 12",
    ),
    "nothing": ({"x": X[:0], "y": Y[:0]}, "must hold a step that counts"),
    "no steps": ({"x": X[:, :0], "y": Y[:, :0]}, "must hold a step that counts"),
    "weights of zero": ({"sample_weight": 0 * W}, "must hold a step that counts"),
    "masked steps": (
        {"model": lambda: model_of(L.Masking(), esn()), "x": 0 * X},
        "must hold a step that counts",
    ),
    "no ridge where features depend on each other": (
        TWICE | {"x": X[..., [0, 0]], "ridge": 0},
        "`ridge` must be > 0 where features depend",
    ),
    "no ridge for few steps": (
        {"x": X[:1, :4], "y": Y[:1, :4], "ridge": 0},
        "`ridge` must be > 0 where features depend",
    ),
    "overflow": (LINEAR, "the features must be finite.* overflow"),
    "squares that overflow": (
        LINEAR | {"x": LINEAR["x"][:, :500], "y": LINEAR["y"][:, :500]},
        "the features must be finite.* overflow",
    ),
    "overflow in the validation": (
        LINEAR
        | {"x": X, "y": Y, "ridge": [1, 2]}
        | {"validation_data": (LINEAR["x"], LINEAR["y"])},
        "`ridge` must include a value with a finite error",
    ),
    "no validation": (
        {"ridge": [1, 2], "validation_data": (X[:0], Y[:0])},
        "`validation_data` must hold a step that counts",
    ),
    "x alone": ({"y": None}, "`x` without `y` must be .* received ndarray"),
    "a dataset and y": ({"x": DATASET}, "must be arrays, or `x` a dataset"),
    "a dataset and weights": (
        {"x": DATASET, "y": None, "sample_weight": W},
        "`sample_weight` goes with arrays",
    ),
    "a dataset of x": (
        {"x": DATASET.map(lambda x, y: x), "y": None},
        r"`x` must yield \(x, y\) or",
    ),
    "a dataset without end": ({"x": DATASET.repeat(), "y": None}, "`x` must end"),
    "an iterator and ridges": (
        {"x": iter([(X, Y)]), "y": None, "ridge": [1, 2]},
        "`validation_data` or the data can be read twice",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_and_changes_nothing(name):
    given, pattern = BAD[name]
    given = {"x": X, "y": Y, "batch_size": 2} | given
    model = given.pop("model", lambda: model_of(esn()))()
    before = model.get_weights()
    assert_raises(pattern, rk.fit_readout, model, **given)
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


# Around


def test_progress_is_shown_if_asked_for(capsys):
    model = model_of(esn())
    for verbose in (0, "auto", 1):
        rk.fit_readout(model, X, Y, batch_size=2, verbose=verbose)
        rk.fit_readout(model, X, Y, batch_size=2, verbose=verbose)
        shown = capsys.readouterr().out
        assert ("3/Unknown" in shown) == (verbose == 1)
        assert bool(shown) == (verbose == 1)


def test_a_model_that_was_fitted_is_let_go():
    model = model_of(esn())
    rk.fit_readout(model, X, Y)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
