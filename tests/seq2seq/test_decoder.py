"""The decoder against a plain loop of its equations, and its loops against each other.

Cells, attention and decoder are spelled out in NumPy, gate by gate.
"""

from itertools import product
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.recurrence import often
from tests.cells.test_equations import esn, gru, lstm, simple_rnn
from tests.helpers import assert_close, randomize
from tests.layers.test_bad_input import assert_raises
from tests.seq2seq.test_attention import assert_saved_and_loaded
from tests.seq2seq.test_attention import in_numpy as attention_in_numpy

BATCH, STEPS, SOURCE, FEATURES, MEMORY, UNITS = 4, 5, 6, 3, 5, 4


class MinimalCell(rk.SplitCell):
    """hₜ = tanh(xₜ W + hₜ₋₁ R)"""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            (self.units, self.units), name="recurrent_kernel"
        )

    def project(self, inputs, k):
        return inputs @ k.kernel

    def recur(self, states, k):
        return states[0] @ k.recurrent_kernel

    def pointwise(self, z, r, states, k, noise=None):
        h = keras.ops.tanh(z + r)
        return h, [h]


CELLS = {  # class, arguments, the step in NumPy
    "LSTM": (rk.LSTMCell, {}, lstm),
    "LSTM-peephole": (rk.LSTMCell, {"peephole": True}, lstm),
    "LSTM-project": (rk.LSTMCell, {"projection_units": 3, "peephole": True}, lstm),
    "LSTM-norm": (rk.LSTMCell, {"layer_norm": True, "zoneout": (0.1, 0.3)}, lstm),
    "GRU": (rk.GRUCell, {"zoneout": 0.2}, gru),
    "GRU-before": (rk.GRUCell, {"reset_after": False}, gru),
    "SimpleRNN": (rk.SimpleRNNCell, {"activation": "softsign"}, simple_rnn),
    "ESN": (rk.ESNCell, {"leak_rate": 0.3, "bias_scaling": 1.0, "seed": 1}, esn),
    "Minimal": (MinimalCell, {}, simple_rnn),
}
STACKS = [*CELLS, "LSTM GRU", "Minimal LSTM-project ESN"]
ATTENTIONS = {  # from the size of the query
    "bahdanau": lambda size, **own: rk.BahdanauAttention(5, normalize=True, **own),
    "luong": lambda size, **own: rk.LuongAttention(size, "general", **own),
    "local": lambda size, **own: rk.LuongAttention(6, "concat", local_window=2, **own),
    "none": lambda size, **own: None,
}
ALL = {"return_state": True, "return_attention": True}
LENGTHS, SOURCE_LENGTHS = [STEPS, 0, 2, 4], [SOURCE, 4, 0, 1]


def make(stack="LSTM", attention="luong", rng=None, noise=None, **flags):
    """A decoder, with random weights where there is an `rng`.

    Args:
        noise: dict, more arguments of the cells.
    """
    own = {name: flags[name] for name in ("dtype",) if name in flags}
    given = [CELLS[name][:2] for name in stack.split()]
    cells = [cls(UNITS, **arguments | (noise or {}), **own) for cls, arguments in given]
    of_attention = ATTENTIONS[attention](cells[-1].output_size, **own)
    if of_attention is None:
        flags["units"] = None  # It would be the size of what attention returns.
    decoder = rk.AttentionDecoder(cells, of_attention, **flags)
    if rng is not None:
        decoder.build((None, None, FEATURES), (None, None, MEMORY))
        randomize(decoder, rng)
    return decoder


def draw(decoder, rng, *, batch=BATCH, steps=STEPS, source=SOURCE):
    """What a decoder is called with, masks with a row of nothing among it."""
    dtype = decoder.compute_dtype

    def normal(*shape):
        return tf.constant(rng.normal(size=shape), dtype)

    given = {
        "sequences": normal(batch, steps, FEATURES),
        "initial_state": [normal(batch, size) for size in decoder.cell.state_size],
        "mask": tf.constant(rng.random((batch, steps)) < 0.7),
    }
    mask = given["mask"].numpy()
    mask[1:2], mask[2:3, :2] = False, False
    given["mask"] = tf.constant(mask)
    if decoder.cell.attention:
        lengths = np.resize(SOURCE_LENGTHS, (batch, 1)).clip(max=source)
        given["memory"] = normal(batch, source, MEMORY)
        given["memory_mask"] = tf.constant(np.arange(source) < lengths)
    return given


# The equations


