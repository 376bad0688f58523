"""Batches of many shapes: one is compiled once it has been met often, not before."""

from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.recurrence import FastLoop, is_often, often
from keras_rnnkit.seq2seq import additive
from tests.helpers import assert_close, randomize

ANY = tf.TensorSpec([None, None, 3])


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    """Fixes what is often, whatever is measured to be best."""
    values = {"ENOUGH": 1000, "LARGE": 256, "TIMES": 3, "KNOWN_AT_ONCE": False}
    for name, value in values.items():
        monkeypatch.setattr(often, name, value)
    name = "get_intra_op_parallelism_threads"
    monkeypatch.setattr(tf.config.threading, name, lambda: 2)


def batches(count=20, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        rows, steps = rng.integers(1, 9), rng.integers(1, 14)
        x = rng.integers(1, 9, (rows, steps)) * (rng.random((rows, steps)) < 0.9)
        yield x.astype("int32"), rng.normal(size=(rows, 1)).astype("float32")


def dataset(count=20):
    spec = tf.TensorSpec([None, None], "int32"), tf.TensorSpec([None, 1])
    data = tf.data.Dataset.from_generator(lambda: batches(count), output_signature=spec)
    return data.apply(tf.data.experimental.assert_cardinality(count))


def model_of(kind, **options):
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(9, 4, mask_zero=True),
            kind.Bidirectional(kind.GRU(4, return_sequences=True, **options)),
            kind.LSTM(3, **options),
            keras.layers.Dense(1),
        ]
    )


def fitted(model, epochs=2):
    model.compile(keras.optimizers.SGD(0.05), "mse")
    history = model.fit(dataset(), epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"], model.predict(dataset(), verbose=0)


def compiled_shapes(function, shapes, spec=ANY):
    """The numbers of the calls, of inputs of these shapes, that took the compiled way:
    by a spy that notes when a graph runs the branch of it."""
    taken = []

    def spy(way, compiled, ordinary):
        def noted():
            tf.numpy_function(lambda: taken.append(number), [], [])
            return compiled()

        return tf.cond(way, noted, ordinary)

    with mock.patch("keras_rnnkit.recurrence.fast.if_often", spy):
        graph = tf.function(function, [spec], autograph=False)
        for number, shape in enumerate(shapes):  # noqa: B007, read by the spy
            graph(tf.random.normal([*shape, 3]))
    return taken


def test_an_epoch_of_mixed_batches_is_that_of_keras():
    stock, ours = model_of(keras.layers), model_of(rk)
    ours.set_weights(stock.get_weights())
    assert_close(fitted(ours), fitted(stock))


@pytest.mark.slow
def test_a_seed_gives_the_same_run():
    options = {"dropout": 0.2, "recurrent_dropout": 0.2}
    first, second = (fitted(model_of(rk, **options)) for _ in range(2))
    for a, b in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
        np.testing.assert_array_equal(a, b)


SMALL, OTHER = (3, 7), (3, 9)  # padded to 8 and 12 steps
OFTEN = [  # shapes of calls in a row, and the numbers of those that are compiled
    ([SMALL] * 4, [2, 3]),  # the third call of a shape that most calls have
    ([SMALL, (4, 6), (3, 8), (4, 8)], [2, 3]),  # one shape, once they are padded
    ([SMALL, (1, 7)] + [SMALL] * 2 + [(1, 7)] * 2, [3]),  # a single row is a shape
    ([SMALL] * 3 + [OTHER] * 3 + [SMALL], [2, 6]),  # once often, often for ever
    ([SMALL, OTHER, (1, 5), (8, 5), (8, 9)] * 3, []),  # no shape is that of most calls
    ([(2, 300), (2, 100), (2, 300)], [0, 2]),  # much work; then a shape of the fewer
    ([(4, 100), *[SMALL, OTHER] * 4, *[(4, 100)] * 9], [15, 16, 17]),  # 8 x 128 steps
]


@pytest.mark.parametrize(("shapes", "compiled"), OFTEN)
def test_what_is_often_is_compiled(shapes, compiled):
    layer = rk.SimpleRNN(4)
    layer.build((None, None, 3))
    assert compiled_shapes(layer, shapes) == compiled


def test_a_graph_of_one_shape_compiles_at_its_third_call():
    layer = rk.SimpleRNN(4)
    layer.build((None, None, 3))
    spec = tf.TensorSpec([2, 100, 3])
    assert compiled_shapes(layer, [(2, 100)] * 4, spec) == [2, 3]


def test_it_compiles_at_once_if_a_call_is_much_work_or_the_loop_is_to_be_fast():
    layer, x = rk.SimpleRNN(4), tf.zeros([2, 300, 3])
    layer.build(x.shape)
    with mock.patch("keras_rnnkit.recurrence.fast.if_often") as spy:
        spy.side_effect = often.if_often
        tf.function(layer)(x)
        rk.SimpleRNN(4, loop="fast")(x[:, :10])
    assert [call.args[0] for call in spy.call_args_list] == [None] * 2


KINDS = {
    "SimpleRNN": lambda loop: rk.SimpleRNN(4, loop=loop, return_sequences=True),
    "LSTM": lambda loop: rk.LSTM(4, loop=loop, peephole=True, return_state=True),
    "GRU": lambda loop: rk.GRU(4, loop=loop, go_backwards=True, layer_norm=True),
    "Bidirectional": lambda loop: rk.Bidirectional(rk.LSTM(2, loop=loop)),
    "StackedRNN": lambda loop: rk.StackedRNN(
        [rk.GRU(4, loop=loop), rk.LSTM(4, loop=loop)], residual=True
    ),
    "ESN": lambda loop: rk.RNN(rk.ESNCell(9), loop=loop, return_sequences=True),
}


def derivatives(layer, x, mask, training, second=False):
    """Outputs, gradients, and gradients of these."""
    weights = [w.value for w in layer.trainable_variables]
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, mask=mask, training=training)
            loss = sum(tf.reduce_sum(y * y) for y in tf.nest.flatten(outputs))
        first = tape.gradient(loss, [x, *weights], unconnected_gradients="zero")
        total = tf.reduce_sum(first[0] ** 2)
    if not second:
        return outputs, first
    return outputs, first, outer.gradient(total, x, unconnected_gradients="zero")


