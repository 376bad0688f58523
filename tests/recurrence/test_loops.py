"""The fast loop against the portable one: the same numbers, whatever is asked for."""

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from functools import partial
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.recurrence import (
    FastLoop,
    Policy,
    RowFunction,
    make_plan,
    often,
    pad_steps,
    save_residual,
)
from tests.helpers import TOLERANCE, assert_close, randomize


@pytest.fixture(autouse=True)
def runs(request, monkeypatch):
    """Counts how often a fast loop is traced or run; sets two shards, or as asked.

    A shape is compiled at once, as it is for much work; else, see test_mixed_batches.
    """
    monkeypatch.setattr(often, "LARGE", 0)
    name, count = "get_intra_op_parallelism_threads", getattr(request, "param", 2)
    monkeypatch.setattr(tf.config.threading, name, lambda: count)
    options = {"autospec": True, "side_effect": FastLoop.__call__}
    with mock.patch.object(FastLoop, "__call__", **options) as spy:
        yield spy


class Mine(rk.cells.SimpleRNNCell):
    """A user's cell. Its output is none of its states, its bias stands for a gain."""

    def row_constants(self, rows, training=False):
        return {"row": tf.cast(tf.tile(self.bias[None], [rows, 1]), self.compute_dtype)}

    def draw_noise(self, shape, training=False):
        return [tf.ones([*shape, 4], self.compute_dtype) / 2] if training else None

    def project(self, inputs, params):
        return inputs @ params.kernel

    def pointwise(self, z, r, states, params, noise=None):
        h = self.step_of_mine(z, r, params, noise)
        return h * params.bias + states[0], [h]


BEFORE, NORM, ZONED = {"reset_after": False}, {"layer_norm": True}, {"zoneout": 0.3}
LAYERS = {
    "SimpleRNN": {},
    "SimpleRNN-norm": {"activation": "softsign"} | NORM,
    "LSTM": {"implementation": 1},
    "LSTM-peephole": {"peephole": True, "use_bias": False},
    "LSTM-project": {"projection_units": 3, "zoneout": (0.1, 0.4)},
    "LSTM-norm": {"projection_units": 2, "peephole": True} | NORM | ZONED,
    "GRU": {"recurrent_activation": "hard_sigmoid"} | ZONED,
    "GRU-norm": NORM | ZONED,
    "GRU-before": {"activation": "relu", "implementation": 1} | BEFORE,
    "GRU-before-norm": NORM | BEFORE,
}
STEPS = {
    "sum": lambda self, z, r, k, _: tf.tanh(z + r),
    "apart": lambda self, z, r, k, _: tf.tanh(z * tf.sigmoid(r)),
    "train": lambda _, z, r, k, n: tf.cos(z + (r if n is None else n[0] * r * k.row)),
    "twice-z": lambda self, z, r, k, _: tf.tanh(z + z),
    "twice-r": lambda self, z, r, k, _: tf.cos(r + r),
    "row": lambda self, z, r, k, _: tf.tanh(z + r) * k.row,
    "saves": lambda _, z, r, k, n: tf.cos(
        save_residual(tf.sin(z) * r) + save_residual(r * k.row)
    ),
    "Reads": lambda self, z, r, k, _: z + r * self.bias,
    "Draws": lambda self, z, r, k, _: z + r + 0 * tf.random.normal([4]),
    "Bessel": lambda self, z, r, k, _: tf.math.special.bessel_j0(z + r),  # not in XLA
}
KINDS = [*[*LAYERS, *STEPS][:-3], rk.ESNCell]


def make(kind, loop, dtype="float32", **flags):
    if kind in LAYERS:
        layer, options = getattr(rk, kind.split("-")[0]), LAYERS[kind]
        return layer(4, loop=loop, dtype=dtype, seed=3, **options, **flags)
    if kind in STEPS:
        kind = type(kind, (Mine,), {"step_of_mine": STEPS[kind]})
    return rk.RNN(kind(4, dtype=dtype), loop=loop, dtype=dtype, **flags)