def fed(w, p, x, a, feeding_kernel):
    """Weights and input of the lowest cell, which is to see `x W + a Wf`."""
    if p.get("layer_norm"):  # where x W is normalized, by itself
        return w | {"bias": w["bias"] + a @ feeding_kernel}, x
    kernel = np.concatenate([w["kernel"], feeding_kernel])
    return w | {"kernel": kernel}, np.concatenate([x, a], axis=1)


def in_numpy(decoder, stack, sequences, memory=None, **given):
    """Outputs, weights and last states of a decoder by a plain loop, in float64."""
    initial_state, mask, memory_mask = map(
        given.get, ("initial_state", "mask", "memory_mask")
    )
    cell, names = decoder.cell, stack.split()
    weights = [
        {w.name: np.asarray(w, "float64") for w in each.weights}
        for each in [*cell.cells, cell]
    ]
    x = np.asarray(sequences, "float64")
    sizes = cell.state_size
    states = initial_state or [np.zeros((len(x), size)) for size in sizes]
    states = [np.asarray(state, "float64") for state in states]
    mask = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask)
    output = np.zeros((len(x), decoder.compute_output_shape(x.shape, x.shape)[0][-1]))
    seen = None if memory is None else np.zeros((len(x), memory.shape[1]))
    outputs, all_seen = [], []
    for t in range(x.shape[1]):
        h, rest, new = x[:, t], list(states), []
        for number, (name, inner) in enumerate(zip(names, cell.cells, strict=True)):
            _, p, step = CELLS[name]
            w, p = weights[number], {"units": UNITS, **p}
            if not number and cell.input_feeding:
                w, h = fed(w, p, h, states[-1], weights[-1]["feeding_kernel"])
            own = [rest.pop(0) for _ in tf.nest.flatten(inner.state_size)]
            own = step(w, p, h, *own)
            h, new = own[0], new + own
        on = mask[:, t, None]
        if memory is not None:
            both = attention_in_numpy(cell.attention, h[:, None], memory, memory_mask)
            context, now = (each[:, 0] for each in both)
            seen = np.where(on, now, seen)
            h = np.tanh(np.hstack([context, h]) @ weights[-1]["output_kernel"])
            new += [h] if cell.input_feeding else []
        output = np.where(on, h, output)
        states = [np.where(on, *pair) for pair in zip(new, states, strict=True)]
        outputs.append(output)
        all_seen.append(seen)
    if memory is None:
        return [np.stack(outputs, 1), *states]
    return [np.stack(outputs, 1), np.stack(all_seen, 1), *states]


EQUATIONS = [
    *product(STACKS, ["bahdanau", "luong"], [True, False]),
    *product(["LSTM", "Minimal LSTM-project ESN"], ["local"], [True, False]),
    *product(STACKS, ["none"], [False]),
]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("stack", "attention", "feeding"), EQUATIONS)
def test_the_decoder_is_its_equations(stack, attention, feeding, rng):
    flags = {"input_feeding": feeding, "return_state": True, "dtype": "float64"}
    looks = attention != "none"
    decoder = make(stack, attention, rng, return_attention=looks, units=3, **flags)
    given = draw(decoder, rng)
    expected = in_numpy(decoder, stack, **given)
    assert_close(decoder(**given), expected, "float64")
    for name in ("mask", "memory_mask", "initial_state"):
        given.pop(name, None)
    expected = in_numpy(decoder, stack, **given)
    assert_close(decoder(**given), expected, "float64")
    decoder.return_sequences = False
    expected[: 1 + looks] = [each[:, -1] for each in expected[: 1 + looks]]
    assert_close(decoder(**given), expected, "float64")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("loop", ["portable", "fast"])
@pytest.mark.parametrize("feeding", [True, False], ids=["feeding", "apart"])
def test_masked_steps_hold_or_give_zeros_and_either_way_may_be_run(feeding, loop, rng):
    flags = {"input_feeding": feeding, "dtype": "float64", "loop": loop} | ALL
    made = make("GRU", "luong", rng, **flags)
    given = draw(made, rng)
    cases = [*product([True, False], repeat=3)]
    for whole, zero, back in cases if loop == "portable" else cases[1:6:2]:
        more = {"return_sequences": whole, "zero_output_for_mask": zero}
        decoder = make("GRU", "luong", rng, go_backwards=back, **flags, **more)
        decoder.set_weights(made.get_weights())
        ordered = dict(given)
        if back:
            for name in ("sequences", "mask"):
                ordered[name] = given[name][:, ::-1]
        expected = in_numpy(made, "GRU", **ordered)
        if zero:
            on = np.asarray(ordered["mask"])[..., None]
            expected[:2] = [each * on for each in expected[:2]]
        if not whole:
            expected[:2] = [each[:, -1] for each in expected[:2]]
        assert_close(decoder(**given), expected, "float64")


