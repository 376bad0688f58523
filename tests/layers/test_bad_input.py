"""What is wrong raises and says what; what is merely small gives the right answer."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_rnnkit import (
    ESN,
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    GRUCell,
    LSTMCell,
    SimpleRNN,
    SimpleRNNCell,
    StackedRNN,
)
from tests.helpers import assert_close, randomize

STOCK = keras.layers
SHAPE = (2, 4, 3)  # of a sequence: batch, time, features


def assert_raises(pattern, function, *args, **kwargs):
    """A `ValueError` whose own words, without what Keras adds to them, fit."""
    with pytest.raises(ValueError) as error:  # noqa: PT011, matched below
        function(*args, **kwargs)
    message = str(error.value).split("Arguments received by")[0]
    assert re.search(pattern, message, re.DOTALL | re.IGNORECASE), message


# Arguments of constructors

CLASSES = (SimpleRNN, LSTM, GRU, SimpleRNNCell, LSTMCell, GRUCell)
ZONED = (LSTM, GRU, LSTMCell, GRUCell)
ARGUMENTS = [
    *[(cls, "units", bad) for cls in CLASSES for bad in (0, -1, 2.5, "3", True)],
    *[
        (cls, name, bad)
        for cls in CLASSES
        for name in ("dropout", "recurrent_dropout")
        for bad in (1.0, -0.1, float("nan"), "0.1")
    ],
    *[(cls, "zoneout", bad) for cls in ZONED for bad in (1.0, -0.1, "0.1", [0.1] * 3)],
    *[(cls, "zoneout", [0.1, 0.2]) for cls in (GRU, GRUCell)],
    *[
        (cls, "projection_units", bad)
        for cls in (LSTM, LSTMCell)
        for bad in (0, -1, 2.5)
    ],
    *[(cls, "use_cudnn", bad) for cls in (LSTM, GRU) for bad in ("yes", None, 2)],
]


@pytest.mark.parametrize(("cls", "name", "bad"), ARGUMENTS)
def test_bad_argument_is_named_with_its_value(cls, name, bad):
    pattern = rf"`{name}` must .*; received .*{re.escape(str(bad))}"
    assert_raises(pattern, cls, **({"units": 3} | {name: bad}))


WRAPPERS = {
    "merge_mode": (
        lambda: Bidirectional(LSTM(3), merge_mode="max"),
        "`merge_mode`.*received.*max",
    ),
    "backward_layer runs forwards": (
        lambda: Bidirectional(LSTM(3), backward_layer=LSTM(3)),
        "`go_backwards`.*received.*false",
    ),
    "cell that is none": (lambda: RNN(3), "`cell`.*received: cell=3"),
    "stack of nothing": (lambda: StackedRNN([]), r"`layers`.*received \[\]"),
    "stack of another layer": (
        lambda: StackedRNN([LSTM(3), STOCK.Dense(3)]),
        r"`layers\[1\]` must be a recurrent layer; received .*Dense",
    ),
    "stack of a layer that runs backwards": (
        lambda: StackedRNN([LSTM(3, go_backwards=True, name="mine")]),
        r"`layers\[0\]` must run forwards; received mine",
    ),
    "stack of a layer that returns two": (
        lambda: StackedRNN([Bidirectional(LSTM(3), merge_mode=None, name="mine")]),
        r"`layers\[0\]` must return one sequence; received mine",
    ),
    "stack of other outputs": (
        lambda: StackedRNN([LSTM(3)], outputs="first"),
        "`outputs` must be one of 'last', 'all'; received 'first'",
    ),
    "stack that adds the last step of two directions": (
        lambda: StackedRNN([LSTM(6), Bidirectional(LSTM(3))], residual=True),
        "`residual=True`.*`return_sequences=True`",
    ),
    **{
        f"stack's dropout {bad}": (
            lambda bad=bad: StackedRNN([LSTM(3)], dropout=bad),
            rf"`dropout` must lie in \[0, 1\); received {bad}",
        )
        for bad in (1.0, -0.1)
    },
}


@pytest.mark.parametrize(("make", "pattern"), WRAPPERS.values(), ids=WRAPPERS)
def test_bad_wrapper_says_why(make, pattern):
    assert_raises(pattern, make)


# Arguments of calls. Each kind of layer is called with data, and with `keras.Input`.

KINDS = {
    "LSTM": lambda **k: LSTM(2, **k),
    "RNN": lambda **k: RNN(LSTMCell(2), **k),
    "Bidirectional": lambda **k: Bidirectional(LSTM(2, **k), name=k.get("name")),
    "StackedRNN": lambda **k: StackedRNN([LSTM(2), GRU(2)], **k),
}


def symbol(value):
    return keras.Input(batch_shape=value.shape, dtype=value.dtype.name)


def zeros(*shape, dtype="float32"):
    return np.zeros(shape, dtype)


def states(layer, batch=2, wider=0):
    """The states that the layer takes, or wider ones."""
    return [zeros(batch, size + wider) for size in layer.state_size]


CALLS = {
    "rank of mask": ({"mask": zeros(4)}, r"`mask` of `mine`.*received shape \(4,\)"),
    "steps of mask": (
        {"mask": zeros(2, 5, dtype="bool")},
        r"`mask` of `mine`.*received shape \(2, 5\)",
    ),
    "batch of mask": (
        {"mask": zeros(3, 4, dtype="bool")},
        r"`mask` of `mine`.*received shape \(3, 4\)",
    ),
    "mask of features": (
        {"mask": zeros(2, 4, 3, dtype="bool")},
        r"`mask` of `mine`.*received shape \(2, 4, 3\)",
    ),
    "batch of lengths": (
        {"lengths": zeros(3, dtype="int32")},
        r"`lengths` of `mine`.*received int32 of shape \(3,\)",
    ),
    "rank of lengths": (
        {"lengths": zeros(2, 1, dtype="int32")},
        r"`lengths` of `mine`.*received int32 of shape \(2, 1\)",
    ),
    "type of lengths": (
        {"lengths": zeros(2)},
        r"`lengths` of `mine`.*received float32 of shape \(2,\)",
    ),
    "too few states": (
        lambda layer: {"initial_state": states(layer)[:-1]},
        r"`initial_state` of `mine` must hold \d tensors.*received \d",
    ),
    "too many states": (
        lambda layer: {"initial_state": [*states(layer), zeros(2, 2)]},
        r"`initial_state` of `mine` must hold \d tensors.*received \d",
    ),
    "size of states": (
        lambda layer: {"initial_state": states(layer, wider=1)},
        r"`initial_state\[0\]` of `mine`.*received shape \(2, 3\)",
    ),
    "size of the last state": (
        lambda layer: {"initial_state": [*states(layer)[:-1], zeros(2, 5)]},
        r"`initial_state\[\d\]` of `mine`.*received shape \(2, 5\)",
    ),
    "batch of states": (
        lambda layer: {"initial_state": states(layer, batch=3)},
        r"`initial_state\[0\]` of `mine`.*received shape \(3, 2\)",
    ),
    "rank of states": (
        lambda layer: {"initial_state": [s[0] for s in states(layer)]},
        r"`initial_state\[0\]` of `mine`.*received shape \(2,\)",
    ),
}
both_ways = pytest.mark.parametrize(
    "given", [np.asarray, symbol], ids=["data", "symbol"]
)
each_kind = pytest.mark.parametrize("kind", KINDS)


@both_ways
@each_kind
@pytest.mark.parametrize(("call", "pattern"), CALLS.values(), ids=CALLS)
def test_bad_call_argument_is_named_with_its_shape(call, pattern, kind, given):
    layer = KINDS[kind](name="mine")
    call = call(layer) if callable(call) else call
    call = keras.tree.map_structure(given, call)
    assert_raises(pattern, layer, given(zeros(*SHAPE)), **call)


@both_ways
@each_kind
@pytest.mark.parametrize("bad", [-1, 5])
def test_length_outside_the_sequence_is_told(bad, kind, given):
    assert_raises(
        f"`lengths` must lie between 0 and.* 4; received {bad} in row 1",
        KINDS[kind](),
        given(zeros(*SHAPE)),
        lengths=np.array([2, bad]),
    )


@pytest.mark.one_in(2)
@each_kind
@pytest.mark.parametrize("bad", [-1, 5])
def test_length_outside_the_sequence_stops_a_graph(bad, kind):
    layer = KINDS[kind]()
    layer.build(SHAPE)
    run = tf.function(
        lambda x, lengths: layer(x, lengths=lengths),
        input_signature=[
            tf.TensorSpec([None, None, 3]),
            tf.TensorSpec([None], tf.int32),
        ],
    )
    run(zeros(*SHAPE), [2, 4])
    with pytest.raises(tf.errors.InvalidArgumentError, match="`lengths` must lie"):
        run(zeros(*SHAPE), [2, bad])


# Of the sequences Keras's own checks speak too, in quotes that differ by release.
A_LAYER = r"(`\w+`|layer ['\"]\w+['\"])"


@both_ways
@each_kind
@pytest.mark.parametrize("shape", [(2, 3), (2,)])
def test_sequences_of_wrong_rank_are_told(shape, kind, given):
    pattern = A_LAYER + ".*received.*" + re.escape(str(shape))
    assert_raises(pattern, KINDS[kind](name="mine"), given(zeros(*shape)))


@both_ways
@each_kind
def test_features_that_change_after_the_build_are_told(kind, given):
    layer = KINDS[kind](name="mine")
    layer(zeros(*SHAPE))
    pattern = A_LAYER + r".*received.*\(2, 4, 5\)"
    assert_raises(pattern, layer, given(zeros(2, 4, 5)))


@both_ways
@each_kind
def test_batch_that_changes_under_a_stateful_layer_is_told(kind, given):
    layer = KINDS[kind](name="mine", stateful=True)
    layer(zeros(*SHAPE))
    assert_raises(r"`\w+` was built for 2; received 3", layer, given(zeros(3, 4, 3)))


# Arguments that only the input shows to be wrong: known before there is data

ANY_TIME = (None, 3)
BUILDS = {
    **{
        f"unroll of {name}": (
            make,
            ANY_TIME,
            r"`unroll=True` in `\w+` needs .*received shape \(None, None, 3\)",
        )
        for name, make in {
            "LSTM": lambda: LSTM(2, unroll=True),
            "RNN": lambda: RNN(GRUCell(2), unroll=True),
            "Bidirectional": lambda: Bidirectional(LSTM(2, unroll=True)),
            "StackedRNN": lambda: StackedRNN([LSTM(2), GRU(2, unroll=True)]),
        }.items()
    },
    **{
        f"use_cudnn of {name}": (
            make,
            SHAPE[1:],
            r"`use_cudnn=True` in `\w+` needs a GPU.*received",
        )
        for name, make in {
            "LSTM": lambda: LSTM(2, use_cudnn=True),
            "GRU": lambda: GRU(2, use_cudnn=True),
            "Bidirectional": lambda: Bidirectional(LSTM(2, use_cudnn=True)),
            "StackedRNN": lambda: StackedRNN([LSTM(2), GRU(2, use_cudnn=True)]),
        }.items()
    },
    **{
        f"stateful {kind}": (
            lambda kind=kind: KINDS[kind](stateful=True),
            ANY_TIME,
            r"`stateful=True`.*\(None, None, 3\)",
        )
        for kind in KINDS
    },
    "features unknown": (
        lambda: LSTM(2),
        (4, None),
        r"`\w+` must have a known size; received None",
    ),
    "residual over two sizes": (
        lambda: StackedRNN([LSTM(2), LSTM(3)], residual=True),
        SHAPE[1:],
        r"`residual=True` needs .*received 2 below and 3 above `layers\[1\]`",
    ),
    "sum of two sizes": (
        lambda: Bidirectional(
            LSTM(2), merge_mode="sum", backward_layer=LSTM(3, go_backwards=True)
        ),
        SHAPE[1:],
        "`merge_mode.*received",
    ),
}


@pytest.mark.parametrize(("make", "shape", "pattern"), BUILDS.values(), ids=BUILDS)
def test_model_that_cannot_run_is_told_when_it_is_built(make, shape, pattern):
    assert_raises(pattern, make(), keras.Input(shape))


@pytest.mark.parametrize("cls", [LSTM, GRU])
def test_cudnn_asked_for_in_vain_is_told_with_data(cls):
    pattern = "`use_cudnn=True` in `mine` needs a GPU.*received"
    assert_raises(pattern, cls(2, use_cudnn=True, name="mine"), zeros(*SHAPE))


# What is legal: no step, one step, no row, a row without a single unmasked step.
# Each maker returns our layer and one, or a chain, of Keras's with the same weights.

UNITS = 3


def pair(name, **arguments):
    """A layer and its namesake."""
    ours = {"LSTM": LSTM, "GRU": GRU, "SimpleRNN": SimpleRNN}[name]
    return ours(UNITS, **arguments), getattr(STOCK, name)(UNITS, **arguments)


def on_stock_loop(cls, *args, return_sequences, return_state, **options):
    """A layer, and Keras's loop over the same cell."""
    flags = {"return_sequences": return_sequences, "return_state": return_state}
    layer = cls(*args, **options, **flags)
    return layer, STOCK.RNN(layer.cell, **flags)


