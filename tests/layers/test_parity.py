"""Our layers against stock Keras: the same numbers from the same weights."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.helpers import assert_close, outputs_and_gradients, randomize

CELLS = ("SimpleRNN", "LSTM", "GRU")


def draw_arguments(rng, cell):
    """Random arguments of a layer that Keras has too."""
    choose = lambda *options: options[rng.integers(len(options))]  # noqa: E731
    arguments = {
        "units": int(rng.integers(1, 7)),
        "activation": choose("tanh", "tanh", "relu", None, "softsign"),
        "use_bias": choose(True, True, False),
        "return_sequences": choose(True, False),
        "return_state": choose(True, False),
        "go_backwards": choose(True, False),
        "unroll": choose(True, False, False),
        "zero_output_for_mask": choose(True, False),
        "dropout": choose(0.0, 0.3),
        "recurrent_dropout": choose(0.0, 0.0, 0.4),
        "seed": int(rng.integers(99)),
        "kernel_regularizer": choose(None, "l2"),
        "recurrent_constraint": choose(None, "unit_norm"),
    }
    if cell != "SimpleRNN":
        arguments["recurrent_activation"] = choose("sigmoid", "hard_sigmoid")
        arguments["implementation"] = choose(1, 2)
    if cell == "LSTM":
        arguments["unit_forget_bias"] = choose(True, False)
    if cell == "GRU":
        arguments["reset_after"] = choose(True, False)
    return arguments


def draw_call(rng, layer, x, dtype):
    """Random call arguments: `(for ours, for Keras)`; they differ in `lengths` only."""
    batch, steps = x.shape[:2]
    call = {"training": bool(rng.integers(2))}
    if rng.integers(2):
        call["initial_state"] = keras.tree.map_structure(
            lambda size: rng.normal(size=(batch, size)).astype(dtype), state_size(layer)
        )
    kind = rng.integers(4)
    if kind == 0:
        return call, call
    if kind == 1:
        mask = rng.random((batch, steps)) < 0.6
        mask[0] = False
        return (call | {"mask": mask},) * 2
    lengths = rng.integers(0, steps + 1, batch)
    mask = np.arange(steps) < lengths[:, None]
    if kind == 2:
        return (call | {"mask": mask},) * 2
    return call | {"lengths": lengths}, call | {"mask": mask}


def state_size(layer):
    if isinstance(layer, keras.layers.Bidirectional):
        return [*layer.forward_layer.state_size, *layer.backward_layer.state_size]
    return layer.state_size


def around_bugs_of_keras(arguments, kind):
    """The arguments with which Keras 3.15 computes what it promises.

    Unrolled, backwards and with `zero_output_for_mask`, which `Bidirectional` implies,
    it zeroes by the mask in the wrong order; with `implementation=1` and dropout, its
    attempt at cuDNN fails also where there is no GPU.
    """
    if arguments["go_backwards"] or "Bidirectional" in kind:
        arguments = arguments | {"unroll": False}
    if arguments.get("implementation") == 1:
        arguments = arguments | {"use_cudnn": False}
    return arguments


def dtype_of_reference(arguments, dtype):
    """float64 where it can be: then all of a difference is rounding of our own.

    In float32, a gradient by a saturated cell differs between two right answers by more
    than the bound. The noise of dropout hangs on the type.
    """
    drops = arguments["dropout"] or arguments["recurrent_dropout"]
    return dtype if drops else "float64"


def make(modules, kind, arguments, dtype):
    """The same layer from our modules or from Keras's."""
    layers, cells = modules
    if layers is keras.layers:
        arguments = around_bugs_of_keras(arguments, kind)
    if kind == "RNN":
        names = ("units", "activation", "use_bias", "dropout", "seed")
        of_cell = {name: arguments[name] for name in names} | {"dtype": dtype}
        inner = [cells.LSTMCell(**of_cell), cells.GRUCell(**of_cell)]
        names = ("return_sequences", "return_state", "go_backwards", "unroll")
        inner = keras.layers.StackedRNNCells(inner, dtype=dtype)
        return layers.RNN(inner, dtype=dtype, **{n: arguments[n] for n in names})
    if kind.startswith("Bidirectional"):
        _, cell, merge = kind.split("-")
        arguments = arguments | {"go_backwards": False}
        # Keras 3.15 makes the layer anew and forgets some of its arguments.
        arguments.pop("implementation", None)
        if cell == "SimpleRNN":
            arguments |= {"dropout": 0.0, "recurrent_dropout": 0.0, "seed": None}
        layer = getattr(layers, cell)(**arguments, dtype=dtype)
        mode = None if merge == "None" else merge
        return layers.Bidirectional(layer, merge_mode=mode, dtype=dtype)
    return getattr(layers, kind)(**arguments, dtype=dtype)