def test_lengths_stand_for_masks_and_are_handed_on(rng):
    decoder = make("LSTM GRU", "bahdanau", rng, **ALL)
    given = draw(decoder, rng)
    given |= {
        "mask": np.arange(STEPS) < np.array(LENGTHS)[:, None],
        "memory_mask": np.arange(SOURCE) < np.array(SOURCE_LENGTHS)[:, None],
    }
    expected = in_numpy(decoder, "LSTM GRU", **given)
    masks = {name: given.pop(name) for name in ("mask", "memory_mask")}
    lengths = np.array(LENGTHS), np.array(SOURCE_LENGTHS)
    outputs = decoder(**given, lengths=lengths[0], memory_lengths=lengths[1])
    assert_close(outputs, expected)
    np.testing.assert_array_equal(outputs[0]._keras_mask, masks["mask"])
    assert [getattr(y, "_keras_mask", None) for y in outputs[1:]] == [None] * 5
    assert decoder.compute_mask(None, 1) == [1, *[None] * 5]
    carried = given | {"sequences": tf.identity(given["sequences"])}
    carried["memory"] = tf.identity(given["memory"])
    carried["sequences"]._keras_mask = tf.constant(masks["mask"])
    carried["memory"]._keras_mask = tf.constant(masks["memory_mask"])
    outputs = decoder(**carried)
    assert_close(outputs, expected)
    np.testing.assert_array_equal(outputs[0]._keras_mask, masks["mask"])


@pytest.mark.parametrize("feeding", [True, False], ids=["feeding", "apart"])
@pytest.mark.parametrize("stack", ["LSTM GRU", "ESN", "Minimal"])
@pytest.mark.parametrize("attention", ["luong", "none"])
def test_single_steps_add_up_to_the_sequence(stack, attention, feeding, rng):
    looks = attention != "none"
    flags = {"input_feeding": feeding, "return_attention": looks, "return_state": True}
    decoder = make(stack, attention, rng, **flags)
    cell, given = decoder.cell, draw(decoder, rng)
    del given["mask"]
    rows = cell.memory_constants(given.get("memory"), given.get("memory_mask"))
    k = SimpleNamespace(**vars(cell.constants()) | rows)
    states, outputs, seen = given["initial_state"], [], []
    for t in range(STEPS):
        a, weights, states = cell.decode(given["sequences"][:, t], states, k)
        outputs.append(a)
        seen.append(weights)
    seen = [np.stack(seen, 1)] if looks else []
    assert looks or weights is None
    assert_close([np.stack(outputs, 1), *seen, *states], decoder(**given))


def test_a_may_be_given_or_begins_as_zeros(rng):
    decoder = make("GRU", "luong", rng, return_state=True)
    given = draw(decoder, rng)
    h, a = given.pop("initial_state")
    expected = decoder(**given, initial_state=[h, 0 * a])
    for left_out in ([h], h):
        assert_close(decoder(**given, initial_state=left_out), expected)
    outputs, *_ = decoder(**given, initial_state=[h, a])
    assert np.abs(outputs[0] - expected[0][0]).max() > 1e-3
    one_row = decoder(**given, initial_state=[h[:1], a[:1]])
    rows = [np.repeat(state[:1], BATCH, 0) for state in (h, a)]
    assert_close(one_row, decoder(**given, initial_state=rows))


def test_states_are_kept_between_calls_if_asked_alone(rng):
    decoder = make("LSTM", "luong", rng)
    given = draw(decoder, rng)
    memory = {name: given[name] for name in ("memory", "memory_mask")}
    x = given["sequences"]
    whole = decoder(x, **memory)
    assert not decoder.stateful
    assert_close(decoder(x, **memory), whole)
    keeping = make("LSTM", "luong", stateful=True)
    keeping.build(x.shape, memory["memory"].shape)
    keeping.set_weights(decoder.get_weights())
    for _ in range(2):
        parts = [keeping(part, **memory) for part in (x[:, :2], x[:, 2:])]
        assert_close(np.concatenate(parts, 1), whole)
        keeping.reset_state()


# The loops


@pytest.fixture
def two_shards(monkeypatch):
    """The fast loop splits a batch as it would on two cores."""
    name = "get_intra_op_parallelism_threads"
    monkeypatch.setattr(tf.config.threading, name, lambda: 2)