def both_directions(**flags):
    ours, stock = pair("GRU", **flags)
    return Bidirectional(ours), STOCK.Bidirectional(stock)


def chain(residual=False, **flags):
    ours = StackedRNN([LSTM(UNITS), GRU(UNITS)], residual=residual, **flags)
    return ours, StockChain(residual, flags["return_sequences"])


class StockChain(keras.layers.Layer):
    """An LSTM and a GRU of Keras, one upon the other."""

    def __init__(self, residual, return_sequences):
        super().__init__()
        whole = {"return_sequences": True, "return_state": True}
        self.layers = [STOCK.LSTM(UNITS, **whole), STOCK.GRU(UNITS, **whole)]
        self.residual = residual
        self.return_sequences = return_sequences
        self.supports_masking = True

    def build(self, shape):
        for layer in self.layers:
            layer.build((*shape[:2], UNITS))

    def call(self, x, mask, initial_state):
        lower, upper = self.layers
        y, *states = lower(x, mask=mask, initial_state=initial_state[:2])
        x = x + y if self.residual else y
        y, *more = upper(x, mask=mask, initial_state=initial_state[2:])
        y = x + y if self.residual else y
        if not self.return_sequences:
            mask = tf.ones(x.shape[:2]) if mask is None else mask
            steps = [np.flatnonzero(row) for row in np.asarray(mask)]
            y = [y[i, t[-1]] if t.size else zeros(UNITS) for i, t in enumerate(steps)]
            y = tf.stack(y)
        return y, *states, *more


