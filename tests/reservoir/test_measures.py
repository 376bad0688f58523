"""Measures of a reservoir against theory and against loops in NumPy."""

import io

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from keras_rnnkit.reservoir import measures

UNITS = 100


def esn(units=20, features=1, dtype="float64", **arguments):
    arguments = {"connectivity": 1.0, "seed": 1} | arguments
    layer = rk.ESN(units, dtype=dtype, **arguments)
    layer.build((None, None, features))
    return layer


def linear(units=20, **arguments):
    return esn(units, activation="linear", **arguments)


def weights(layer):
    """W and R in NumPy."""
    return np.asarray(layer.cell.kernel), layer.cell.matrix


def plain(layer):
    """A layer whose cell is none of this package."""
    layer.build((None, None, 1))
    return layer


# Memory


def test_a_ring_remembers_what_theory_says():
    units, radius, delays = 30, 0.98, np.arange(1, 121)
    layer = linear(units, topology="ring", spectral_radius=radius)
    found = measures.memory_capacity(layer, max_delay=120, steps=20_000)
    # An input fades by this much until it comes round: Rodan and Tiňo 2011.
    fades = radius ** (2 * units)
    expected = (1 - fades) * fades ** (delays // units)
    np.testing.assert_allclose(found.by_delay, expected, atol=0.02)
    assert found.total == pytest.approx(units - 1 + fades, rel=0.02)
    assert found.total == pytest.approx(found.by_delay.sum())
    assert found.bound == units


@pytest.mark.parametrize("topology", ["ring", "orthogonal"])
def test_a_linear_reservoir_comes_near_the_bound_and_not_above(topology):
    layer = linear(UNITS, topology=topology, spectral_radius=0.99)
    found = measures.memory_capacity(layer)
    assert 0.9 * UNITS <= found.total <= UNITS
    assert found.by_delay.shape == (2 * UNITS,)
    assert 0 <= found.by_delay.min() <= found.by_delay.max() <= 1


def test_a_delay_line_remembers_as_many_inputs_as_it_holds():
    # The first unit holds the input of the step itself, which is no delay.
    layer = linear(30, topology=np.eye(30, k=1), spectral_radius=None)
    layer.cell.kernel.assign(np.eye(1, 30))
    found = measures.memory_capacity(layer)
    assert found.by_delay[:29].min() > 0.99
    assert found.by_delay[29:].max() < 0.01
    assert found.total == pytest.approx(29, abs=0.1)
    assert found.total <= found.bound == 30


def test_the_capacity_of_each_delay_is_that_of_a_loop_in_numpy():
    layer = esn(12, leak_rate=0.8, spectral_radius=0.9)
    found = measures.memory_capacity(
        layer, max_delay=15, steps=500, washout=40, ridge=0.0, seed=3
    )
    (w, r), h, states = weights(layer), np.zeros(12), []
    u = np.random.default_rng(3).uniform(-1, 1, 1040)
    for each in u:
        h = 0.2 * h + 0.8 * np.tanh(each * w[0] + h @ r)
        states.append(np.append(h, 1))
    states = np.array(states)
    fitted, tested = np.arange(40, 540), np.arange(540, 1040)
    for k in range(1, 16):
        out = np.linalg.lstsq(states[fitted], u[fitted - k], rcond=None)[0]
        square = np.corrcoef(states[tested] @ out, u[tested - k])[0, 1] ** 2
        expected = max(square - 1 / 500, 0)
        assert found.by_delay[k - 1] == pytest.approx(expected, abs=1e-4)


# The spectrum and the Lyapunov exponent


@pytest.mark.parametrize(
    ("slope", "arguments"),
    [
        (1, {"leak_rate": 0.6}),
        (1, {"activation": "linear", "topology": "orthogonal"}),
        (1, {"leak_rate": 0.3, "connectivity": 0.2, "sparse": True}),
        (0.25, {"activation": "sigmoid", "leak_rate": 0.9}),
    ],
)
def test_the_spectrum_is_that_of_the_leaky_matrix(slope, arguments):
    layer = esn(spectral_radius=1.2, **arguments)
    found = measures.effective_spectral_radius(layer)
    leak, (_, r) = layer.leak_rate, weights(layer)
    expected = np.linalg.eigvals((1 - leak) * np.eye(20) + leak * slope * r)
    apart = abs(found.eigenvalues[:, None] - expected)
    assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-8
    assert found.radius == pytest.approx(abs(expected).max())


def test_the_spectrum_of_an_lstm_is_that_of_finite_differences():
    layer = rk.LSTM(3, return_state=True, bias_initializer="normal", dtype="float64")
    x, small = np.zeros((6, 1, 2)), 1e-6 * np.eye(6)
    after = [
        np.hstack(layer(x, initial_state=np.split(sign * small, 2, axis=1))[1:])
        for sign in (1, -1)
    ]
    expected = abs(np.linalg.eigvals((after[0] - after[1]) / 2e-6)).max()
    found = measures.effective_spectral_radius(layer)
    assert found.radius == pytest.approx(expected, rel=1e-6)
    assert found.eigenvalues.shape == (6,)


def test_a_linear_reservoir_parts_at_the_rate_of_its_radius():
    layer = linear(leak_rate=0.7, spectral_radius=0.95)
    radius = measures.effective_spectral_radius(layer).radius
    found = measures.lyapunov_exponent(layer, steps=3000)
    assert found.exponent == pytest.approx(np.log(radius), abs=1e-2)
    assert found.rates.shape == (2800,)


def test_no_step_counts_for_more_than_another():
    layer = linear(topology="orthogonal", spectral_radius=0.8)
    found = measures.lyapunov_exponent(layer, steps=50, washout=0)
    np.testing.assert_allclose(found.rates, np.log(0.8), atol=1e-5)


@pytest.mark.parametrize(
    ("radius", "leak", "driven", "dtype"),
    [
        (3.0, 1.0, False, "float64"),
        (3.0, 0.8, True, "float32"),
        (0.5, 1.0, False, "float64"),
        (0.5, 0.5, True, "float32"),
    ],
)
def test_the_lyapunov_exponent_is_that_of_the_jacobian(
    radius, leak, driven, dtype, rng
):
    layer = esn(60, spectral_radius=radius, leak_rate=leak, dtype=dtype)
    inputs = rng.normal(size=(3000, 1)) * driven
    inputs[:20] = 1  # without any, the state would stay at zero
    found = measures.lyapunov_exponent(layer, inputs, washout=500)
    w, r = (each.astype(float) for each in weights(layer))
    h, d, rates = np.zeros(60), rng.normal(size=60), []
    for u in inputs:
        f = np.tanh(u @ w + h @ r)
        h = (1 - leak) * h + leak * f
        new = (1 - leak) * d + leak * (1 - f**2) * (d @ r)
        rates.append(np.log(np.linalg.norm(new) / np.linalg.norm(d)))
        d = new / np.linalg.norm(new)
    expected = np.mean(rates[500:])
    assert found.exponent == pytest.approx(expected, abs=0.05 if radius > 1 else 0.01)
    assert (found.exponent > 0) == (radius > 1)


# What states tell apart, and whether they forget


def test_the_kernel_rank_is_full_where_states_differ():
    assert measures.kernel_rank(esn(features=2)).rank == 20
    found = measures.kernel_rank(esn(features=2), streams=7)
    assert (found.rank, found.singular_values.shape) == (7, (7,))
    values = found.singular_values
    assert values.tolist() == sorted(values, reverse=True)
    assert measures.kernel_rank(esn(), tolerance=values[2] / 2 + 1e6).rank == 0


ONE = {
    "one direction": {"topology": np.zeros((20, 20)), "spectral_radius": None},
    "one state": {"input_scaling": 0.0, "bias_scaling": 0.5, "spectral_radius": 0.5},
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("why", ONE)
def test_the_kernel_rank_is_one_where_states_are_one(why, dtype):
    layer = linear(dtype=dtype, **ONE[why])
    assert measures.kernel_rank(layer, steps=60).rank == 1


def test_two_states_of_a_contraction_come_near_at_its_rate():
    layer = linear(topology="orthogonal", spectral_radius=0.5, leak_rate=1.0)
    found = measures.echo_state(layer, steps=30)
    assert found.holds
    ratios = found.distances[1:] / found.distances[:-1]
    np.testing.assert_allclose(ratios, np.full(30, 0.5), rtol=1e-6)


def test_a_reservoir_without_echo_states_warns():
    assert measures.echo_state(esn(spectral_radius=0.5)).holds
    layer, silence = esn(60, spectral_radius=3.0, name="wild"), np.zeros((300, 1))
    message = r"`wild` lacks the echo state .* 300 steps: take a smaller `spectral"
    with pytest.warns(measures.EchoStateWarning, match=message):
        found = measures.echo_state(layer, silence)
    assert not found.holds
    assert found.distances.shape == (301,)


# Every measure


@pytest.mark.parametrize("make", [rk.LSTM, rk.GRU, rk.SimpleRNN, rk.ESN])
def test_any_layer_of_a_split_cell_is_measured(make):
    layer = make(4, seed=1)
    assert 0 < measures.effective_spectral_radius(layer).radius < 2
    assert measures.echo_state(layer, steps=200).holds
    assert measures.lyapunov_exponent(layer, steps=100, washout=10).exponent < 0
    assert 1 <= measures.kernel_rank(layer, steps=20).rank <= 4
    assert 0 < measures.memory_capacity(layer, steps=300).total <= 4


MEASURES = {
    "memory_capacity": lambda layer, **k: measures.memory_capacity(
        layer, **({"steps": 100} | k)
    ),
    "effective_spectral_radius": measures.effective_spectral_radius,
    "lyapunov_exponent": measures.lyapunov_exponent,
    "kernel_rank": measures.kernel_rank,
    "echo_state": measures.echo_state,
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_each_result_is_drawn(measure):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = measure(esn(spectral_radius=0.5)).plot()
    assert isinstance(drawn, figure.Figure)
    file = io.BytesIO()
    drawn.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    assert drawn.axes[0].get_title()


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("make", [keras.layers.LSTM, keras.layers.Dense])
def test_a_layer_without_a_split_cell_raises(make, measure):
    with pytest.raises(ValueError, match="must run a `SplitCell`.*received mine"):
        measure(plain(make(3, name="mine")))


WRONG = {
    "rank": ("echo_state", {"inputs": np.zeros((1, 5, 1))}, r"\(steps, 1\).*\(1, 5, 1"),
    "features": ("lyapunov_exponent", {"inputs": np.zeros((5, 2))}, r"shape \(5, 2\)"),
    "no inputs": ("echo_state", {"inputs": np.zeros((0, 1))}, r"shape \(0, 1\)"),
    "washout": ("lyapunov_exponent", {"steps": 50}, "less than the steps, 50.* 200"),
    "steps": ("echo_state", {"steps": 0}, "`steps` must be a positive .* 0"),
    "steps of streams": ("kernel_rank", {"steps": 0}, "`steps` must be a pos.* 0"),
    "streams": ("kernel_rank", {"streams": 0}, "`streams` must be a positive .* 0"),
    "delay": ("memory_capacity", {"max_delay": 0}, "`max_delay` must be a pos.* 0"),
    "steps of memory": ("memory_capacity", {"steps": -1}, "`steps` must be a pos.* -1"),
}


@pytest.mark.parametrize(("name", "given", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_raises(name, given, message):
    with pytest.raises(ValueError, match=message):
        MEASURES[name](esn(), **given)


def test_memory_is_that_of_one_input():
    with pytest.raises(ValueError, match="one input feature; received 2"):
        measures.memory_capacity(esn(features=2))