OURS, STOCK = (rk.layers, rk.cells), (keras.layers, keras.layers)
KINDS = [
    *CELLS * 2,
    "RNN",
    "Bidirectional-LSTM-concat",
    "Bidirectional-GRU-sum",
    "Bidirectional-SimpleRNN-mul",
    "Bidirectional-LSTM-ave",
    "Bidirectional-GRU-None",
]


SEEDS = [
    *range(5),
    *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 100)),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("number", "kind"), list(enumerate(KINDS)))
def test_outputs_states_and_gradients_equal_keras(number, kind, seed):
    rng = np.random.default_rng([number, seed])
    dtype = ("float32", "float64")[seed % 2]
    arguments = draw_arguments(rng, kind.split("-")[-2 if "-" in kind else 0])
    reference = dtype_of_reference(arguments, dtype)
    ours = make(OURS, kind, arguments, dtype)
    stock = make(STOCK, kind, arguments, reference)
    batch, steps, features = rng.integers(1, 5), rng.integers(1, 8), rng.integers(1, 6)
    x = rng.normal(size=(batch, steps, features)).astype(dtype)
    ours.build(x.shape)
    stock.build(x.shape)
    randomize(ours, rng)
    stock.set_weights(ours.get_weights())
    our_call, stock_call = draw_call(rng, stock, x, dtype)
    if "initial_state" in stock_call:
        stock_call = stock_call | {
            "initial_state": keras.tree.map_structure(
                lambda state: state.astype(reference), stock_call["initial_state"]
            )
        }
    assert_close(
        outputs_and_gradients(ours, x, seed, **our_call),
        outputs_and_gradients(stock, x.astype(reference), seed, **stock_call),
        dtype,
    )
    assert_close(ours.losses, stock.losses, dtype)


@pytest.mark.parametrize("name", CELLS)
def test_same_global_seed_gives_the_initial_weights_of_keras(name):
    models = []
    for layers in (rk.layers, keras.layers):
        keras.utils.set_random_seed(7)
        stack = [getattr(layers, name)(5, return_sequences=True) for _ in range(2)]
        models.append(keras.Sequential([keras.Input((3, 4)), *stack]))
    for ours, stock in zip(*(m.weights for m in models), strict=True):
        assert ours.path.split("/")[-2:] == stock.path.split("/")[-2:]
        np.testing.assert_array_equal(ours, stock)


@pytest.mark.parametrize("name", CELLS)
def test_cells_run_in_the_rnn_of_keras_and_its_cells_in_ours(name, rng):
    x = rng.normal(size=(3, 5, 4)).astype("float32")
    arguments = {"dropout": 0.3, "recurrent_dropout": 0.2, "seed": 1}
    make_cells = [getattr(m, f"{name}Cell") for m in (rk.cells, keras.layers)]
    layers = [
        rnn(cell(4, **arguments), return_sequences=True)
        for rnn in (rk.RNN, keras.layers.RNN)
        for cell in make_cells
    ]
    layers[0].build(x.shape)
    weights = randomize(layers[0], rng)
    results = []
    for layer in layers:
        layer.build(x.shape)
        layer.set_weights(weights)
        results.append(layer(x, training=True))
    for result in results[1:]:
        assert_close(result, results[0])


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("wrap", [False, True])
def test_stateful_layers_keep_and_reset_their_states_as_keras_does(name, wrap, rng):
    x = rng.normal(size=(2, 4, 3)).astype("float32")
    mask = np.array([[True, True, False, False], [True, True, True, False]])
    layers = []
    for module in (rk.layers, keras.layers):
        layer = getattr(module, name)(4, stateful=True, return_sequences=True)
        layers.append(module.Bidirectional(layer) if wrap else layer)
        layers[-1].build(x.shape)
    layers[1].set_weights(randomize(layers[0], rng))
    for call in ({}, {"mask": mask}, {}):
        assert_close(*(layer(x, **call) for layer in layers))
        assert_close(*(list(layer.states) for layer in layers))
    carried = layers[0](x)
    for layer in layers:
        layer.reset_state()
    assert_close(*(layer(x) for layer in layers))
    layers[0].reset_state()
    assert np.abs(layers[0](x) - carried).max() > 1e-3