def results(decoder, given, **call):
    """Outputs, and gradients of their weighted sum by all that is given."""
    inputs = [each for each in tf.nest.flatten(given) if each.dtype.is_floating]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs, loss = decoder(**given, **call), 0
        for y in tf.nest.flatten(outputs):
            weights = tf.cos(tf.range(tf.cast(tf.size(y), "float64")))
            loss += tf.reduce_sum(tf.cast(weights, y.dtype) * tf.reshape(y, [-1]))
    sources = [*inputs, *(w.value for w in decoder.trainable_variables)]
    return outputs, tape.gradient(loss, sources, unconnected_gradients="zero")


def unknown(value):
    """The type of a tensor of which the last size alone is known, if it is a float."""
    last = value.shape[-1] if value.dtype.is_floating else None
    return tf.TensorSpec([*[None] * (value.shape.rank - 1), last], value.dtype)


def in_mode(mode, decoder, given, **call):
    """`results`, eager, in a graph, in one of unknown shapes, or in that under XLA."""
    if mode == "eager":
        return results(decoder, given, **call)
    types = None if mode == "graph" else [tf.nest.map_structure(unknown, given)]
    run = tf.function(
        lambda given: results(decoder, given, **call),
        types,
        autograph=False,
        jit_compile=mode == "xla",
    )
    return run(given)


def pair(*args, rng, **arguments):
    """The decoder with the fast and with the portable loop, of the same weights."""
    fast = make(*args, rng=rng, loop="fast", **arguments)
    portable = make(*args, rng=rng, loop="portable", **arguments)
    fast.set_weights(portable.get_weights())
    return fast, portable