def pair(kind, shape, rng, **arguments):
    """The layer with the fast and with the portable loop, of the same weights."""
    layers = [make(kind, loop, **arguments) for loop in ("fast", "portable")]
    for layer in layers:
        layer.build(shape)
    layers[0].set_weights(randomize(layers[1], rng))
    return layers


def results(layer, x, mask=None, states=None, by=None, **call):
    """Outputs, and gradients of their weighted sum by inputs, states and weights."""
    with tf.GradientTape() as tape:
        tape.watch([x, states or []])
        outputs, loss = by(x) if by else layer(x, states, mask=mask, **call), 0
        for y in tf.nest.flatten(outputs):
            weights = tf.cos(tf.range(tf.cast(tf.size(y), "float64")))
            loss += tf.reduce_sum(tf.cast(weights, y.dtype) * tf.reshape(y, [-1]))
    sources = [x, states or [], [w.value for w in layer.trainable_variables]]
    return outputs, tape.gradient(loss, sources, unconnected_gradients="zero")


def in_mode(mode, layer, given, **call):
    """`results`, eager, in a graph, in one of unknown shapes, or in that under XLA."""

    def unknown(value):  # but for the number of features
        last = value.shape[-1] if value.dtype.is_floating else None
        return tf.TensorSpec([*[None] * (value.shape.rank - 1), last], value.dtype)

    run = lambda given: results(layer, **given, **call)  # noqa: E731
    if mode == "eager":
        return run(given)
    types = None if mode == "graph" else [tf.nest.map_structure(unknown, given)]
    return tf.function(run, types, autograph=False, jit_compile=mode == "xla")(given)


