"""The layers against plain NumPy loops that spell the equations out, gate by gate."""

from itertools import pairwise

import keras
import numpy as np
import pytest

from keras_rnnkit import ESN, GRU, LSTM, Bidirectional, SimpleRNN, StackedRNN
from tests.helpers import TOLERANCE, assert_close, randomize

BATCH, STEPS, FEATURES, UNITS = 5, 6, 3, 4


# The equations. `w` holds the weights by name, `p` the arguments; a step maps the input
# and the states of all rows to the new states, of which the first is the output.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softsign": lambda a: a / (1 + np.abs(a)),
    "hard_sigmoid": lambda a: np.clip(a / 6 + 0.5, 0, 1),
}


def norm(a, gain):
    """Ba et al. 2016, eq. 4."""
    mean, variance = a.mean(-1, keepdims=True), a.var(-1, keepdims=True)
    return gain * (a - mean) / np.sqrt(variance + 1e-3)


def zoned(rate, old, new):
    """Krueger et al. 2017: the expectation of a state."""
    return rate * old + (1 - rate) * new


def functions(p):
    return (
        FUNCTIONS[p.get("activation", "tanh")],
        FUNCTIONS[p.get("recurrent_activation", "sigmoid")],
    )


def simple_rnn(w, p, x, h):
    phi, _ = functions(p)
    a = x @ w["kernel"] + h @ w["recurrent_kernel"]
    if p.get("layer_norm"):
        a = norm(a, w["gain"])
    return [phi(a + w.get("bias", 0))]


def lstm(w, p, x, h, c):
    phi, sigma = functions(p)
    n = p["units"]
    from_x, from_h = x @ w["kernel"], h @ w["recurrent_kernel"]
    if p.get("layer_norm"):
        from_x = norm(from_x, w["kernel_gain"])
        from_h = norm(from_h, w["recurrent_gain"])
    a = from_x + from_h + w.get("bias", 0)
    a_i, a_f, a_g, a_o = a[:, :n], a[:, n : 2 * n], a[:, 2 * n : 3 * n], a[:, 3 * n :]
    p_i, p_f, p_o = w.get("peephole_kernel", np.zeros((3, n)))
    i = sigma(a_i + p_i * c)
    f = sigma(a_f + p_f * c)
    g = phi(a_g)
    c_new = f * c + i * g
    o = sigma(a_o + p_o * c_new)
    seen = c_new
    if p.get("layer_norm"):
        seen = norm(c_new, w["state_gain"]) + w["state_shift"]
    h_new = o * phi(seen)
    if p.get("projection_units"):
        h_new = h_new @ w["projection_kernel"]
    rates = p.get("zoneout", 0.0)
    rate_h, rate_c = rates if isinstance(rates, tuple) else (rates, rates)
    return [zoned(rate_h, h, h_new), zoned(rate_c, c, c_new)]


def gru(w, p, x, h):
    phi, sigma = functions(p)
    n = p["units"]
    gates, last = slice(0, 2 * n), slice(2 * n, 3 * n)
    reset_after = p.get("reset_after", True)
    bias = w.get("bias", np.zeros((2, 3 * n) if reset_after else 3 * n))
    b, d = bias if reset_after else (bias, np.zeros(3 * n))

    def product(of, kernel, gain, block):
        a = of @ w[kernel][:, block]
        return norm(a, w[gain][block]) if p.get("layer_norm") else a

    a = product(x, "kernel", "kernel_gain", gates) + b[gates]
    a += product(h, "recurrent_kernel", "recurrent_gain", gates) + d[gates]
    z, r = sigma(a[:, :n]), sigma(a[:, n:])
    from_x = product(x, "kernel", "kernel_gain", last) + b[last]
    if reset_after:
        from_h = r * (product(h, "recurrent_kernel", "recurrent_gain", last) + d[last])
    else:
        from_h = product(r * h, "recurrent_kernel", "recurrent_gain", last)
    h_new = z * h + (1 - z) * phi(from_x + from_h)
    return [zoned(p.get("zoneout", 0.0), h, h_new)]