LOOPS = [
    ("LSTM-norm", "bahdanau", {"dropout": 0.3, "seed": 3}),
    ("GRU-before", "local", {"zoneout": 0.3, "seed": 3}),
    ("SimpleRNN", "bahdanau", {"dropout": 0.3, "seed": 3}),
    ("ESN", "luong", {"noise": 0.3}),
    ("Minimal", "luong", {}),
    ("LSTM GRU", "luong", {"dropout": 0.3, "zoneout": 0.2, "seed": 3}),
    ("Minimal LSTM-project ESN", "bahdanau", {}),
    ("GRU LSTM", "none", {"recurrent_dropout": 0.3, "seed": 3}),
    ("LSTM-project", "local", {"zoneout": (0.3, 0.2), "seed": 3}),
    ("GRU", "luong", {"dropout": 0.3, "recurrent_dropout": 0.4, "seed": 3}),
]
SLOW = pytest.mark.slow
SEEDED = [
    pytest.param(number, seed, marks=[SLOW] if seed or number > 3 else [])
    for number, seed in product(range(len(LOOPS)), range(9))
]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("number", "seed"), SEEDED)
def test_outputs_states_and_gradients_are_equal(number, seed, two_shards):
    stack, attention, noise = LOOPS[number]
    rng = np.random.default_rng([number, seed])
    choose = lambda *options: options[rng.integers(len(options))]  # noqa: E731
    looks = attention != "none"
    flags = {
        "input_feeding": (number + seed) % 3 > 0,
        "return_attention": looks and choose(True, False),
        "return_state": choose(True, False),
        "return_sequences": choose(True, True, False),
        "units": choose(None, 3),
        "dtype": ("float64", "float32")[(number // 2 + seed) % 2],
    }
    fast, portable = pair(stack, attention, rng=rng, noise=noise, **flags)
    sizes = {"batch": choose(1, 2, 3), "steps": choose(1, 3, 4), "source": choose(1, 4)}
    given = draw(fast, rng, **sizes)
    for name in ("initial_state", "mask", "memory_mask"):
        if choose(True, False, False):
            given.pop(name, None)
    training = choose(True, True, False) or not seed
    mode = ("dynamic", "eager", "graph", "xla")[(number + seed) % 4]
    # XLA draws random numbers of its own.
    plain = "xla" if mode == "xla" and training and noise else "eager"
    expected = in_mode(plain, portable, given, training=training)
    got = in_mode(mode, fast, given, training=training)
    assert_close(got, expected, flags["dtype"])
    assert all(np.isfinite(each).all() for each in tf.nest.flatten(got))


def test_one_graph_serves_all_shapes(rng, two_shards):
    fast, portable = pair("SimpleRNN", "luong", rng=rng, **ALL)
    types = tf.nest.map_structure(unknown, draw(fast, rng))
    types = [{name: types[name] for name in types if name != "memory_mask"}]
    runs = [
        tf.function(lambda given, by=each: results(by, given), types, autograph=False)
        for each in (fast, portable)
    ]
    for batch, steps, source in [(4, 5, 6), (1, 4, 0), (0, 5, 9)]:
        given = draw(fast, rng, batch=batch, steps=steps, source=source)
        del given["memory_mask"]
        assert_close(*(run(given) for run in runs))
    assert [run.experimental_get_tracing_count() for run in runs] == [1, 1]


@pytest.mark.parametrize("feeding", [True, False])
def test_loop_says_whether_anything_is_compiled(feeding, rng, monkeypatch):
    """Also what follows the loop: the scores of all steps, without input feeding."""
    monkeypatch.setattr(often, "LARGE", 0)  # "auto" compiles at once, too

    def compiled(loop):
        decoder = make("GRU", "bahdanau", rng, input_feeding=feeding, loop=loop)
        given = draw(decoder, rng)
        trace = tf.function(lambda: results(decoder, given), autograph=False)
        library = trace.get_concrete_function().graph.as_graph_def().library
        return [f for f in library.function if f.attr["_XlaMustCompile"].b]

    assert not compiled("portable")
    assert compiled("auto")
    assert len(compiled("fast")) == len(compiled("auto"))


@pytest.mark.parametrize("noisy", [0, 1], ids=["lower", "upper"])
@pytest.mark.parametrize("kind", ["dropout", "recurrent_dropout", "zoneout"])
def test_each_cell_draws_noise_of_its_own_in_training_alone(kind, noisy, rng):
    def build(rate, seed=0):
        cells = [rk.LSTMCell(UNITS), rk.GRUCell(UNITS)]
        cells[noisy] = type(cells[noisy])(UNITS, seed=seed, **{kind: rate})
        decoder = rk.AttentionDecoder(cells, rk.LuongAttention(UNITS, "general"))
        decoder.build((None, None, FEATURES), (None, None, MEMORY))
        decoder.set_weights(weights)
        return decoder

    weights = make("LSTM GRU", "luong", rng).get_weights()
    given = draw(build(0.0), rng, batch=9)
    still = build(0.5)(**given)
    if kind != "zoneout":  # which has its expectation outside training
        assert_close(still, build(0.0)(**given, training=True))
    y, again, other = (build(0.5, n)(**given, training=True) for n in (0, 0, 1))
    np.testing.assert_array_equal(y, again)
    assert np.abs(y - still).max() > 0.01
    assert np.abs(y - other).max() > 0.01


@pytest.mark.one_in(2)
@pytest.mark.parametrize("loop", ["fast", "portable"])
@pytest.mark.parametrize("feeding", [True, False], ids=["feeding", "apart"])
def test_what_a_mask_leaves_out_has_no_effect(feeding, loop, rng):
    decoder = make("LSTM", "luong", rng, input_feeding=feeding, loop=loop, **ALL)
    given = draw(decoder, rng)
    expected, slopes = in_mode("graph", decoder, given)
    out = ~given["memory_mask"].numpy()
    other = given | {"memory": given["memory"] + 9.0 * out[..., None]}
    assert_close(in_mode("graph", decoder, other)[0], expected)
    shapes = [slope.shape for slope in slopes]
    by_memory = slopes[shapes.index(given["memory"].shape)]
    assert np.any(by_memory)
    assert not np.any(np.asarray(by_memory)[out])
    assert all(np.isfinite(slope).all() for slope in slopes)
    nothing = given | {"memory": 0 * given["memory"]}
    assert_close([y[2] for y in decoder(**nothing)], [y[2] for y in expected])
    assert not np.any(expected[1][2])


@pytest.mark.parametrize("feeding", [True, False], ids=["feeding", "apart"])
def test_unrolled_and_compiled_whole_it_gives_the_same(feeding, rng):
    stack, flags = "LSTM GRU", {"input_feeding": feeding, **ALL}
    decoder = make(stack, "local", rng, **flags)
    given = draw(decoder, rng)
    expected = decoder(**given)
    assert_close(tf.function(decoder, jit_compile=True)(**given), expected)
    unrolled = make(stack, "local", rng, unroll=True, **flags)
    unrolled.set_weights(decoder.get_weights())
    assert_close(unrolled(**given), expected)
    graph = tf.function(unrolled).get_concrete_function(**given).graph
    assert not [op for op in graph.get_operations() if "While" in op.type]


@pytest.mark.parametrize("loop", ["fast", "portable"])
def test_narrow_floats_stay_near(loop, rng):
    narrow = make("GRU LSTM", "local", rng, dtype="mixed_float16", loop=loop, **ALL)
    wide = make("GRU LSTM", "local", rng, **ALL)
    wide.set_weights(narrow.get_weights())
    given = draw(wide, rng)
    got = tf.function(lambda given: narrow(**given))(given)
    assert {y.dtype for y in got} == {tf.float16}
    for ours, theirs in zip(got, wide(**given), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-2)


@pytest.mark.parametrize("loop", ["fast", "portable"])
@pytest.mark.parametrize("feeding", [True, False], ids=["feeding", "apart"])
def test_no_source_and_no_step(feeding, loop, rng):
    decoder = make("GRU", "luong", rng, input_feeding=feeding, loop=loop, **ALL)
    given = draw(decoder, rng, source=0)
    assert_close(decoder(**given), in_numpy(decoder, "GRU", **given))
    decoder.return_sequences = False
    given = draw(decoder, rng, steps=0)
    for name in ("mask", "memory_mask"):
        output, weights, *states = decoder(**given)
        assert not np.any(output)
        assert not np.any(weights)
        assert_close(states, given["initial_state"])
        del given[name]


# Structures


@pytest.mark.parametrize("attention", ["bahdanau", "none"])
@pytest.mark.parametrize("feeding", [True, False], ids=["feeding", "apart"])
def test_symbolic_shapes_are_those_of_tensors(feeding, attention, rng):
    looks = attention != "none"
    for whole, state, seen in product([True, False], repeat=3):
        if seen and not looks:
            continue
        flags = {"return_sequences": whole, "return_state": state, "units": 3}
        flags |= {"return_attention": seen, "input_feeding": feeding}
        decoder = make("LSTM GRU", attention, **flags)
        inputs = [keras.Input((None, FEATURES)), keras.Input((None, MEMORY))]
        inputs = inputs if looks else inputs[:1]
        symbolic = decoder(*inputs)

        def shapes(batch, steps, source, whole=whole, state=state, seen=seen):
            steps = [steps] if whole else []
            sizes = [UNITS] * 3 + [3] * (feeding and looks)
            return [
                (batch, *steps, 3 if looks else UNITS),
                *([(batch, *steps, source)] if seen else []),
                *([(batch, size) for size in sizes] if state else []),
            ]

        given = draw(decoder, rng)
        given = [given["sequences"], *([given["memory"]] if looks else [])]
        eager = decoder(*given)
        for outputs, sizes in [
            (symbolic, (None, None, None)),
            (eager, (BATCH, STEPS, SOURCE)),
        ]:
            assert isinstance(outputs, tuple) == (state or seen)
            found = [tuple(y.shape) for y in tf.nest.flatten(outputs)]
            assert found == shapes(*sizes)
        assert_close(keras.Model(inputs, symbolic)(given), eager)


# In models


def copier(feeding=True, attention="bahdanau", seed=0, **flags):
    """Tokens to the same tokens, padding left out, by teacher forcing."""
    keras.utils.set_random_seed(seed)
    source, target = (keras.Input((None,), dtype="int32") for _ in range(2))
    memory = keras.layers.Embedding(9, 8, mask_zero=True)(source)
    encoder = rk.GRU(16, return_sequences=True, return_state=True, loop="portable")
    memory, state = encoder(memory)
    x = keras.layers.Embedding(10, 8, mask_zero=True)(target)
    decoder = rk.AttentionDecoder(
        rk.GRUCell(16),
        ATTENTIONS[attention](16),
        input_feeding=feeding,
        **{"return_attention": True} | flags,
    )
    outputs, weights = decoder(x, memory, initial_state=[state])
    logits = keras.layers.Dense(9, name="logits")(outputs)
    return keras.Model([source, target], [logits, weights])


def sentences(rng, rows, steps=7):
    """Source, target before each step, and target; 9 is the first of all tokens."""
    source = rng.integers(1, 9, (rows, steps))
    source *= np.arange(steps) < rng.integers(3, steps + 1, (rows, 1))
    before = np.concatenate([np.full((rows, 1), 9), source[:, :-1]], 1)
    return source, np.where(source > 0, before, 0), source


@pytest.mark.parametrize("feeding", [True, pytest.param(False, marks=SLOW)])
def test_a_model_learns_to_copy(feeding, rng):
    source, before, target = sentences(rng, 256)
    model = copier(feeding)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.03), [loss, None])
    first, options = model.get_weights(), {"batch_size": 32, "verbose": 0}
    losses = model.fit([source, before], target, epochs=8, **options).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    for old, new in zip(first, model.get_weights(), strict=True):
        assert np.any(old != new)
    logits, weights = model.predict([source, before], verbose=0)
    assert_close([logits, weights], model([source, before]))
    there = np.asarray(source) > 0
    np.testing.assert_array_equal(weights[there].sum(-1) > 0, True)
    assert not np.any(weights * ~there[:, None])


