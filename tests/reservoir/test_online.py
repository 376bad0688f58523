"""The readout learned step by step finds what ridge regression finds at once."""

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from tests.layers.test_bad_input import assert_raises
from tests.reservoirs import L, data, esn, features_of, frozen, model_of

pytestmark = pytest.mark.usefixtures("float64")


def zeroed(model):
    """The model, with a readout of zeros."""
    readout = model.layers[-1]
    readout.set_weights([0 * w for w in readout.get_weights()])
    return model


def reservoir(*below, bias=True, **options):
    return zeroed(model_of(*below, esn(**options), bias=bias))


def with_one(phi):
    return np.concatenate([phi, np.ones((*phi.shape[:-1], 1))], axis=-1)


def in_order(values):
    """`(batch, steps, ...)` to the order in which the steps are learned."""
    return np.swapaxes(values, 0, 1).reshape(-1, values.shape[-1])


def ridge(phi, y, penalty, forgetting):
    """Weights of the regression in which a step counts less with every step after."""
    weights = forgetting ** np.arange(len(phi))[::-1]
    left = phi.T @ (weights[:, None] * phi)
    left += penalty * forgetting ** len(phi) * np.eye(len(left))
    return np.linalg.solve(left, phi.T @ (weights[:, None] * y))


def assert_near(got, expected, tolerance=1e-8):
    atol = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


def weights_of(model):
    return np.vstack(model.layers[-1].get_weights())


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("forgetting", [1.0, 0.95])
@pytest.mark.parametrize("bias", [True, False])
def test_the_weights_are_those_of_ridge_regression(bias, forgetting, rows, rng):
    model, (x, y) = reservoir(bias=bias), data(rng, rows, 30)
    phi = features_of(model, model.layers[-1], x)
    phi = with_one(phi) if bias else phi
    rls = rk.RLS(model, ridge=0.3, forgetting=forgetting)
    said = [
        rls.partial_fit(x[:, part], y[:, part])
        for part in (slice(0, 1), slice(1, 12), slice(12, 12), slice(12, 30))
    ]
    expected = ridge(in_order(phi), in_order(y), 0.3, forgetting)
    assert_near(weights_of(model), expected)
    for t, output in enumerate(np.swapaxes(np.concatenate(said, axis=1), 0, 1)):
        before = in_order(phi[:, :t]), in_order(y[:, :t])
        assert_near(output, phi[:, t] @ ridge(*before, 0.3, forgetting), 1e-7)


def test_learning_goes_on_from_the_weights_there_are(rng):
    model, (x, y) = reservoir(), data(rng)
    rk.fit_readout(model, x, y, ridge=0.1)
    first = weights_of(model)
    phi = with_one(features_of(model, model.layers[-1], x))
    rk.RLS(model, ridge=2.0).partial_fit(x, y)
    rest = in_order(y) - in_order(phi) @ first
    assert_near(weights_of(model), first + ridge(in_order(phi), rest, 2.0, 1.0))


def test_masked_steps_are_not_learned(rng):
    model, (x, y) = reservoir(L.Masking()), data(rng)
    mask = rng.random(x.shape[:2]) < 0.6
    x[~mask] = 0
    phi = with_one(features_of(model, model.layers[-1], x))
    rls = rk.RLS(model)
    for part in (slice(0, 7), slice(7, 9), slice(9, 12)):
        rls.partial_fit(x[:, part], y[:, part])
    kept = mask.T.ravel()
    expected = ridge(in_order(phi)[kept], in_order(y)[kept], 1.0, 1.0)
    assert_near(weights_of(model), expected)


def test_reset_begins_new_sequences_and_keeps_what_was_learned(rng):
    model, other = reservoir(), reservoir()
    (x, y), (more_x, more_y) = data(rng), data(rng, rows=2)
    rls = rk.RLS(model)
    rls.partial_fit(x, y)
    assert rls.states
    rls.reset()
    assert not rls.states
    rls.partial_fit(more_x, more_y)
    phi = [features_of(other, other.layers[-1], each) for each in (x, more_x)]
    phi = with_one(np.concatenate([in_order(each) for each in phi]))
    y = np.concatenate([in_order(y), in_order(more_y)])
    assert_near(weights_of(model), ridge(phi, y, 1.0, 1.0))


# Fed its own output