@pytest.mark.parametrize("source", ["Embedding", "Masking"])
def test_masks_of_the_layer_below_count_and_are_handed_on(source, rng):
    tokens = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]])
    outputs = []
    below = keras.layers.Embedding(5, 3, mask_zero=True)
    x = tokens
    if source == "Masking":
        below, x = keras.layers.Masking(), np.asarray(below(tokens))
        x = np.where(tokens[..., None] > 0, x, 0)
    for module in (rk.layers, keras.layers):
        keras.utils.set_random_seed(0)
        first = module.Bidirectional(module.LSTM(4, return_sequences=True))
        second = module.GRU(3, return_sequences=True)
        model = keras.Sequential([below, first, second])
        outputs.append(model(x))
        np.testing.assert_array_equal(outputs[-1]._keras_mask, tokens > 0)
    assert_close(*outputs)


def test_lengths_are_handed_on_as_a_mask(rng):
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    inputs = keras.Input((None, 3)), keras.Input((), dtype="int32")
    for wrap in (lambda layer: layer, rk.Bidirectional, lambda x: rk.StackedRNN([x])):
        layer = wrap(rk.LSTM(4, return_sequences=True))
        if isinstance(layer, rk.StackedRNN):
            layer.return_sequences = True
        model = keras.Model(inputs, layer(inputs[0], lengths=inputs[1]))
        output = model([x, np.array([2, 5])])
        np.testing.assert_array_equal(
            output._keras_mask, np.arange(5) < np.array([[2], [5]])
        )


def stack(layers, **arguments):
    """Two layers, one of them in both directions: a `StackedRNN`, or Keras's chain."""
    shared = arguments | {"recurrent_initializer": "glorot_uniform"}
    # Keras 3.15 fails on a stateful `Bidirectional` that returns its states.
    with_states = not arguments["stateful"]
    flags = {"return_sequences": True, "return_state": with_states}
    inner = [
        layers.Bidirectional(layers.GRU(3, **shared, **flags), dtype=shared["dtype"]),
        layers.LSTM(4, **shared, **flags),
    ]
    if layers is rk.layers:
        return rk.StackedRNN(inner, **flags, **arguments)

    def chain(x, initial_state=None, **call):
        states = []
        for layer in inner:
            if initial_state is not None:
                call["initial_state"] = initial_state[len(states) :][:2]
            x = layer(x, **call)
            if with_states:
                x, *own = x
                states += own
        return (x, *states)

    return chain


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "mixed_float16", "bfloat16"])
def test_a_stack_equals_the_chain_of_keras_layers(stateful, dtype, rng):
    x = rng.normal(size=(3, 5, 2)).astype("float32")
    mask = np.array([[True] * 5, [True] * 2 + [False] * 3, [False] * 5])
    first = [rng.normal(size=(3, n)).astype("float32") for n in (3, 3, 4, 4)]
    results = []
    for layers in (rk.layers, keras.layers):
        keras.utils.set_random_seed(0)
        layer = stack(layers, dtype=dtype, stateful=stateful)
        calls = [{}, {"mask": mask}, {"mask": mask}, {}]
        if not stateful:
            calls[2]["initial_state"] = first
        results.append([layer(x, **call) for call in calls])
    if dtype == "float64":
        assert_close(*results, dtype="float64")
    for ours, stock in zip(*map(tf.nest.flatten, results), strict=True):
        assert ours.dtype == stock.dtype == keras.DTypePolicy(dtype).compute_dtype
        difference = tf.cast(ours, "float32") - tf.cast(stock, "float32")
        assert np.abs(difference).max() <= 4 * 2**-7


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", CELLS)
def test_narrow_types_follow_keras_to_their_precision(name, policy, rng):
    x = rng.normal(size=(3, 6, 4)).astype("float32")
    results = []
    arguments = {"dtype": policy, "return_sequences": True}
    getattr(rk, name)(8, **arguments)(
        x
    )  # `orthogonal`, which Keras has not in bfloat16
    for module in (rk.layers, keras.layers):
        keras.utils.set_random_seed(0)
        layer = getattr(module, name)(
            8, recurrent_initializer="glorot_uniform", **arguments
        )
        outputs = layer(x)
        assert outputs.dtype == keras.DTypePolicy(policy).compute_dtype
        assert layer.weights[0].dtype == keras.DTypePolicy(policy).variable_dtype
        results.append(np.asarray(outputs).astype("float32"))
    epsilon = 2**-10 if "float16" in policy and "b" not in policy else 2**-7
    assert np.abs(results[0] - results[1]).max() <= 4 * epsilon