FLAGS = "return_sequences", "return_state", "go_backwards", "zero_output_for_mask"
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_states_and_gradients_are_equal(kind, seed):
    number = KINDS.index(kind)
    rng = np.random.default_rng([number, seed])
    choose = lambda *options: options[rng.integers(len(options))]  # noqa: E731
    flags = {name: choose(True, False) for name in FLAGS}
    flags["dtype"] = dtype = ("float64", "float32")[(number + seed) % 2]
    if kind in LAYERS:
        flags |= {"dropout": choose(0, 0.3), "recurrent_dropout": choose(0, 0.4)}
    batch, steps = choose(1, 2, 3, 5), choose(1, 2, 4, 6)
    fast, portable = pair(kind, (batch, steps, 3), rng, **flags)
    given = {"x": tf.constant(rng.normal(size=(batch, steps, 3)), dtype)}
    if choose(True, True, False):
        states = [rng.normal(size=(batch, n)) for n in tf.nest.flatten(fast.state_size)]
        given["states"] = [tf.constant(state, dtype) for state in states]
    mask = rng.random((batch, steps)) < 0.6
    mask[0], mask[-1, : steps // 2] = mask[0] & (batch == 1), False  # none, a late one
    lengths = rng.integers(0, steps + 1, batch) * (np.arange(batch) != 1)
    masks = {"mask": tf.constant(mask)}, {"lengths": tf.constant(lengths, "int32")}
    given |= choose(*masks, masks[0], {})
    training = choose(True, True, False)
    mode = ("xla", "eager", "graph", "dynamic")[(number + 3 * seed) % 4]
    plain = mode if training else "eager"  # XLA draws random numbers of its own.
    expected = in_mode(plain, portable, given, training=training)
    assert_close(in_mode(mode, fast, given, training=training), expected, dtype)


@pytest.mark.parametrize(
    "backwards", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_one_graph_and_few_lengths_serve_all_shapes(backwards, rng, monkeypatch):
    seen = set()

    def spy(*arguments):
        padded = pad_steps(*arguments)
        tf.numpy_function(lambda x: seen.add(x.shape[1]), [padded[2][0]], [])
        return padded

    monkeypatch.setattr("keras_rnnkit.recurrence.fast.pad_steps", spy)
    flags = {"return_sequences": backwards, "go_backwards": backwards}
    layers = pair("GRU", (None, None, 3), rng, return_state=True, **flags)
    types = tf.TensorSpec((None, None, 3)), tf.TensorSpec((None, None), "bool")
    call = partial(partial, results, training=True)
    fast, portable = (tf.function(call(layer), types) for layer in layers)
    alike = [(2, steps) for steps in range(17, 25)]
    for batch, steps in [(7, 5), (1, 9), (3, 0), (0, 5), *alike]:
        x, mask = tf.random.normal((batch, steps, 3)), rng.random((batch, steps)) < 0.7
        seen.clear()
        assert_close(fast(x, mask), portable(x, mask))
        assert seen == {8 if steps < 9 else 12 if steps == 9 else 24}
    assert fast.experimental_get_tracing_count() == 1


# Roundings of narrow numbers differ with the order of sums, by some units in the last
# place at each step: over a few steps they stay within 16 units of the largest entry.
ROUGH = {"float16": 2**-7, "bfloat16": 2**-4, "mixed_float16": 2**-7}
STATEFUL = {"stateful": True, "return_sequences": True, "return_state": True}
SERIES = [  # shards, kind, batch and steps, arguments and what is changed in between
    (1, "GRU-before", (5, 3), ({"recurrent_dropout": 0.3}, {})),
    (4, "GRU-before", (5, 3), ({"recurrent_dropout": 0.3}, {})),
    (2, "LSTM", (1, 1), ({"return_state": True}, {})),
    (2, "GRU", (3, 0), ({"return_sequences": True, "return_state": True}, {})),
    (2, "GRU", (0, 4), ({"return_sequences": True, "return_state": True}, {})),
    (2, "LSTM", (3, 4), (STATEFUL | {"go_backwards": True}, {})),
    (2, "GRU", (3, 4), (STATEFUL, {"activation": tf.cos})),
    (2, "train", (3, 4), (STATEFUL, {})),
    *((2, "LSTM", (3, 5), ({"dtype": dtype}, {})) for dtype in ROUGH),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("runs", "kind", "shape", "given"), SERIES, indirect=["runs"])
def test_calls_in_a_row_are_equal(runs, kind, shape, given, rng, monkeypatch):
    flags, change = given
    monkeypatch.setattr("tests.helpers.TOLERANCE", TOLERANCE | ROUGH)
    layers = pair(kind, (*shape, 3), rng, **flags)
    for training in (False, True, False):
        x, mask = tf.random.normal((*shape, 3)), rng.random(shape) < 0.7
        call = partial(results, x=x, mask=mask, training=training)
        both = [tf.nest.flatten(call(layer)) for layer in layers]
        assert_close(*both, flags.get("dtype", "float32"))
        assert [y.dtype for y in both[0]] == [y.dtype for y in both[1]]
        for layer in layers:
            vars(layer.cell).update(change)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("way", ["twice", "pfor", "while", "map_fn", "vectorized_map"])
def test_derivatives_of_other_kinds_are_equal(way, rng):
    def derived(layer, x):
        if way == "twice":
            return results(layer, x, by=partial(results, layer, training=True))
        if "map" in way:
            run = partial(getattr(tf, way), layer)
            return results(layer, x, by=lambda x: run(tf.stack([x, -x])))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y = layer(x)
        by, how = [x, layer.weights[1].value], {"experimental_use_pfor": way == "pfor"}
        return tape.batch_jacobian(y, x, **how), tape.jacobian(y, by, **how)

    layers, x = pair("GRU", (3, 4, 2), rng), tf.random.normal((3, 4, 2))
    run = derived if way in ("twice", "pfor") else tf.function(derived)
    assert_close(*(run(layer, x) for layer in layers))


@pytest.mark.parametrize(
    ("kind", "frozen"),
    [("LSTM", ["kernel", "recurrent_kernel", "bias"]), ("GRU-before", ["kernel"])],
)
def test_frozen_weights_get_no_gradient_and_change_no_other(kind, frozen):
    layer, x = make(kind, "fast"), tf.random.normal((3, 6, 2))
    layer.build(x.shape)

    def slopes(x):
        sources = [x, *(w.value for w in layer.weights)]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(loss, sources, unconnected_gradients="zero")

    of_input, *free = tf.function(slopes)(x)
    assert all(map(np.any, [of_input, *free]))
    layer.trainable = len(frozen) < 3
    for name in frozen:
        getattr(layer.cell, name).trainable = False
    names = [w.name for w in layer.weights]
    kept = [d * (name not in frozen) for name, d in zip(names, free, strict=True)]
    assert_close(tf.function(slopes)(x), [of_input, *kept])


STACKS = [  # cells, arguments, what is called with, whether the stack runs as one
    ("LSTM-peephole GRU", {}, {}, True),
    ("SimpleRNN GRU-norm LSTM", {"residual": True, "return_state": True}, {}, True),
    ("GRU LSTM", {"go_backwards": True, "return_sequences": True}, {"mask"}, True),
    ("LSTM-norm LSTM-project", {"return_state": True}, {"mask", "states"}, True),
    ("row GRU", {"dropout": 0.3}, {"states"}, True),
    ("GRU Bessel", {}, {"mask"}, False),
    ("GRU LSTM", {"return_sequences": True, "stateful": True}, {}, False),
]


LONG = [pytest.param(*case, marks=pytest.mark.slow) for case in STACKS[1:4]]


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("kinds", "flags", "given", "whole"), [STACKS[0], *LONG, *STACKS[4:]]
)
def test_a_stack_predicts_alike(kinds, flags, given, whole, rng, monkeypatch):
    spy = mock.Mock(wraps=RowFunction)
    monkeypatch.setattr("keras_rnnkit.layers.stacked_rnn.RowFunction", spy)
    fast, portable = (
        rk.StackedRNN([make(kind, loop) for kind in kinds.split()], **flags)
        for loop in ("auto", "portable")
    )
    batch = 5 if "stateful" in flags or "mask" in given else None
    for layer in (fast, portable):
        layer.build((batch, 6, 4))
    fast.set_weights(randomize(portable, rng))
    types = {"x": tf.TensorSpec([batch, 6, 4])}
    if "mask" in given:
        types["mask"] = tf.TensorSpec([batch, 6], "bool")
    if "states" in given:
        types["states"] = [tf.TensorSpec([batch, n]) for n in fast.state_size]

    def draw(spec, rows):
        values = rng.normal(size=[rows, *spec.shape[1:]])
        return tf.constant(
            values > -0.5 if spec.dtype == "bool" else values, spec.dtype
        )

    run = tf.function(lambda given: results(fast, **given), [types], autograph=False)
    for rows in [5, 1] if batch is None else [batch, batch]:
        values = tf.nest.map_structure(partial(draw, rows=rows), types)
        assert_close(run(values), results(portable, **values))
    assert spy.called == whole


def trained(loop, dropout=0.0, **options):
    keras.utils.set_random_seed(3)
    x, y = np.random.randint(0, 9, (24, 7)), np.random.normal(size=(24, 1))
    embedding = keras.layers.Embedding(9, 3, mask_zero=True)
    gru = rk.GRU(4, loop=loop, dropout=dropout, seed=1, return_sequences=True)
    stack = rk.StackedRNN([rk.SimpleRNN(3, loop=loop), rk.LSTM(2, loop=loop)])
    layers = [embedding, rk.Bidirectional(gru), stack, keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse", **options)
    model.fit(x, y, batch_size=12, epochs=2, verbose=0, shuffle=False)
    return model.get_weights(), model.predict(x, verbose=0)


@pytest.mark.slow
def test_models_train_and_predict_alike(runs):
    expected = trained("portable", dropout=0.2)
    assert not runs.called
    assert_close(trained("auto", dropout=0.2), expected)
    assert runs.called
    assert_close(trained("auto", jit_compile=True), trained("portable"))


REPLICAS = """
from tests.recurrence.test_loops import assert_close, tf, trained
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices()[0], two)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    got = trained("fast")
assert_close(got, trained("portable"))
"""


@pytest.mark.slow
def test_replicas_train_as_one_device(pytestconfig):
    run, folder = [sys.executable, "-c", REPLICAS], pytestconfig.rootpath
    out = subprocess.run(run, capture_output=True, text=True, cwd=folder)
    assert out.returncode == 0, out.stderr


COPIES = {
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "clone": lambda model, _: keras.models.clone_model(model),
    "save": lambda model, path: model.save(path) or keras.models.load_model(path),
    "stock": lambda model, _: rk.to_keras(model),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", COPIES)
def test_copies_made_after_a_fast_call_run_as_they_did(name, runs, tmp_path, rng):
    model = keras.Sequential([keras.Input((None, 3)), make("LSTM", "fast")])
    x, kept = tf.random.normal((2, 5, 3)), name != "stock"
    expected = model(x)
    other = COPIES[name](model, tmp_path / "model.keras")
    assert other.layers[0].get_config().get("loop") == ("fast" if kept else None)
    other.set_weights(model.get_weights())
    runs.reset_mock()
    assert_close(other(x), expected)
    assert runs.called == kept
    other.set_weights([0 * w for w in other.get_weights()])
    assert_close(tf.function(model)(x), expected)
    alive = weakref.ref(model.layers[0])
    del model
    runs.reset_mock()
    gc.collect()
    assert alive() is None


def test_the_way_is_chosen_by_place_and_shape(runs, rng):
    def ways(loop, **other):
        usual, found = {"unroll": False, "steps": 9, "batch": 3}, []
        for call in (lambda f: f(), lambda f: tf.function(f, autograph=False)()):
            call(lambda: found.append(make_plan(loop, **usual | other).compiled))
        return found  # in an eager call, and in a graph

    assert ways("auto") == ways("auto", steps=None, batch=None) == [False, True]
    assert ways("auto", steps=5, batch=1) == [False, True]
    for other in ({"unroll": True}, {"steps": 4}, {"steps": 0}, {"batch": 0}):
        assert ways("auto", **other) == ways("portable") == [False, False]
    assert ways("fast", steps=1) == [True, True]
    layer, x = make("LSTM", "auto"), tf.random.normal((2, 5, 3))
    with Policy(compiled=False).active():
        assert ways("auto") == ways("fast") == [False, False]
        tf.function(layer)(x)
    layer(x)
    assert not runs.called
    tf.function(layer)(x)
    assert runs.called
    with pytest.raises(ValueError, match="`loop` must be one of .*; received 'turbo'"):
        make("LSTM", "turbo")
    with pytest.raises(ValueError, match="received `unroll=True`"):
        make("sum", "fast", unroll=True)


CALL = {"call": lambda self, x, s, training=False: (s[0], [x @ self.kernel + s[0]])}
ORDINARY = {"GRUCell": keras.layers.GRUCell, "Calls": type("Calls", (Mine,), CALL)}
ORDINARY |= {name: name for name in ("Reads", "Draws", "Bessel")}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_cannot_be_fast_runs_in_ordinary_ops_only(name, runs, rng):
    layer, x = make(ORDINARY[name], "auto"), tf.random.normal((2, 6, 3))
    expected = results(layer, x)
    assert_close(in_mode("graph", layer, {"x": x}), expected)
    assert not runs.called
    if name != "Bessel":
        with pytest.raises(ValueError, match=rf"(SplitCell|alone).*received {name}"):
            make(ORDINARY[name], "fast")(x)
