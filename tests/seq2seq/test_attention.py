"""Attention against plain loops, against Keras, and where there is nothing to see."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.helpers import TOLERANCE, assert_close, randomize
from tests.layers.test_bad_input import assert_raises

BATCH, STEPS, SOURCE, UNITS = 3, 4, 6, 4

# Keyword arguments of a kind, and the sizes of query and memory.
KINDS = {
    "bahdanau": (rk.BahdanauAttention, {}, 3, 5),
    "normalized": (rk.BahdanauAttention, {"normalize": True}, 3, 5),
    "dot": (rk.LuongAttention, {}, UNITS, UNITS),
    "general": (rk.LuongAttention, {"score": "general"}, UNITS, 5),
    "concat": (rk.LuongAttention, {"score": "concat"}, 3, 5),
    "local dot": (rk.LuongAttention, {"local_window": 2}, UNITS, UNITS),
    "local concat": (
        rk.LuongAttention,
        {"score": "concat", "local_window": 1},
        3,
        5,
    ),
}
each_kind = pytest.mark.parametrize("kind", KINDS)
each_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
PREFIX = np.arange(SOURCE) < np.array([[SOURCE], [1], [4]])
HOLES = np.array([[1, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 0], [0, 1, 1, 1, 1, 0]], bool)
NOTHING = np.array([[True] * SOURCE, [False] * SOURCE, [True] * 2 + [False] * 4])


def make(kind, rng=None, learned=False, **more):
    """A built layer, with random weights of all sorts where there is an `rng`."""
    cls, arguments, query, memory = KINDS[kind]
    layer = cls(UNITS, **arguments, **more)
    shapes = {} if learned else {"query_shape": (BATCH, query)}
    layer.build((BATCH, None, memory), **shapes)
    if rng is not None:
        randomize(layer, rng)
    return layer


def draw(kind, rng, *, steps=STEPS, source=SOURCE, dtype="float32", batch=BATCH):
    """A query, `(batch, size)` without `steps`, and a memory."""
    *_, query, memory = KINDS[kind]
    shapes = (batch, *([steps] if steps else []), query), (batch, source, memory)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


# The equations


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def additive(w, q, h, bias=0):
    return np.tanh(q @ w.get("query_kernel", np.eye(len(q))) + h + bias)


def score(w, kind, q, h):
    """Of one query and one step of the memory; `w` holds the weights by name."""
    h = h @ w["memory_kernel"] if "memory_kernel" in w else h
    if kind == "normalized":
        v = w["gain"] * w["scale"] / np.sqrt((w["scale"] ** 2).sum())
        return v @ additive(w, q, h, w["bias"])
    return w["scale"] @ additive(w, q, h) if "scale" in w else q @ h


def in_numpy(layer, query, memory, mask=None):
    """Contexts `(batch, steps, ...)` and weights by plain loops, in float64.

    Args:
        query: `(batch, steps, size)`.
    """
    w = {weight.name: np.asarray(weight, "float64") for weight in layer.weights}
    kind = "normalized" if getattr(layer, "normalize", False) else ""
    query, memory = np.asarray(query, "float64"), np.asarray(memory, "float64")
    mask = np.ones(memory.shape[:2], bool) if mask is None else np.asarray(mask)
    weights = np.zeros((*query.shape[:2], memory.shape[1]))
    for row, t in np.ndindex(*query.shape[:2]):
        q, on, bell = query[row, t], np.flatnonzero(mask[row]), 1
        if window := getattr(layer, "local_window", None):
            hidden = np.tanh(q @ w["position_kernel"])
            p = len(on) * sigmoid(w["position_scale"] @ hidden)
            on = on[(p - window <= on) & (on <= p + window)]
            bell = np.exp(-((on - p) ** 2) / (2 * (window / 2) ** 2))
        if len(on):
            scores = np.array([score(w, kind, q, memory[row, s]) for s in on])
            shares = np.exp(scores - scores.max())
            weights[row, t, on] = shares / shares.sum() * bell
    return np.einsum("bts,bsf->btf", weights, memory), weights


@each_dtype
@pytest.mark.parametrize("several", [True, False], ids=["steps", "one"])
@each_kind
def test_contexts_and_weights_are_those_of_plain_loops(kind, several, dtype, rng):
    layer = make(kind, rng, dtype=dtype)
    query, memory = draw(kind, rng, dtype=dtype)
    given = query if several else query[:, 0]
    lengths = PREFIX.sum(1)
    asked = [({}, None), ({"lengths": lengths}, PREFIX), ({"mask": NOTHING}, NOTHING)]
    if not getattr(layer, "local_window", None):
        asked += [
            ({"mask": HOLES}, HOLES),
            ({"mask": HOLES, "lengths": lengths}, HOLES & PREFIX),
        ]
    for call, mask in asked:
        expected = in_numpy(layer, query, memory, mask)
        expected = expected if several else [each[:, 0] for each in expected]
        assert_close(layer(given, memory, **call), expected, dtype)


@pytest.mark.parametrize("score", ["dot", "general", "concat"])
def test_a_learned_query_is_one_for_all_rows(score, rng):
    layer = rk.LuongAttention(UNITS, score, local_window=3)
    memory = rng.normal(size=(BATCH, SOURCE, UNITS)).astype("float32")
    layer.build(memory.shape)
    randomize(layer, rng)
    query = np.tile(np.asarray(layer.query), (BATCH, 1, 1))
    expected = [each[:, 0] for each in in_numpy(layer, query, memory, PREFIX)]
    assert_close(layer(None, memory, lengths=PREFIX.sum(1)), expected)


@pytest.mark.parametrize("mask", [None, PREFIX, HOLES], ids=["all", "prefix", "holes"])
@pytest.mark.parametrize("name", ["additive", "dot", "general"])
def test_global_attention_is_that_of_keras(name, mask, rng):
    kind = {"additive": "bahdanau"}.get(name, name)
    layer = make(kind, rng)
    query, memory = draw(kind, rng)
    w = {weight.name: np.asarray(weight) for weight in layer.weights}
    stock, projected = keras.layers.Attention(), query
    keys = memory if name == "dot" else memory @ w["memory_kernel"]
    if name == "additive":
        stock, projected = keras.layers.AdditiveAttention(), query @ w["query_kernel"]
        stock.build([(BATCH, STEPS, UNITS), (BATCH, SOURCE, UNITS)])
        stock.scale.assign(w["scale"])
    expected = stock(
        [projected, memory, keys], mask=[None, mask], return_attention_scores=True
    )
    assert_close(layer(query, memory, mask=mask), expected)


def test_a_local_window_is_a_bell_about_its_centre():
    layer = rk.LuongAttention(UNITS, local_window=2, dtype="float64")
    layer.build((2, None, UNITS), query_shape=(2, UNITS))
    layer.set_weights([0 * w for w in layer.get_weights()])  # p = n σ(0)
    memory = np.random.default_rng(0).normal(size=(2, SOURCE, UNITS))
    _, weights = layer(np.zeros((2, UNITS)), memory, lengths=np.array([6, 3]))
    bells = [
        [0, np.exp(-2), np.exp(-0.5), 1, np.exp(-0.5), np.exp(-2)],  # about 3
        [np.exp(-9 / 8), np.exp(-1 / 8), np.exp(-1 / 8), 0, 0, 0],  # about 1.5
    ]
    shares = np.array([[1 / 5], [1 / 3]])
    np.testing.assert_allclose(weights, shares * bells, rtol=1e-12)


@each_kind
def test_keys_may_be_there_already(kind, rng):
    layer = make(kind, rng)
    query, memory = draw(kind, rng)
    keys = layer.project(memory)
    got = layer(query, memory, keys=keys, lengths=PREFIX.sum(1))
    assert_close(got, layer(query, memory, lengths=PREFIX.sum(1)))


# Where there is little to see, or nothing


def gradients(layer, query, memory, **call):
    """By query, memory and weights, of a sum that hangs on all there is."""
    given = [tf.convert_to_tensor(each) for each in (query, memory)]
    sources = [*given, *(w.value for w in layer.trainable_variables)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        loss = 0
        for y in layer(*given, **call):
            weights = tf.cos(tf.range(tf.cast(tf.size(y), "float64")))
            loss += tf.reduce_sum(tf.cast(weights, y.dtype) * tf.reshape(y, [-1]))
    return loss, tape.gradient(loss, sources, unconnected_gradients="zero")


@pytest.mark.parametrize("dtype", ["float32", "float64", "mixed_float16"])
@each_kind
def test_a_row_without_a_step_that_counts_sees_nothing(kind, dtype, rng):
    layer = make(kind, rng, dtype=dtype)
    query, memory = draw(kind, rng)
    for call in ({"mask": NOTHING}, {"lengths": np.array([SOURCE, 0, 2])}):
        context, weights = layer(query, memory, **call)
        assert not np.any(context[1])
        assert not np.any(weights[1])
        assert np.any(weights[0])
        loss, slopes = gradients(layer, query, memory, **call)
        assert np.isfinite([loss, *(np.abs(slope).max() for slope in slopes)]).all()
        assert not np.any(slopes[0][1])
        assert not np.any(slopes[1][1])


@pytest.mark.parametrize("masked", [False, True])
@each_kind
def test_no_source_step_and_no_row(kind, masked, rng):
    layer = make(kind, rng)
    features = KINDS[kind][-1]
    call = tf.function(layer.__call__, autograph=False)
    for run in (layer, call):
        query, memory = draw(kind, rng, source=0)
        mask = np.ones((BATCH, 0), bool) if masked else None
        context, weights = run(query, memory, mask=mask)
        np.testing.assert_array_equal(context, np.zeros((BATCH, STEPS, features)))
        assert weights.shape == (BATCH, STEPS, 0)
        query, memory = draw(kind, rng, batch=0)
        mask = np.ones((0, SOURCE), bool) if masked else None
        context, weights = run(query, memory, mask=mask)
        assert (*context.shape, *weights.shape) == (0, STEPS, features, 0, STEPS, 6)
    _, slopes = gradients(layer, *draw(kind, rng, source=0))
    assert not any(map(np.any, slopes))


@each_kind
def test_one_source_step_is_all_that_is_seen(kind, rng):
    layer = make(kind, rng)
    query, memory = draw(kind, rng, source=1)
    assert_close(layer(query, memory), in_numpy(layer, query, memory))


@each_kind
def test_one_graph_serves_all_shapes(kind, rng):
    layer, (*_, size, features) = make(kind, rng), KINDS[kind]
    specs = [(None, None, size), (None, None, features)]
    specs = [*map(tf.TensorSpec, specs), tf.TensorSpec((None, None), "bool")]
    run = tf.function(lambda q, m, mask: layer(q, m, mask=mask), specs, autograph=False)
    masks = {SOURCE: PREFIX, 3: PREFIX[:, :3], 0: PREFIX[:, :0]}
    for source, mask in masks.items():
        for rows, steps in [(3, 4), (1, 1), (0, 2), (2, 0)]:
            if not (rows and steps):
                continue
            query, memory = draw(kind, rng, source=source, steps=steps, batch=rows)
            got = run(query, memory, mask[:rows])
            assert_close(got, in_numpy(layer, query, memory, mask[:rows]))
    query, memory = draw(kind, rng, batch=0)
    assert run(query, memory, PREFIX[:0])[0].shape == (0, STEPS, features)
    assert run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("several", [True, False], ids=["steps", "one"])
@each_kind
def test_symbolic_shapes_are_those_of_tensors(kind, several, rng):
    *_, size, features = KINDS[kind]
    steps = [STEPS] if several else []
    inputs = keras.Input((*steps, size)), keras.Input((None, features))
    layer = KINDS[kind][0](UNITS, **KINDS[kind][1])
    context, weights = layer(*inputs)
    assert context.shape == (None, *steps, features)
    assert weights.shape == (None, *steps, None)
    model = keras.Model(inputs, [context, weights])
    given = draw(kind, rng, steps=steps and STEPS)
    got, expected = model(given), layer(*given)
    assert [y.shape for y in got] == [
        (BATCH, *steps, features),
        (BATCH, *steps, SOURCE),
    ]
    assert_close(got, expected)


@each_kind
def test_narrow_floats_stay_near(kind, rng):
    layer, wide = make(kind, rng, dtype="mixed_float16"), make(kind)
    wide.set_weights(layer.get_weights())
    query, memory = draw(kind, rng)
    got = layer(query, memory, lengths=PREFIX.sum(1))
    assert {y.dtype for y in got} == {tf.float16}
    for ours, theirs in zip(got, wide(query, memory, mask=PREFIX), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-2)


def test_a_window_far_into_a_memory_is_whole_in_narrow_floats(rng):
    narrow, exact = (
        make("local dot", dtype=dtype) for dtype in ("mixed_float16", "float64")
    )
    randomize(narrow, rng)
    exact.set_weights(narrow.get_weights())
    query, memory = draw("local dot", rng, source=5000, steps=40)
    seen = [np.asarray(layer(query, memory / 9)[1]) > 0 for layer in (narrow, exact)]
    for each in seen:
        assert set(each.sum(-1).ravel()) <= {4, 5}  # steps within 2 of the centre
    starts = [each.argmax(-1) for each in seen]
    assert np.max(starts) > 2048
    assert abs(starts[0] - starts[1]).max() < 8


# Gradients


@pytest.mark.parametrize("mask", [None, NOTHING], ids=["all", "masked"])
@each_kind
def test_gradients_are_those_of_small_differences(kind, mask, rng):
    layer = make(kind, rng, dtype="float64")
    given = draw(kind, rng, dtype="float64")
    _, slopes = gradients(layer, *given, mask=mask)
    values, step = [*given, *layer.get_weights()], 1e-6

    def loss_at(values):
        layer.set_weights(values[2:])
        return float(gradients(layer, *values[:2], mask=mask)[0])

    for number, slope in enumerate(slopes):
        away = rng.normal(size=values[number].shape)
        ends = []
        for sign in (1, -1):
            moved = list(values)
            moved[number] = moved[number] + sign * step * away
            ends.append(loss_at(moved))
        expected = (ends[0] - ends[1]) / (2 * step)
        got = np.sum(slope * away)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-8)


# In models


def pooling(**arguments):
    """Tokens to a number, by attention pooling over what is no padding."""
    tokens = keras.Input((None,), dtype="int32")
    memory = keras.layers.Embedding(9, 5, mask_zero=True)(tokens)
    context, weights = rk.BahdanauAttention(UNITS, **arguments)(None, memory)
    return keras.Model(tokens, [keras.layers.Dense(1)(context), weights])


def reading(**arguments):
    """A sequence of queries that read from a masked memory."""
    query, memory = keras.Input((None, 3)), keras.Input((SOURCE, 5))
    masked = keras.layers.Masking()(memory)
    attention = rk.LuongAttention(UNITS, "concat", local_window=4, **arguments)
    return keras.Model([query, memory], attention(query, masked))


TOKENS = np.array([[3, 1, 4, 1, 5, 8], [2, 6, 0, 0, 0, 0], [5, 3, 5, 8, 0, 0]])


def test_the_mask_that_a_memory_carries_is_heeded(rng):
    mask = TOKENS != 0
    model = pooling()
    randomize(model, rng)
    embedding, attention = model.layers[1:3]
    for given in (TOKENS, TOKENS[1:2, :2]):
        _, weights = model(given)
        vectors = np.asarray(embedding(given))
        expected = attention(None, vectors, mask=given != 0)[1]
        assert_close(weights, expected)
        np.testing.assert_array_equal(np.asarray(weights) > 0, given != 0)

    model = reading()
    randomize(model, rng)
    query, memory = draw("concat", rng)
    memory[~mask] = 0
    attention = model.layers[-1]
    assert_close(model([query, memory]), in_numpy(attention, query, memory, mask))
    both = attention(query, keras.layers.Masking()(memory), lengths=np.array([2, 1, 6]))
    mask = mask & (np.arange(SOURCE) < np.array([[2], [1], [6]]))
    assert_close(both, in_numpy(attention, query, memory, mask))


def test_attention_pooling_learns_which_token_counts(rng):
    tokens = rng.integers(1, 8, (256, 10))
    numbers = rng.normal(size=256)
    tokens[np.arange(256), rng.integers(0, 10, 256)] = 8
    tokens[:, 7:] *= rng.random((256, 1)) < 0.5
    numbers = (tokens == 8).any(1) * 2.0 - 1
    model = pooling()
    model.compile(keras.optimizers.Adam(0.03), ["mse", None])
    before = model.get_weights()
    history = model.fit(tokens, numbers, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.2 * history[0]
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.any(old != new)


CHILD = """
import sys
from pathlib import Path
import keras
import keras_rnnkit
import numpy as np