OPTIONS = {"layer_norm": True, "zoneout": 0.2}
SMALL = {
    "SimpleRNN": (pair, ["SimpleRNN"], {}),
    "LSTM": (pair, ["LSTM"], {}),
    "GRU": (pair, ["GRU"], {}),
    "GRU reset before": (pair, ["GRU"], {"reset_after": False}),
    "SimpleRNN options": (on_stock_loop, [SimpleRNN, UNITS], {"layer_norm": True}),
    "LSTM options": (
        on_stock_loop,
        [LSTM, UNITS],
        OPTIONS | {"peephole": True, "projection_units": 2},
    ),
    "GRU options": (on_stock_loop, [GRU, UNITS], OPTIONS),
    "GRU reset before options": (
        on_stock_loop,
        [GRU, UNITS],
        OPTIONS | {"reset_after": False},
    ),
    "ESN": (on_stock_loop, [ESN, UNITS], {"leak_rate": 0.3}),
    "RNN of two cells": (
        lambda **flags: on_stock_loop(RNN, [LSTMCell(UNITS), GRUCell(UNITS)], **flags),
        [],
        {},
    ),
    "Bidirectional": (both_directions, [], {}),
    "StackedRNN": (chain, [], {}),
    "StackedRNN residual": (chain, [], {"residual": True}),
    "LSTM unrolled": (pair, ["LSTM"], {"unroll": True}),
}
EDGES = {  # shape, mask, whether Keras runs it
    "no step": ((2, 0, 3), None, False),
    "no row": ((0, 4, 3), None, False),
    "one step": ((2, 1, 3), None, True),
    "no step, masked": ((2, 0, 3), zeros(2, 0, dtype="bool"), False),
    "no row, masked": ((0, 4, 3), zeros(0, 4, dtype="bool"), False),
    "row of nothing": (SHAPE, [[False] * 4, [True, False, True, False]], True),
}