def test_a_fresh_process_loads_the_same_models(tmp_path, rng):
    source, before, _ = sentences(rng, 5)
    inputs = keras.Input((None, FEATURES)), keras.Input((None, MEMORY))
    stack = make("LSTM-norm GRU-before ESN", "local", units=3, **ALL, loop="portable")
    models = {
        "copier": (copier(), [source, before]),
        "apart": (copier(False, "luong"), [source, before]),
        "stack": (
            keras.Model(inputs, stack(*inputs)),
            [rng.normal(size=(3, 4, n)).astype("float32") for n in (FEATURES, MEMORY)],
        ),
    }
    for model, _ in models.values():
        randomize(model, rng)
    assert_saved_and_loaded(models, tmp_path)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_configuration_makes_the_same_decoder(attention, built, rng):
    flags = {"return_state": True, "return_sequences": False, "loop": "portable"}
    flags |= {"name": "mine", "dtype": "float64", "go_backwards": True}
    flags |= {"units": None if attention == "none" else 3}
    flags |= {"input_feeding": False, "return_attention": attention != "none"}
    stack = "LSTM-norm GRU"
    decoder = make(stack, attention, rng if built else None, **flags)
    config = decoder.get_config()
    assert "cell" not in config
    looks = attention != "none"
    assert {n: config[n] for n in flags if n != "dtype"} == {
        n: value for n, value in flags.items() if n != "dtype"
    }
    other = rk.AttentionDecoder.from_config(config)
    assert other.get_config() == config
    assert [type(cell) for cell in other.cell.cells] == [rk.LSTMCell, rk.GRUCell]
    given = draw(decoder, rng)
    decoder(**given), other(**given)
    other.set_weights(decoder.get_weights())
    assert_close(other(**given), decoder(**given), "float64")
    assert looks == (other.cell.attention is not None)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(decoder)
    )
    again.set_weights(decoder.get_weights())
    assert_close(again(**given), decoder(**given), "float64")