@pytest.mark.one_in(3)
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_fit_follows_keras_step_by_step(name, jit, rng):
    x = rng.normal(size=(24, 7, 3)).astype("float32")
    y = rng.normal(size=(24, 1)).astype("float32")
    losses, predictions = [], []
    for module in (rk.layers, keras.layers):
        keras.utils.set_random_seed(3)
        layer = getattr(module, name)(5, dropout=0.2, seed=1)
        model = keras.Sequential([keras.layers.Masking(), layer, keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=jit)
        history = model.fit(x, y, batch_size=8, epochs=3, verbose=0, shuffle=False)
        losses.append(history.history["loss"])
        predictions.append(model.predict(x, verbose=0))
    np.testing.assert_allclose(*losses, rtol=1e-5)
    np.testing.assert_allclose(*predictions, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "LSTM",
        *(
            pytest.param(k, marks=pytest.mark.slow)
            for k in ("GRU", "SimpleRNN", "Bidirectional", "Stack")
        ),
    ],
)
def test_graph_and_xla_equal_eager(kind, jit, rng):
    x = rng.normal(size=(3, 6, 4)).astype("float32")
    mask = rng.random((3, 6)) < 0.7
    inner = rk.GRU(4, return_sequences=True, layer_norm=True, zoneout=0.1)
    layer = {
        "Bidirectional": lambda: rk.Bidirectional(inner),
        "Stack": lambda: rk.StackedRNN([inner, rk.LSTM(4)], residual=True),
    }.get(kind, lambda: getattr(rk, kind)(4, return_sequences=True))()
    layer.build(x.shape)
    randomize(layer, rng)
    eager = outputs_and_gradients(layer, x, 0, mask=mask)
    shape = x.shape if jit else (None, None, 4)

    @tf.function(jit_compile=jit, input_signature=[tf.TensorSpec(shape)])
    def run(x):
        return layer(x, mask=mask)

    assert_close(run(x), eager[0])

    @tf.function(jit_compile=jit)
    def gradients(x, lengths):
        return outputs_and_gradients(layer, x, 0, lengths=lengths)

    lengths = np.array([6, 0, 2], np.int32)
    tensors = tf.constant(x), tf.constant(lengths)
    assert_close(
        gradients(*tensors),
        outputs_and_gradients(layer, *tensors[:1], 0, lengths=lengths),
    )


def test_the_activity_regularizer_of_a_simple_rnn_counts(rng):
    x = rng.normal(size=(3, 5, 2)).astype("float32")
    layer = rk.SimpleRNN(4, activity_regularizer=keras.regularizers.L2(0.1))
    output = np.asarray(layer(x))
    peer = keras.layers.Identity(activity_regularizer=layer.activity_regularizer)
    peer(output)
    assert_close(layer.losses, peer.losses)
    assert layer.losses[0] > 0


def test_a_stateful_bidirectional_layer_returns_its_states_beside_a_mask(rng):
    x = rng.normal(size=(3, 5, 2)).astype("float32")
    mask = np.arange(5) < np.array([[5], [2], [0]])
    flags = {"return_sequences": True, "return_state": True}
    stateful = rk.Bidirectional(rk.LSTM(4, stateful=True, **flags))
    plain = rk.Bidirectional(rk.LSTM(4, **flags))
    plain.build(x.shape)
    stateful.build(x.shape)
    plain.set_weights(randomize(stateful, rng))
    masked = keras.Input(batch_shape=x.shape), keras.Input(batch_shape=mask.shape)
    model = keras.Model(masked, stateful(masked[0], mask=masked[1]))
    states = None
    for _ in range(2):
        output, *states = plain(x, mask=mask, initial_state=states)
        assert_close(model([x, mask]), [output, *states])


@pytest.mark.parametrize("name", [*CELLS, "RNN", "Bidirectional"])
@pytest.mark.parametrize("module", ["layers", "cells"])
def test_constructors_take_the_arguments_of_keras_in_its_order(name, module):
    if module == "cells":
        name = "GRUCell" if name in ("RNN", "Bidirectional") else f"{name}Cell"
    ours, stock = (
        list(inspect.signature(getattr(m, name)).parameters.values())
        for m in (getattr(rk, module), keras.layers)
    )
    plain = [p for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
    expected = [p for p in stock if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in plain] == [
        (p.name, p.default) for p in expected
    ]