def with_gradients(layer):
    """`(x, mask, states) -> (outputs, gradients)`, of their squares by all there is."""

    def run(x, mask, states):
        sources = [x, *states, *[w.value for w in layer.trainable_variables]]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            first = keras.tree.pack_sequence_as(layer.state_size, states)
            outputs = keras.tree.flatten(layer(x, mask=mask, initial_state=first))
            loss = sum(tf.reduce_sum(y * y) for y in outputs)
        return outputs, tape.gradient(loss, sources, unconnected_gradients="zero")

    return run


def graphs(run, sizes):
    """`run` as a graph that knows neither the batch nor the number of steps."""
    x = tf.TensorSpec([None, None, SHAPE[-1]])
    states = [tf.TensorSpec([None, size]) for size in sizes]
    mask = tf.TensorSpec([None, None], tf.bool)
    masked = tf.function(run, input_signature=[x, mask, states])
    bare = tf.function(lambda x, s: run(x, None, s), input_signature=[x, states])
    return lambda x, mask, s: bare(x, s) if mask is None else masked(x, mask, s)


def is_long(kind, way):
    """Whether XLA compiles for some ten seconds."""
    long = "options", "residual", "Bidirectional", "StackedRNN", "GRU"
    return way == "graph" and any(each in kind for each in long)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("whole", [True, False], ids=["sequence", "last step"])