@pytest.mark.parametrize("outside", [0, 2])
def test_feedback_is_the_output_of_the_step_before(outside, rng):
    model = zeroed(model_of(esn(feedback=1), shape=(None, outside + 1), units=1))
    kernel, recurrent, bias = model.layers[0].get_weights()
    x = rng.integers(0, 3, (2, 10, outside))  # not of the model's type
    y = rng.normal(size=(2, 10, 1))
    rls, h, last = rk.RLS(model, ridge=0.5), np.zeros((2, 6)), np.zeros((2, 1))
    said = [
        rls.partial_fit(x[:, part] if outside else None, y[:, part], feedback=True)
        for part in (slice(0, 4), slice(4, 10))
    ]
    seen, known = np.zeros((0, 7)), np.zeros((0, 1))
    for t, output in enumerate(np.swapaxes(np.concatenate(said, axis=1), 0, 1)):
        h = np.tanh(np.hstack([x[:, t], last]) @ kernel + h @ recurrent + bias)
        phi = with_one(h)
        last = phi @ ridge(seen, known, 0.5, 1.0)
        np.testing.assert_allclose(output, last, rtol=0, atol=1e-8)
        seen, known = np.vstack([seen, phi]), np.vstack([known, y[:, t]])
    assert_near(weights_of(model), ridge(seen, known, 0.5, 1.0))


def test_force_learns_a_sine_that_a_forecast_goes_on_with():
    layer = esn(2, 100, spectral_radius=1.2, leak_rate=0.3, feedback=1)
    model = zeroed(model_of(layer, shape=(None, 1), units=1))
    y = np.sin(2 * np.pi * np.arange(1800) / 40)[None, :, None]
    rls = rk.RLS(model, ridge=0.01, forgetting=0.99)
    said = rls.partial_fit(None, y[:, :1500], feedback=True)
    assert np.abs(said - y[:, :1500])[:, -200:].max() < 1e-2
    ahead = rk.forecast(model, y[:, :1500], 300)
    assert np.abs(ahead - y[:, 1500:]).max() < 1e-2


# What is refused

NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        *(({"ridge": bad}, "`ridge` must be > 0") for bad in (0, -1, NAN)),
        *(({"forgetting": bad}, "`forgetting` must lie") for bad in (0, 1.1, NAN)),
    ],
)
def test_bad_argument_is_told(arguments, pattern):
    assert_raises(pattern, rk.RLS, reservoir(), **arguments)


def of_two():
    states = esn()(inputs := keras.Input((None, 2)))
    return keras.Model(inputs, [L.Dense(1)(states), L.Dense(1)(states)])


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda: model_of(esn(return_sequences=False)), "an output at every step"),
        (lambda: model_of(frozen(rk.Bidirectional(rk.LSTM(3)))), "from those before"),
        (lambda: model_of(rk.LSTM(3, return_sequences=True)), "must be frozen"),
        (of_two, "must have one output .* or 2 outputs"),
    ],
)
def test_a_model_that_cannot_learn_step_by_step_is_told(make, pattern):
    assert_raises(pattern, rk.RLS, make())


X, Y = np.ones((2, 4, 2)), np.ones((2, 4, 2))
WRONG = {
    "x": ({"x": np.where(np.arange(4)[:, None] == 2, NAN, X)}, "nan in row 0, step 2"),
    "y": ({"y": np.where(np.arange(4)[:, None] == 3, -np.inf, Y)}, "-inf in row 0, st"),
    "features": ({"x": X[..., :1]}, r"received \(2, 4, 1\) and \(2, 4, 2\)"),
    "outputs": ({"y": Y[..., :1]}, r"received \(2, 4, 2\) and \(2, 4, 1\)"),
    "steps": ({"y": Y[:, :3]}, r"received \(2, 4, 2\) and \(2, 3, 2\)"),
    "rank": ({"y": Y[0, 0]}, r"received \(2, 4, 2\) and \(2,\)"),
    "no x": ({"x": None}, r"received \(\) and \(2, 4, 2\)"),
    "rows": ({"x": X[:1], "y": Y[:1]}, "continue 2 sequences; received 1: call"),
    "feedback": ({"feedback": True}, r"\(batch, steps, 0\)"),
    "forgets too fast": (
        {"x": np.zeros((2, 200, 2)), "y": np.zeros((2, 200, 2))},
        "must stay finite; .* `forgetting` nearer to 1",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_and_changes_nothing(name):
    given, pattern = WRONG[name]
    model, other = reservoir(), reservoir()
    rls, again = (rk.RLS(each, forgetting=0.05) for each in (model, other))
    for each in (rls, again):
        each.partial_fit(X, Y)
    before = model.get_weights()
    assert_raises(pattern, rls.partial_fit, **({"x": X, "y": Y} | given))
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)
    np.testing.assert_array_equal(rls.partial_fit(X, Y), again.partial_fit(X, Y))