# Wrong arguments


def decoder_of(cells=None, attention=None, **arguments):
    cells = rk.GRUCell(4) if cells is None else cells
    return rk.AttentionDecoder(cells, attention, **arguments)


ONE = rk.GRUCell(4)
WRONG = [
    (
        lambda: decoder_of(keras.layers.LSTMCell(4)),
        "`cells` must be cells of `keras_rnnkit`, or of .*; received <LSTMCell",
    ),
    (lambda: decoder_of([ONE, ONE]), r"`cells` must be different cells; received \["),
    (lambda: decoder_of([]), r"`cells` must be different cells; received \[\]"),
    (lambda: decoder_of("lstm"), "`cells` must be cells of .*; received lstm"),
    (
        lambda: decoder_of(attention="luong"),
        "`attention` must be a layer such as .*, or None; received luong",
    ),
    (
        lambda: decoder_of(attention=keras.layers.Attention()),
        "`attention` must be a layer such as .*; received <Attention",
    ),
    (
        lambda: decoder_of(return_attention=True),
        "`return_attention=True` needs an `attention`; received None",
    ),
    (
        lambda: decoder_of(return_attention="all"),
        "`return_attention` must be one of True, False; received 'all'",
    ),
    (lambda: decoder_of(units=0), "`units` must be a positive integer; received 0"),
    (
        lambda: decoder_of(units=3),
        "`units` is the output size of `attention`; received 3 without",
    ),
    (
        lambda: decoder_of(input_feeding=2),
        "`input_feeding` must be one of True, False; received 2",
    ),
    (lambda: decoder_of(loop="turbo"), "`loop` must be one of .*; received 'turbo'"),
    (
        lambda: decoder_of(attention=rk.BahdanauAttention(4), dtype="float64"),
        "must compute in the `dtype` of the decoder, float64; received float32",
    ),
]


@pytest.mark.parametrize(("make_it", "pattern"), WRONG)
def test_a_bad_argument_is_named_with_its_value(make_it, pattern):
    assert_raises(pattern, make_it)