@pytest.mark.parametrize(
    ("kind", "way"),
    [
        pytest.param(kind, way, marks=[pytest.mark.slow] * is_long(kind, way))
        for kind, (*_, options) in SMALL.items()
        for way in ("eager", "graph")
        if way == "eager" or "unroll" not in options  # which needs a known time
    ],
)
def test_small_sequences_give_what_keras_gives_or_zeros(kind, whole, way, rng):
    make, args, options = SMALL[kind]
    ours, stock = make(*args, **options, return_sequences=whole, return_state=True)
    for layer in (ours, stock):
        layer.build(SHAPE)
    randomize(ours, rng)
    stock.set_weights(ours.get_weights())
    sizes = keras.tree.flatten(ours.state_size)
    run = with_gradients(ours)
    run = graphs(run, sizes) if way == "graph" else run

    for edge, (shape, mask, keras_runs) in EDGES.items():
        x = rng.normal(size=shape).astype("float32")
        states = [rng.normal(size=(shape[0], n)).astype("float32") for n in sizes]
        mask = None if mask is None else tf.constant(mask)
        outputs, gradients = run(tf.constant(x), mask, [*map(tf.constant, states)])
        for values in (*outputs, *gradients):
            assert np.isfinite(values).all(), edge
        if keras_runs:
            first = keras.tree.pack_sequence_as(ours.state_size, states)
            expected = stock(x, mask=mask, initial_state=first)
            expected = keras.tree.flatten(expected)
        else:
            width = ours.compute_output_shape(SHAPE)[0][-1]
            steps = shape[1:2] if whole else ()
            expected = [zeros(shape[0], *steps, width), *states]
            of_weights = gradients[1 + len(states) :]
            assert all(not np.any(g) for g in of_weights), edge
        assert_close(outputs, expected)