for file in sorted(Path(sys.argv[1]).glob("*.keras")):
    given = np.load(file.with_suffix(".npz"))
    inputs = [given[name] for name in given.files if name.startswith("x")]
    outputs = keras.models.load_model(file)(inputs[0] if len(inputs) == 1 else inputs)
    for number, output in enumerate(keras.tree.flatten(outputs)):
        np.testing.assert_array_equal(output, given[f"y{number}"])
    print(file.stem)
"""


def assert_saved_and_loaded(models, folder):
    """Models give the same in a fresh process.

    Args:
        models: dict of pairs, a model and the list of its inputs, by name.
    """
    for name, (model, inputs) in models.items():
        outputs = keras.tree.flatten(model(inputs[0] if len(inputs) == 1 else inputs))
        arrays = {f"x{number}": each for number, each in enumerate(inputs)}
        arrays |= {f"y{number}": y.numpy() for number, y in enumerate(outputs)}
        model.save(folder / f"{name}.keras")
        np.savez(folder / f"{name}.npz", **arrays)
    run = [sys.executable, "-c", CHILD, folder]
    child = subprocess.run(run, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == sorted(models)


def test_a_fresh_process_loads_the_same_models(tmp_path, rng):
    models = {
        "pooling": (pooling(normalize=True), [TOKENS]),
        "reading": (reading(), draw("concat", rng)),
    }
    for model, _ in models.values():
        randomize(model, rng)
    assert_saved_and_loaded(models, tmp_path)


@pytest.mark.parametrize("learned", [False, True], ids=["given", "learned"])
@each_kind
def test_a_configuration_makes_the_same_layer(kind, learned, rng):
    layer = make(kind, rng, learned, name="mine", dtype="float64")
    config = layer.get_config()
    assert config["name"] == "mine"
    assert config["units"] == UNITS
    for name, value in KINDS[kind][1].items():
        assert config[name] == value
    other = type(layer).from_config(config)
    assert other.get_config() == config
    query, memory = draw(kind, rng, dtype="float64")
    query = None if learned else query
    other(query, memory)
    assert [w.name for w in other.weights] == [w.name for w in layer.weights]
    other.set_weights(layer.get_weights())
    assert_close(other(query, memory), layer(query, memory), "float64")


# Wrong arguments

WRONG = [
    (lambda: rk.BahdanauAttention(0), "`units` must be a positive integer; received 0"),
    (lambda: rk.LuongAttention(2.5), "`units` must be .*; received 2.5"),
    (
        lambda: rk.BahdanauAttention(4, normalize="yes"),
        "`normalize` must be one of True, False; received 'yes'",
    ),
    (
        lambda: rk.LuongAttention(4, "cosine"),
        "`score` must be one of 'dot', 'general', 'concat'; received 'cosine'",
    ),
    (
        lambda: rk.LuongAttention(4, local_window=0),
        "`local_window` must be a positive integer; received 0",
    ),
    (
        lambda: rk.LuongAttention(4, local_window=1.5),
        "`local_window` must be a positive integer; received 1.5",
    ),
]
SHAPES = [  # kind, query, memory, message
    ("bahdanau", (3,), (3, 6, 5), r"`query` of `it` .*received shape \(3,\)"),
    ("bahdanau", (3, 2, 2, 4), (3, 6, 5), r"`query` of `it` .*\(batch, steps, size\)"),
    ("bahdanau", (3, 4), (3, 5), r"`memory` of `it` .*received shape \(3, 5\)"),
    ("concat", (3, 4), (3, 6, 5, 1), r"`memory` of `it` .*\(3, 6, 5, 1\)"),
    ("dot", (3, 5), (3, 6, 4), "`it` with score 'dot' .*units 4, query 5, memory 4"),
    ("dot", (3, 4), (3, 6, 5), "`it` with score 'dot' .*units 4, query 4, memory 5"),
    ("dot", None, (3, 6, 5), "`it` with score 'dot' .*units 4, .*memory 5"),
    ("general", (3, 5), (3, 6, 5), "`it` with score 'general' .*units 4, query 5$"),
    (
        "bahdanau",
        (2, 4),
        (3, 6, 5),
        r"same batch size; received shapes \(2, 4\) and \(3, 6, 5\)",
    ),
]


@pytest.mark.parametrize(("make", "pattern"), WRONG)
def test_a_bad_argument_is_named_with_its_value(make, pattern):
    assert_raises(f"^{pattern}$", make)


@pytest.mark.parametrize(("kind", "query", "memory", "pattern"), SHAPES)
def test_shapes_that_do_not_fit_are_told(kind, query, memory, pattern):
    cls, arguments, *_ = KINDS[kind]
    layer = cls(UNITS, **arguments, name="it")
    query = None if query is None else np.ones(query, "float32")
    assert_raises(pattern, layer, query, np.ones(memory, "float32"))


def test_a_built_layer_takes_what_it_was_built_for(rng):
    layer, learned = make("bahdanau"), make("bahdanau", learned=True)
    query, memory = draw("bahdanau", rng)
    pattern = r"`query` of `.*` must have size 3; received shape \(3, 4, 2\)"
    assert_raises(pattern, layer, query[..., :2], memory)
    assert_raises("must be given, .*built with one; received None", layer, None, memory)
    pattern = r"must be None, .*built without one; received shape \(3, 4, 3\)"
    assert_raises(pattern, learned, query, memory)
    for wrong in (PREFIX[:2], PREFIX[:, :4], PREFIX[0], PREFIX[:, :1]):
        pattern = r"`mask` of `.*` must have shape .*\(3, 6\); received shape"
        assert_raises(pattern, layer, query, memory, mask=wrong)
    for wrong in ([6, 1], [[6], [1], [4]], [6.0, 1.0, 4.0]):
        pattern = r"`lengths` of `.*` must be integers of shape .*\(3,\); received"
        assert_raises(pattern, layer, query, memory, lengths=np.array(wrong))
    for wrong in (7, -1):
        pattern = f"`lengths` must lie between 0 and .*6; received {wrong} in row 1"
        assert_raises(pattern, layer, query, memory, lengths=np.array([6, wrong, 4]))


@pytest.mark.parametrize("kind", ["dot", "general", "normalized"])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_keys_are_projected_from_a_memory_of_any_type(kind, dtype, rng):
    layer = make(kind, rng, dtype=dtype)
    query, memory = draw(kind, rng)
    expected = layer(query, memory)
    for given in memory, memory.astype("float64"), memory.tolist():
        keys = layer.project(given)
        assert keys.dtype == layer.compute_dtype
        for ours, theirs in zip(layer(query, memory, keys=keys), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-3 * (dtype != "float32"))
    with pytest.raises(ValueError, match="must be built before `project` is called"):
        rk.LuongAttention(4, "general").project(memory)


@pytest.mark.parametrize("kind", ["dot", "general"])
def test_large_products_in_float16_are_finite(kind, rng):
    layer = make(kind, rng, dtype="mixed_float16")
    query, memory = (300 * np.sign(x) for x in draw(kind, rng))
    context, weights = layer(query, memory)
    assert np.all(np.isfinite(context))
    np.testing.assert_allclose(weights.numpy().sum(-1), 1, atol=1e-3)


def test_a_scale_of_zeros_is_normalized_to_zeros(rng):
    layer = make("normalized", rng)
    layer.scale.assign(np.zeros(UNITS))
    query, memory = map(tf.constant, draw("normalized", rng))
    with tf.GradientTape() as tape:
        context, weights = layer(query, memory)
    np.testing.assert_allclose(weights, 1 / SOURCE, rtol=1e-6)
    for gradient in tape.gradient(context, layer.trainable_variables):
        assert np.all(np.isfinite(gradient))