@pytest.mark.one_in(4)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_equal_before_and_after_the_switch(kind, training, rng):
    auto, portable = (KINDS[kind](loop) for loop in ("auto", "portable"))
    for layer in (auto, portable):
        layer.build((None, None, 3))
    auto.set_weights(randomize(portable, rng))
    types = ANY, tf.TensorSpec([None, None], "bool")

    @tf.function(input_signature=types, autograph=False)
    def run(x, mask):
        return derivatives(auto, x, mask, training, second=kind == "GRU")

    for rows, steps in [*[(3, 6)] * 4, (1, 5), (5, 13), (3, 5), (2, 0), (0, 3)]:
        x = tf.constant(rng.normal(size=(rows, steps, 3)), "float32")
        mask = tf.constant(rng.random((rows, steps)) < 0.7)
        expected = derivatives(portable, x, mask, training, second=kind == "GRU")
        assert_close(run(x, mask), expected)
    assert run.experimental_get_tracing_count() == 1


@pytest.mark.one_in(8)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("known", [(3, 6), (1, 9), (4, 1), (1, None), (None, 12)])
@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_one_shape_give_the_same_before_and_after(kind, known, training, rng):
    auto, portable = (KINDS[kind](loop) for loop in ("auto", "portable"))
    for layer in (auto, portable):
        layer.build((None, None, 3))
    auto.set_weights(randomize(portable, rng))
    types = tf.TensorSpec([*known, 3]), tf.TensorSpec(known, "bool")
    run = tf.function(lambda *given: derivatives(auto, *given, training), types)
    predict = tf.function(lambda x, mask: auto(x, mask=mask, training=training), types)
    rows, steps = (size or 5 for size in known)
    for _ in range(4):  # the third call compiles
        x = tf.constant(rng.normal(size=(rows, steps, 3)), "float32")
        mask = tf.constant(rng.random((rows, steps)) < 0.7)
        outputs, gradients = derivatives(portable, x, mask, training)
        assert_close(run(x, mask), (outputs, gradients))
        assert_close(predict(x, mask), outputs)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("known", [(3, 6), (3, None), (None, 6)])