def textbook_gru(w, p, x, h):
    n = p["units"]
    w_z, w_r, w_h = np.split(w["kernel"], 3, axis=1)
    r_z, r_r, r_h = np.split(w["recurrent_kernel"], 3, axis=1)
    b_z, b_r, b_h = w["bias"].reshape(3, n)
    z = sigmoid(x @ w_z + h @ r_z + b_z)
    r = sigmoid(x @ w_r + h @ r_r + b_r)
    candidate = np.tanh(x @ w_h + (r * h) @ r_h + b_h)
    return [(1 - z) * h + z * candidate]


def esn(w, p, x, h):
    phi, _ = functions(p)
    rate = p.get("leak_rate", 1)
    new = phi(x @ w["kernel"] + h @ w["recurrent_kernel"] + w.get("bias", 0))
    return [(1 - rate) * h + rate * new]


STEP = {SimpleRNN: simple_rnn, LSTM: lstm, GRU: gru, ESN: esn}


# The loop over one layer, and what is made of such loops


def loop(step, x, states, mask, *, backwards=False, zero_masked=False):
    """Returns the outputs of all steps, the last one, and the states."""
    last = np.zeros_like(states[0])
    outputs = []
    for t in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
        on = mask[:, t, None]
        new = step(x[:, t], *states)
        last = np.where(on, new[0], 0 * last if zero_masked else last)
        states = [np.where(on, n, old) for n, old in zip(new, states, strict=True)]
        outputs.append(last)
    return np.stack(outputs, axis=1), last, states


def step_of(layer, arguments):
    """The NumPy step with the arguments and the present weights of a layer."""
    weights = {v.name: np.asarray(v, "float64") for v in layer.weights}
    step = STEP[type(layer)]
    return lambda x, *states: step(weights, arguments, x, *states)


def draw(rng, dtype="float64", features=FEATURES):
    """A sequence, and a mask with a row of nothing and one with a gap."""
    mask = rng.random((BATCH, STEPS)) < 0.6
    mask[1] = [True, True, False, False, True, True]
    mask[2] = False
    return rng.normal(size=(BATCH, STEPS, features)).astype(dtype), mask


def draw_states(layer, rng, dtype="float64"):
    return [rng.normal(size=(BATCH, n)).astype(dtype) for n in layer.state_size]


def wide(arrays):
    return [np.asarray(a, "float64") for a in arrays]