MEMORIES = [
    (None, "received none"),
    ((BATCH, MEMORY), r"received shape \(4, 5\)"),
    ((BATCH, SOURCE, MEMORY, 1), r"received shape \(4, 6, 5, 1\)"),
    ((3, SOURCE, MEMORY), r"with batch 4; received shape \(3, 6, 5\)"),
]


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(("shape", "pattern"), MEMORIES)
def test_a_memory_that_does_not_fit_is_told(shape, pattern, symbolic, built, rng):
    decoder = make(rng=rng if built else None, name="mine")
    pattern = rf"`memory` of `mine` must have shape \(batch, .*{pattern}"

    def tensor(shape):
        if symbolic and shape is not None:
            return keras.Input(batch_shape=shape)
        return None if shape is None else np.zeros(shape, "float32")

    x = tensor((BATCH, STEPS, FEATURES))
    assert_raises(pattern, decoder, x, tensor(shape))
    assert decoder(x, tensor((BATCH, SOURCE, MEMORY))).shape == (BATCH, STEPS, UNITS)


@pytest.mark.parametrize("symbolic", [False, True])
def test_states_that_do_not_fit_are_told(symbolic, rng):
    def tensor(*shape):
        if symbolic:
            return keras.Input(batch_shape=shape)
        return np.zeros(shape, "float32")

    decoder = make("LSTM", "luong", rng, name="mine")
    x, memory = tensor(BATCH, STEPS, FEATURES), tensor(BATCH, SOURCE, MEMORY)
    half = rk.Bidirectional(rk.LSTM(4, return_sequences=True, return_state=True))
    _, *states = half(memory)
    pattern = (
        r"`initial_state` of `mine` must hold states of the sizes \[4, 4, 4\]; received"
        r" shapes \[\(4, 4\), \(4, 4\), \(4, 4\), \(4, 4\)\]: .*Dense.*bridge='dense'"
    )
    assert_raises(pattern, decoder, x, memory, initial_state=states)
    wide = [tensor(BATCH, 8), tensor(BATCH, 8)]
    pattern = r"sizes \[4, 4\]; received shapes \[\(4, 8\), \(4, 8\)\]"
    assert_raises(pattern, decoder, x, memory, initial_state=wide)
    one = [tensor(BATCH, 4)]
    assert_raises(r"sizes \[4, 4, 4\].*\[\(4, 4\)\]", decoder, x, memory, one)
    if not symbolic:
        rows = [tensor(3, 4), tensor(3, 4)]
        pattern = r"`initial_state\[0\]` of `mine` must have .*received shape \(3, 4\)"
        assert_raises(pattern, decoder, x, memory, initial_state=rows)


def test_masks_that_do_not_fit_are_told(rng):
    decoder = make("LSTM", "luong", rng, name="mine")
    given = draw(decoder, rng)
    x, memory = given["sequences"], given["memory"]
    name = decoder.cell.attention.name
    for shape in [(BATCH, STEPS), (1, SOURCE), (SOURCE,)]:
        pattern = rf"`mask` of `{name}` must have .*\(4, 6\); received shape"
        assert_raises(pattern, decoder, x, memory, memory_mask=np.ones(shape, bool))
    pattern = r"`mask` of `mine` must have shape .*\(4, 5\); received shape \(4, 6\)"
    assert_raises(pattern, decoder, x, memory, mask=given["memory_mask"])
    pattern = "`lengths` must lie between 0 and .*6; received 7 in row 2"
    lengths = np.array([1, 2, 7, 3])
    assert_raises(pattern, decoder, x, memory, memory_lengths=lengths)


def test_a_cell_runs_on_the_loop_of_the_decoder_alone(rng):
    cell = make("GRU", "luong", rng).cell
    x, states = np.ones((2, FEATURES), "float32"), cell.get_initial_state(2)
    assert_raises("cannot run without a memory: use `Att", cell, x, states)


def test_a_setting_of_an_inner_cell_that_changes_is_seen(rng):
    layer = rk.AttentionDecoder(rk.LSTMCell(4), rk.LuongAttention(4), loop="fast")
    x, memory = (rng.normal(size=(2, 6, 4)).astype("float32") for _ in range(2))
    before = layer(x, memory)
    layer.cell.cells[0].activation = keras.activations.relu
    after = layer(x, memory)
    layer.loop = "portable"
    assert not np.allclose(before, after)
    np.testing.assert_allclose(layer(x, memory), after, atol=1e-6)
