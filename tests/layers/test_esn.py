"""The echo state layer: its equation, gradients through it, wrong arguments."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.cells.test_equations import FUNCTIONS, esn, loop
from tests.helpers import assert_close, outputs_and_gradients
from tests.layers.test_bad_input import assert_raises

BATCH, STEPS, FEATURES, UNITS = 3, 12, 3, 20
KINDS = {
    "plain": {},
    "leaky": {"leak_rate": 0.3, "bias_scaling": 0.5, "connectivity": 0.3},
    "orthogonal": {"topology": "orthogonal", "activation": "softsign"},
    "sparse": {"sparse": True, "leak_rate": 0.9, "bias_scaling": 0.2},
    "sparse ring": {"sparse": True, "topology": "ring", "leak_rate": 0.6},
}
WAYS = {"portable": lambda layer: layer, "fast": tf.function}
EXACT = {"float32": 1e-6, "float64": 1e-12}

each_way = pytest.mark.parametrize("way", WAYS)
each_kind = pytest.mark.parametrize("kind", KINDS)
dense_and_sparse = pytest.mark.parametrize("kind", ["leaky", "sparse"])


def layer_of(kind, **arguments):
    layer = rk.ESN(UNITS, **{"seed": 5} | KINDS[kind] | arguments)
    layer.build((BATCH, None, FEATURES))
    return layer


def weights_of(layer):
    """The weights by name, with the whole recurrent matrix."""
    weights = {w.name: np.asarray(w, "float64") for w in layer.weights}
    return weights | {"recurrent_kernel": layer.cell.matrix.astype("float64")}


def in_numpy(layer, kind, x, h=None, mask=None, **options):
    """`(outputs, last, [h])` of the layer by a plain loop."""
    x, weights = np.asarray(x, "float64"), weights_of(layer)
    h = np.zeros((len(x), UNITS)) if h is None else h
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    step = lambda x, h: esn(weights, KINDS[kind], x, h)  # noqa: E731
    return loop(step, x, [h], mask, **options)


def draw(rng, dtype="float32", steps=STEPS):
    """A sequence, and a mask with a row of nothing."""
    mask = rng.random((BATCH, steps)) < 0.6
    mask[1] = False
    return rng.normal(size=(BATCH, steps, FEATURES)).astype(dtype), mask


# The equation


@each_way
@pytest.mark.parametrize("dtype", EXACT)
@each_kind
def test_states_are_those_of_a_plain_loop(kind, dtype, way, rng):
    layer = layer_of(kind, dtype=dtype, loop=way, return_state=True)
    x, _ = draw(rng, dtype)
    outputs, state = WAYS[way](layer)(x)
    expected, last, _ = in_numpy(layer, kind, x)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=EXACT[dtype])
    np.testing.assert_allclose(state, last, rtol=0, atol=EXACT[dtype])


@pytest.mark.filterwarnings("ignore")
@each_kind
def test_states_are_those_of_reservoirpy(kind, rng):
    nodes = pytest.importorskip("reservoirpy.nodes")
    layer = layer_of(kind, dtype="float64")
    weights = weights_of(layer)
    reservoir = nodes.Reservoir(
        UNITS,
        lr=layer.leak_rate,
        W=weights["recurrent_kernel"].T,
        Win=weights["kernel"].T,
        bias=weights.get("bias", 0.0),
        activation=FUNCTIONS[layer.cell.activation.__name__],
    )
    x, _ = draw(rng, "float64")
    expected = reservoir.run(x[0])
    np.testing.assert_allclose(layer(x[:1])[0], expected, rtol=0, atol=1e-12)


@each_way
@pytest.mark.parametrize(("kind", "backwards"), [("leaky", False), ("sparse", True)])
def test_masks_lengths_and_first_states(kind, backwards, way, rng):
    layer = layer_of(kind, loop=way, go_backwards=backwards, return_state=True)
    (x, mask), h = draw(rng), rng.normal(size=(BATCH, UNITS)).astype("float32")
    run = WAYS[way](layer)
    outputs, _, state = in_numpy(layer, kind, x, h, mask, backwards=backwards)
    assert_close(run(x, initial_state=[h], mask=mask), [outputs, *state])
    lengths = [STEPS, 0, 5]
    mask = np.arange(STEPS) < np.array(lengths)[:, None]
    outputs, _, state = in_numpy(layer, kind, x, h[:1], mask, backwards=backwards)
    got = run(x, initial_state=[h[:1]], lengths=np.array(lengths))
    assert_close(got, [outputs, *state])


@each_way
@pytest.mark.parametrize("steps", [0, 1])
@dense_and_sparse
def test_no_step_and_one_step(kind, steps, way, rng):
    layer = layer_of(kind, loop=way, return_state=True)
    x, h = draw(rng, steps=steps)[0], rng.normal(size=(BATCH, UNITS)).astype("float32")
    outputs, state = WAYS[way](layer)(x, initial_state=[h])
    if steps:
        expected, _, after = in_numpy(layer, kind, x, h)
        assert_close([outputs, state], [expected, *after])
    else:
        assert outputs.shape == (BATCH, 0, UNITS)
        np.testing.assert_array_equal(state, h)


@pytest.mark.parametrize("forgets", [True, False])
def test_a_long_sequence_is_that_of_the_portable_loop(forgets, rng):
    options = {"return_state": True, "seed": 1, "dtype": "float64"}
    layers = [rk.ESN(160, spectral_radius=0.3, **options, loop=way) for way in WAYS]
    x, h = rng.normal(size=(1, 600, FEATURES)), rng.normal(size=(1, 160))
    for layer in layers:
        layer.build(x.shape)
        if not forgets:
            layer.set_weights([0.01 * layer.cell.kernel, np.eye(160)])
    got, expected = (tf.function(layer)(x, initial_state=[h]) for layer in layers)
    assert_close(got, expected, "float64")


@each_way
def test_a_stateful_layer_goes_on(way, rng):
    layer = layer_of("sparse", loop=way, stateful=True)
    x, _ = draw(rng)
    run, expected = WAYS[way](layer), in_numpy(layer, "sparse", x)[0]
    for _ in range(2):
        assert_close(run(x[:, :6]), expected[:, :6])
        assert_close(run(x[:, 6:]), expected[:, 6:])
        layer.reset_state()


def test_both_directions(rng):
    layer = rk.Bidirectional(rk.ESN(UNITS, **KINDS["leaky"]))
    x, mask = draw(rng)
    got = layer(x, mask=mask)
    directions = [
        in_numpy(each, "leaky", x, mask=mask, backwards=back, zero_masked=True)[0]
        for each, back in [(layer.forward_layer, False), (layer.backward_layer, True)]
    ]
    directions[1] = directions[1][:, ::-1]
    assert_close(got, np.concatenate(directions, axis=-1))


@pytest.mark.parametrize(
    ("whole", "masked"), [(True, True), (False, True), (False, False)]
)
def test_a_deep_reservoir_returns_the_outputs_of_all_layers(whole, masked, rng):
    def layers():
        sizes = {"plain": 6, "leaky": 5, "sparse": 4}
        return [rk.ESN(n, **KINDS[kind], seed=n) for kind, n in sizes.items()]

    x, mask = draw(rng)
    if masked:
        x = np.where(mask[..., None], x, 0)
    inputs = keras.Input((STEPS, FEATURES))
    below = masking = keras.layers.Masking()(inputs) if masked else inputs
    each = [below := layer(below) for layer in layers()]
    chain = keras.Model(inputs, each)
    stack = rk.StackedRNN(layers(), outputs="all", return_sequences=whole)
    model = keras.Model(inputs, stack(masking))

    expected = np.concatenate(chain(x), axis=-1)
    if not whole:
        mask = mask if masked else np.ones_like(mask)
        ends = [np.flatnonzero(row)[-1:] for row in mask]  # none: no output
        expected = np.array([y[t].sum(0) for y, t in zip(expected, ends, strict=True)])
    assert model.output_shape == (None, *expected.shape[1:])
    for got in (model(x), model.predict(x, verbose=0)):
        assert_close(got, expected)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    assert_close(again(x), expected)


def test_noise_is_drawn_in_training_alone():
    noisy = {"noise": 0.2, "leak_rate": 0.5, "bias_scaling": 0.0}
    x = np.zeros((400, 2, FEATURES), "float32")
    layer = layer_of("leaky", **noisy)
    assert not np.any(layer(x))
    y = layer(x, training=True).numpy()
    first, scale = y[:, 0].ravel(), 0.2 * 0.5
    assert abs(first.mean()) < 5 * scale / np.sqrt(first.size)
    assert abs(first.var() / scale**2 - 1) < 5 * np.sqrt(2 / first.size)
    assert np.corrcoef(first, y[:, 1].ravel())[0, 1] < 0.9
    np.testing.assert_array_equal(layer_of("leaky", **noisy)(x, training=True), y)
    assert np.any(layer_of("leaky", **noisy, seed=6)(x, training=True) != y)
    fast = layer_of("leaky", **noisy, loop="fast")
    assert_close(tf.function(fast)(x, training=True), y)


@each_way
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [
        ("leaky", "float16", 2**-7),
        ("sparse", "bfloat16", 2**-4),
        ("sparse ring", "mixed_float16", 2**-7),
    ],
)
def test_narrow_floats_run(kind, dtype, tolerance, way, rng):
    layer = layer_of(kind, dtype=dtype, loop=way)
    x = tf.cast(draw(rng)[0], layer.compute_dtype)
    y = WAYS[way](layer)(x)
    assert y.dtype == layer.compute_dtype
    expected, *_ = in_numpy(layer, kind, tf.cast(x, "float64"))
    assert np.abs(np.asarray(y, "float64") - expected).max() < tolerance


# No training, but gradients to what is below


@each_kind
def test_no_weight_is_trainable(kind):
    layer = layer_of(kind)
    names = ["kernel", "recurrent_kernel", "recurrent_index", "bias"]
    for trainable in (False, True):
        layer.trainable = trainable
        assert layer.trainable_weights == []
        assert layer.non_trainable_weights == layer.weights
        assert [w.name for w in layer.weights] == [
            name for name in names if getattr(layer.cell, name, None) is not None
        ]


@each_way
@dense_and_sparse
def test_gradients_go_through_as_in_keras(kind, way, rng):
    layer, below = layer_of(kind, loop=way), keras.layers.Dense(FEATURES)
    stock = keras.layers.RNN(layer.cell, return_sequences=True)
    models = [keras.Sequential([below, each]) for each in (layer, stock)]
    x, _ = draw(rng)
    for model in models:
        model.build(x.shape)
    run = tf.function(outputs_and_gradients, autograph=False)
    got, expected = (run(model, tf.constant(x), 0) for model in models)
    assert [g.shape for g in expected[1]] == [x.shape, (3, 3), (3,)]
    assert_close(got, expected)


def test_gradients_of_gradients_are_equal(rng):
    def penalty(layer, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x, training=True) ** 2)
            slope = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        return outer.gradient(slope, x)

    x = tf.constant(draw(rng, steps=5)[0])
    fast, portable = (layer_of("sparse", loop=way) for way in ("fast", "portable"))
    assert_close(tf.function(penalty)(fast, x), penalty(portable, x))


def test_fit_trains_what_is_around_it(rng):
    layer = layer_of("sparse")
    around = [keras.layers.Dense(FEATURES), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((STEPS, 2)), around[0], layer, around[1]])
    model.compile("sgd", "mse")
    before = {each: each.get_weights() for each in (*around, layer)}
    x, y = rng.normal(size=(8, STEPS, 2)), rng.normal(size=(8, STEPS, 1))
    model.fit(x, y, verbose=0)
    for each in around:
        for new, old in zip(each.get_weights(), before[each], strict=True):
            assert np.all(new != old)
    for new, old in zip(layer.get_weights(), before[layer], strict=True):
        np.testing.assert_array_equal(new, old)


# Wrong arguments

NAN, INF = float("nan"), float("inf")
BAD = {
    "units": [0, 2.5, True],
    "spectral_radius": [0, -0.5, NAN, INF, "0.9", None],
    "leak_rate": [0, 1.5, -0.1, NAN, None],
    "connectivity": [0, 1.1, "all"],
    "input_connectivity": [0, 2],
    "input_scaling": [-1, "1", INF],
    "bias_scaling": [-1, NAN],
    "feedback_scaling": [-1],
    "feedback": [-1, 1.5, True],
    "noise": [-0.1, NAN, INF],
    "topology": ["star", [[1], [1, 2]], ["ring"]],
    "sparse": ["yes", 2],
    "seed": [-1, 1.5, True],
}


@pytest.mark.parametrize(
    ("name", "bad"), [(name, bad) for name in BAD for bad in BAD[name]]
)
def test_a_bad_argument_is_named_with_its_value(name, bad):
    for cls in (rk.ESN, rk.ESNCell):
        pattern = rf"^`{name}` must .*; received {re.escape(repr(bad))}$"
        assert_raises(pattern, cls, **{"units": 4} | {name: bad})


WRONG = [
    (
        {"topology": [[0, 1.0], [2, NAN]]},
        r"`topology` must be finite; received \[2.0, nan\] in row 1",
    ),
    ({"topology": np.ones((2, 3))}, r"`topology` must be .*received shape \(2, 3\)"),
    ({"topology": [1, 2]}, r"`topology` must be .*received shape \(2,\)"),
    ({"topology": np.eye(3)}, r"`topology` must be .*= 4 .*received shape \(3, 3\)"),
    ({"feedback": 4}, "at least `feedback` = 4; received 3"),
    ({"input_scaling": [1, -2.0]}, "`input_scaling` must be >= 0; received -2.0"),
    ({"input_scaling": [1, 2]}, "`input_scaling` .*must be .* 3 of them.*received 2"),
    (
        {"input_scaling": [1, 2, 3], "feedback": 1},
        "`input_scaling` .*must be .* 2 of them.*received 3",
    ),
    (
        {"sparse": True, "topology": "orthogonal"},
        "`sparse=True` needs .*received `topology='orthogonal'`",
    ),
    (
        {"sparse": True, "connectivity": 1.0},
        "`sparse=True` needs .*received .*`connectivity=1.0`",
    ),
]


@pytest.mark.parametrize(("arguments", "pattern"), WRONG)
def test_what_does_not_fit_is_told(arguments, pattern):
    assert_raises(pattern, lambda: rk.ESN(4, **arguments).build((None, 5, 3)))
