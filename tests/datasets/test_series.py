"""The series are those that their equations say, and the same for the same seed."""

import sys

import numpy as np
import pytest

import keras_rnnkit as rk

DRAWN = {
    "mackey_glass": lambda **k: rk.datasets.mackey_glass(50, **k)[0],
    "narma": lambda **k: rk.datasets.narma(50, **k)[1][0],
}
# The first derivative from four neighbours on each side, exact to the order of eight.
SLOPE = np.array([-1 / 280, 4 / 105, -1 / 5, 4 / 5])


@pytest.mark.parametrize("kind", DRAWN)
def test_a_series_is_that_of_its_seed(kind):
    first = DRAWN[kind](seed=3)
    assert first.shape == (50, 1)
    assert first.dtype == "float64"
    np.testing.assert_array_equal(DRAWN[kind](seed=3), first)
    assert abs(DRAWN[kind](seed=4) - first).max() > 0.01


@pytest.mark.parametrize("tau", [17, 30])
def test_mackey_glass_satisfies_its_delay_equation(tau):
    x = np.arctanh(rk.datasets.mackey_glass(600, rows=2, tau=tau, seed=1)[..., 0]) + 1
    at, n = slice(tau + 4, -4), x.shape[1]
    before, after = (
        np.stack([x[:, tau + 4 + i : n - 4 + i] for i in s])
        for s in ((-4, -3, -2, -1), (4, 3, 2, 1))
    )
    slope = np.tensordot(SLOPE, after - before, 1)
    past = x[:, 4 : n - 4 - tau]
    expected = 0.2 * past / (1 + past**10) - 0.1 * x[:, at]
    assert abs(slope - expected).max() < 1e-3 * abs(expected).max()


def test_rows_of_mackey_glass_begin_apart_and_are_as_wide_as_known():
    series = rk.datasets.mackey_glass(3000, rows=3)
    assert series.shape == (3, 3000, 1)
    for one, other in (0, 1), (0, 2), (1, 2):
        assert abs(np.corrcoef(series[one, :, 0], series[other, :, 0])[0, 1]) < 0.9
    assert 0.21 < series.std() < 0.25
    assert series.min() > np.tanh(0.2 - 1)
    assert series.max() < np.tanh(1.4 - 1)


@pytest.mark.parametrize("order", [1, 3, 10])
def test_narma_satisfies_its_recursion(order):
    u, y = (v[0, :, 0] for v in rk.datasets.narma(200, order=order, seed=5))
    assert 0 <= u.min() < 0.05 < 0.45 < u.max() <= 0.5
    for t in range(order, 200):
        expected = 0.3 * y[t - 1] + 0.05 * y[t - 1] * sum(y[t - order : t])
        expected += 1.5 * u[t - order + 1] * u[t] + 0.1
        assert y[t] == pytest.approx(expected, rel=1e-12)


def test_an_order_at_which_narma_diverges_is_refused():
    with pytest.raises(ValueError, match="`order` .*diverge.* received 30"):
        rk.datasets.narma(100, order=30)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # by reservoirpy
def test_santa_fe_is_the_laser_of_the_competition():
    datasets = pytest.importorskip("reservoirpy.datasets")
    series = rk.datasets.santa_fe()
    assert series.shape == (1, 10093, 1)
    assert series.dtype == "float64"
    np.testing.assert_array_equal(series[0], datasets.santafe_laser())
    assert series[0, :5, 0].tolist() == [86, 141, 95, 41, 22]
    assert (series.min(), series.max()) == (0, 255)


def test_santa_fe_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "reservoirpy", None)
    monkeypatch.setattr("keras_rnnkit.datasets.shipped.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs the package `reservoirpy`"):
        rk.datasets.santa_fe()


@pytest.mark.parametrize(
    ("draw", "name"),
    [
        *((rk.datasets.mackey_glass, name) for name in ("steps", "rows", "tau")),
        *((rk.datasets.narma, name) for name in ("steps", "order")),
    ],
)
@pytest.mark.parametrize("bad", [0, 1.5, True])
def test_a_bad_argument_is_named_with_its_value(draw, name, bad):
    message = f"`{name}` must be a positive integer; received {bad}"
    with pytest.raises(ValueError, match=message):
        draw(**({"steps": 5} | {name: bad}))