def test_gradients_are_equal_where_sizes_are_known(known, rng):
    options = {"return_sequences": True, "return_state": True, "zoneout": 0.3}
    auto, portable = (
        rk.GRU(4, seed=1, loop=loop, **options) for loop in ("auto", "portable")
    )
    for layer in (auto, portable):
        layer.build((*known, 3))
    auto.set_weights(randomize(portable, rng))
    types = tf.TensorSpec([*known, 3]), tf.TensorSpec(known, "bool")
    run = tf.function(lambda *given: derivatives(auto, *given, True), types)
    for _ in range(4):
        x = tf.constant(rng.normal(size=(3, 6, 3)), "float32")
        mask = tf.constant(rng.random((3, 6)) < 0.7)
        assert_close(run(x, mask), derivatives(portable, x, mask, True))


def test_a_stack_of_known_steps_counts_its_rows(rng):
    stack = rk.StackedRNN([rk.GRU(4), rk.LSTM(3)])
    plain = rk.StackedRNN([rk.GRU(4, loop="portable"), rk.LSTM(3, loop="portable")])
    for layer in (stack, plain):
        layer.build((None, 9, 3))
    stack.set_weights(randomize(plain, rng))
    run = tf.function(stack, [tf.TensorSpec([None, 9, 3])])
    options = {"autospec": True, "side_effect": FastLoop.__call__}
    with mock.patch.object(FastLoop, "__call__", **options) as spy:
        run.get_concrete_function()
    assert spy.call_count == 2  # the two layers as they are compiled; else ordinary ops
    for rows in (1, 2, 2, 2, 5, 1, 2, 2):
        x = tf.random.normal((rows, 9, 3))
        assert_close(run(x), plain(x))


@pytest.mark.slow
def test_a_stack_of_known_steps_has_gradients_of_gradients(rng):
    stack = rk.StackedRNN([rk.GRU(4), rk.LSTM(3)])
    plain = rk.StackedRNN([rk.GRU(4, loop="portable"), rk.LSTM(3, loop="portable")])
    for layer in (stack, plain):
        layer.build((None, 9, 3))
    stack.set_weights(randomize(plain, rng))
    types = tf.TensorSpec([None, 9, 3]), tf.TensorSpec([None, 9], "bool")

    @tf.function(input_signature=types, autograph=False)
    def run(*given):
        return derivatives(stack, *given, False, second=True)

    for rows in (3, 3, 3, 1):  # the third call compiles
        x = tf.constant(rng.normal(size=(rows, 9, 3)), "float32")
        mask = tf.constant(rng.random((rows, 9)) < 0.7)
        assert_close(run(x, mask), derivatives(plain, x, mask, False, second=True))


def test_additive_scores_are_equal_before_and_after_the_switch(rng):
    shapes = [None, None, 6], [None, None, 6], [6]
    types = [tf.TensorSpec(shape) for shape in shapes]

    def run(loop, *values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            scores = additive.additive_scores(*values, loop)
            loss = tf.reduce_sum(scores * scores)
        return scores, tape.gradient(loss, values)

    graph = tf.function(lambda *values: run("auto", *values), types, autograph=False)
    for batch, steps, source in [*[(3, 9, 7)] * 4, (1, 6, 20), (3, 10, 9), (2, 5, 1)]:
        shapes = (batch, steps, 6), (batch, source, 6), (6,)
        values = [tf.random.normal(shape) for shape in shapes]
        assert_close(graph(*values), run("portable", *values))


def test_counts_are_those_of_a_graph():
    """Two graphs share no count, and a graph that is made anew has none."""

    def ways():
        function = tf.function(lambda x: is_often(x, 10), [ANY])
        return lambda: bool(function(tf.zeros([2, 9, 3])))

    first, second = ways(), ways()
    assert [first() for _ in range(4)] == [False, False, True, True]
    assert [second() for _ in range(3)] == [False, False, True]


def test_what_counts_is_saved_and_compiled_whole(tmp_path):
    layer, x = rk.GRU(4), tf.random.normal((3, 7, 3))
    expected = layer(x)  # eager: ordinary ops
    module = tf.Module()
    module.layer_weights = [w.value for w in layer.weights]
    module.run = tf.function(layer.__call__, [ANY], autograph=False)
    module.run(x)
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for _ in range(4):
        assert_close(loaded.run(x), expected)
    assert_close(tf.function(layer, [ANY], jit_compile=True)(x), expected)
    assert_close(tf.map_fn(lambda x: layer(x[None])[0], x), expected)