ALL_LSTM = {
    "peephole": True,
    "projection_units": 2,
    "layer_norm": True,
    "zoneout": (0.1, 0.3),
}
CASES = {
    "ESN": (ESN, {"leak_rate": 0.3, "bias_scaling": 1.0}),
    "SimpleRNN": (SimpleRNN, {}),
    "SimpleRNN without bias": (SimpleRNN, {"use_bias": False}),
    "SimpleRNN softsign": (SimpleRNN, {"activation": "softsign"}),
    "SimpleRNN layer_norm": (SimpleRNN, {"layer_norm": True}),
    "SimpleRNN layer_norm without bias": (
        SimpleRNN,
        {"layer_norm": True, "use_bias": False},
    ),
    "LSTM": (LSTM, {}),
    "LSTM without bias": (LSTM, {"use_bias": False}),
    "LSTM activations": (
        LSTM,
        {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    ),
    "LSTM peephole": (LSTM, {"peephole": True}),
    "LSTM projection": (LSTM, {"projection_units": 2}),
    "LSTM wide projection": (LSTM, {"projection_units": 7}),
    "LSTM layer_norm": (LSTM, {"layer_norm": True}),
    "LSTM zoneout": (LSTM, {"zoneout": 0.2}),
    "LSTM zoneout pair": (LSTM, {"zoneout": (0.4, 0.1)}),
    "LSTM all options": (LSTM, ALL_LSTM),
    "LSTM all options without bias": (LSTM, ALL_LSTM | {"use_bias": False}),
}
for _name, _arguments in {
    "": {},
    " without bias": {"use_bias": False},
    " activations": {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    " layer_norm": {"layer_norm": True},
    " zoneout": {"zoneout": 0.2},
    " all options": {"layer_norm": True, "zoneout": 0.3},
    " all options without bias": {
        "layer_norm": True,
        "zoneout": 0.3,
        "use_bias": False,
    },
}.items():
    CASES[f"GRU{_name}"] = (GRU, _arguments)
    CASES[f"GRU reset before{_name}"] = (GRU, _arguments | {"reset_after": False})


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize(("cls", "arguments"), CASES.values(), ids=CASES)
def test_layer_is_its_equations(cls, arguments, backwards, dtype, rng):
    arguments = {"units": UNITS, **arguments}
    layer = cls(
        **arguments,
        dtype=dtype,
        go_backwards=backwards,
        return_sequences=True,
        return_state=True,
    )
    x, mask = draw(rng, dtype)
    layer.build(x.shape)
    randomize(layer, rng)
    states = draw_states(layer, rng, dtype)
    outputs, last, end = loop(
        step_of(layer, arguments), *wide([x]), wide(states), mask, backwards=backwards
    )
    assert_close(layer(x, initial_state=states, mask=mask), [outputs, *end], dtype)
    layer.return_sequences = False
    assert_close(layer(x, initial_state=states, mask=mask), [last, *end], dtype)


@pytest.mark.parametrize("cls", STEP)
def test_masked_steps_give_zeros_if_asked(cls, rng):
    arguments = {"units": UNITS}
    layer = cls(
        **arguments, dtype="float64", return_sequences=True, zero_output_for_mask=True
    )
    x, mask = draw(rng)
    layer.build(x.shape)
    randomize(layer, rng)
    states = draw_states(layer, rng)
    outputs, *_ = loop(step_of(layer, arguments), x, states, mask, zero_masked=True)
    assert_close(layer(x, initial_state=states, mask=mask), outputs, "float64")


def test_textbook_gru_is_ours_with_the_update_gate_turned(rng):
    layer = GRU(UNITS, reset_after=False, return_sequences=True, dtype="float64")
    x, mask = draw(rng)
    layer.build(x.shape)
    randomize(layer, rng)
    weights = {v.name: v.numpy() for v in layer.weights}
    states = draw_states(layer, rng)
    outputs, *_ = loop(
        lambda x, h: textbook_gru(weights, {"units": UNITS}, x, h), x, states, mask
    )
    turned = [w * np.repeat([-1, 1, 1], UNITS) for w in layer.get_weights()]
    layer.set_weights(turned)
    assert_close(layer(x, initial_state=states, mask=mask), outputs, "float64")


# Noise in training


def assert_rate(hits, rate):
    """The fraction of hits lies within five sigma of a binomial's."""
    assert abs(hits.mean() - rate) <= 5 * np.sqrt(rate * (1 - rate) / hits.size)


ZONEOUTS = {
    "LSTM": (LSTM, {}, 0.3),
    "LSTM pair": (LSTM, {}, (0.2, 0.6)),
    "LSTM one state": (LSTM, {}, (0.0, 0.5)),
    "LSTM projection": (LSTM, {"projection_units": 24}, (0.4, 0.2)),
    "GRU": (GRU, {}, 0.25),
    "GRU reset before": (GRU, {"reset_after": False}, 0.25),
}


def zoneout_layer(cls, arguments, rate, seed=7, **kwargs):
    """A layer of 32 units with the same initial weights each time."""
    return cls(
        32,
        **arguments,
        zoneout=rate,
        seed=seed,
        kernel_initializer=keras.initializers.GlorotUniform(1),
        recurrent_initializer=keras.initializers.GlorotUniform(2),
        **kwargs,
    )


@pytest.mark.parametrize(("cls", "arguments", "rate"), ZONEOUTS.values(), ids=ZONEOUTS)
def test_zoneout_keeps_states_to_the_bit_at_its_rate(cls, arguments, rate, rng):
    layer = zoneout_layer(cls, arguments, rate, return_state=True)
    plain = cls(32, **arguments, return_state=True)
    x = rng.normal(size=(256, 1, 8)).astype("float32")
    states = [rng.normal(size=(256, n)).astype("float32") for n in layer.state_size]
    layer.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    output, *after = layer(x, initial_state=states, training=True)
    _, *moved = plain(x, initial_state=states)
    np.testing.assert_array_equal(output, after[0])
    rates = rate if isinstance(rate, tuple) else [rate] * len(states)
    for r, old, new, other in zip(rates, states, after, moved, strict=True):
        kept = old == new.numpy()
        assert_rate(kept, r)
        np.testing.assert_array_equal(new, np.where(kept, old, other))


@pytest.mark.parametrize(("cls", "arguments", "rate"), ZONEOUTS.values(), ids=ZONEOUTS)
def test_zoneout_draws_anew_at_each_step_and_repeats_by_its_seed(
    cls, arguments, rate, rng
):
    x = rng.normal(size=(64, 8, 8)).astype("float32")

    def run(seed):
        layer = zoneout_layer(cls, arguments, rate, seed, return_sequences=True)
        return layer(x, training=True).numpy()

    h = run(7)
    kept = h[:, 1:] == h[:, :-1]
    r = rate[0] if isinstance(rate, tuple) else rate
    assert_rate(kept, r)
    for now, then in pairwise(kept.transpose(1, 0, 2)):
        assert_rate(now == then, r * r + (1 - r) * (1 - r))
    np.testing.assert_array_equal(run(7), h)
    assert (run(8) != h).mean() > 0.5


@pytest.mark.parametrize("mask_name", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize(
    ("cls", "arguments", "gate_bias"),
    [
        (SimpleRNN, {}, [0]),
        (LSTM, {"unit_forget_bias": False}, [1, 0, 0, 1]),
        (GRU, {"reset_after": False}, [0, 1, 0]),
        (GRU, {}, [0, 1, 0]),
    ],
    ids=["SimpleRNN", "LSTM", "GRU reset before", "GRU"],
)
def test_dropout_mask_is_the_same_at_each_step(
    cls, arguments, gate_bias, mask_name, rng
):
    """The cell is made `h_t = x_t m` or `h_t = h_{t-1} m`: its output is its mask."""
    width, candidate = 16, {1: 0, 4: 2, 3: 2}[len(gate_bias)]
    linear = {"activation": "linear"}
    if cls is not SimpleRNN:
        linear["recurrent_activation"] = "linear"
    layer = cls(
        width,
        **arguments,
        **linear,
        **{mask_name: 0.5},
        return_sequences=True,
        dtype="float64",
    )
    layer.build((None, None, width))
    identity = np.zeros((width, len(gate_bias), width))
    identity[:, candidate] = np.eye(width)
    identity = identity.reshape(width, -1)
    bias = np.zeros(layer.get_weights()[2].shape)
    bias[0 if bias.ndim == 2 else ...] = np.repeat(gate_bias, width)
    on_input = mask_name == "dropout"
    layer.set_weights([identity * on_input, identity * (not on_input), bias])

    x = rng.choice([1.0, 3.0], size=(200, STEPS, width))
    states = [np.ones((200, width))] * len(layer.state_size)
    h = layer(x, initial_state=states, training=True).numpy()
    mask = h[:, 0] / x[:, 0] if on_input else h[:, 0]
    assert set(np.unique(mask)) == {0.0, 2.0}
    assert_rate(mask == 0, 0.5)
    powers = np.arange(1, STEPS + 1)[:, None]
    expected = x * mask[:, None] if on_input else mask[:, None] ** powers
    np.testing.assert_array_equal(h, expected)


# Layers made of layers


@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("whole", [False, True], ids=["last step", "sequence"])
@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("features", [FEATURES, UNITS])
def test_stack_is_the_composition_of_its_layers(
    features, residual, whole, backwards, rng
):
    arguments = {"units": UNITS}
    layers = [cls(**arguments, dtype="float64") for cls in STEP]
    stack = StackedRNN(
        layers,
        residual=residual,
        return_sequences=whole,
        return_state=True,
        go_backwards=backwards,
        dtype="float64",
    )
    x, mask = draw(rng, features=features)
    stack.build(x.shape)
    randomize(stack, rng)
    states = draw_states(stack, rng)
    actual = stack(x, initial_state=states, mask=mask)

    order = slice(None, None, -1 if backwards else 1)
    below, on, end, rest = x[:, order], mask[:, order], [], list(states)
    for layer in layers:
        first = [rest.pop(0) for _ in layer.state_size]
        outputs, last, own = loop(step_of(layer, arguments), below, first, on)
        end += own
        if residual and below.shape == outputs.shape:
            outputs = outputs + below
            for row in range(BATCH):
                steps = np.flatnonzero(on[row])
                if steps.size:
                    last[row] += below[row, steps[-1]]
        below = outputs
    assert_close(actual, [below if whole else last, *end], "float64")


MERGES = {
    "concat": lambda f, b: [np.concatenate([f, b], -1)],
    "sum": lambda f, b: [f + b],
    "ave": lambda f, b: [(f + b) / 2],
    "mul": lambda f, b: [f * b],
    None: lambda f, b: [f, b],
}
BACKWARD = {
    "same class": lambda whole: None,
    "GRU": lambda whole: GRU(
        UNITS,
        go_backwards=True,
        return_sequences=whole,
        return_state=True,
        dtype="float64",
    ),
}


@pytest.mark.parametrize("backward", BACKWARD.values(), ids=BACKWARD)
@pytest.mark.parametrize("whole", [False, True], ids=["last step", "sequence"])
@pytest.mark.parametrize("merge_mode", MERGES)
def test_bidirectional_merges_both_directions(merge_mode, whole, backward, rng):
    arguments = {"units": UNITS}
    given = {"return_sequences": whole, "return_state": True, "dtype": "float64"}
    layer = Bidirectional(
        LSTM(**arguments, **given),
        merge_mode=merge_mode,
        backward_layer=backward(whole),
        dtype="float64",
    )
    x, mask = draw(rng)
    layer.build(x.shape)
    randomize(layer, rng)
    states = draw_states(layer, rng)
    actual = layer(x, initial_state=states, mask=mask)

    directions, end = [], []
    for each, first in [
        (layer.forward_layer, states[:2]),
        (layer.backward_layer, states[2:]),
    ]:
        outputs, last, own = loop(
            step_of(each, arguments),
            x,
            first,
            mask,
            backwards=each.go_backwards,
            zero_masked=whole,
        )
        end += own
        in_time = outputs[:, ::-1] if each.go_backwards else outputs
        directions.append(in_time if whole else last)
    assert_close(actual, [*MERGES[merge_mode](*directions), *end], "float64")


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        ((LSTM, 3), (GRU, 3)),
        ((LSTM, 3), (LSTM, 4)),
        ((GRU, 4), (GRU, 3)),
    ],
    ids=["two classes", "two sizes", "wider forwards"],
)
def test_bidirectional_of_unlike_layers_knows_its_outputs(forward, backward, rng):
    (cls, units), (other, other_units) = forward, backward
    layer = Bidirectional(
        cls(units, return_state=True),
        backward_layer=other(other_units, return_state=True, go_backwards=True),
    )
    x, _ = draw(rng, "float32")
    known = layer(keras.Input(batch_shape=x.shape))
    shapes = [y.shape for y in keras.tree.flatten(known)]
    assert shapes == [tuple(y.shape) for y in keras.tree.flatten(layer(x))]
