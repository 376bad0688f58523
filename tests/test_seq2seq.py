"""Sequence to sequence against plain loops: training, answers, and what is wrong."""

import functools
import inspect
import subprocess
import sys
from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

import keras_rnnkit as rk
from keras_rnnkit.seq2seq import InverseSigmoid, TokenCrossentropy
from tests.helpers import assert_close, randomize
from tests.test_bad_input import assert_raises

PAD, START, END = 0, 1, 2
SOURCES, TOKENS, UNITS = 9, 8, 5  # the two vocabularies, and the size of a state
STATES = {"return_sequences": True, "return_state": True}
NEVER = -1e9  # as a logit
SLOW = pytest.mark.slow
ATTENTIONS = {
    "bahdanau": lambda size: rk.BahdanauAttention(4),
    "luong": lambda size: rk.LuongAttention(size, "general"),
    "local": lambda size: rk.LuongAttention(4, "concat", local_window=2),
    "none": lambda size: None,
}


def gru(cls=rk.GRU, units=UNITS, **more):
    return cls(units, **{"loop": "portable"} | STATES | more)


def make(
    attention="luong",
    *,
    rng=None,
    scale=1.2,
    encoder=None,
    cells=None,
    flags=None,
    **more,
):
    """A small model, with random weights where there is an `rng`.

    These give no token a greater share of all logits, so that what is said varies.

    Args:
        scale: of the weights.
        flags: dict, more arguments of the decoder.
        more: those of the model.
    """
    cells = cells or [rk.GRUCell(UNITS)]
    of_attention = ATTENTIONS[attention](cells[-1].output_size)
    flags = {"loop": "portable"} | (flags or {})
    given = {
        "encoder": encoder or gru(),
        "decoder": rk.AttentionDecoder(cells, of_attention, **flags),
        "source_embedding": keras.layers.Embedding(SOURCES, 4),
        "target_embedding": keras.layers.Embedding(TOKENS, 4),
        "output": keras.layers.Dense(TOKENS),
        "start_id": START,
        "end_id": END,
    }
    model = rk.Seq2Seq(**given | more)
    if rng is not None:
        randomize(model, rng, scale)
        x, fed = rng.integers(1, 8, (2, 40, 4))
        bias = bias_of(model)
        bias.assign(bias - np.mean(model((x, fed)), axis=(0, 1)))
    return model


def bias_of(model):
    """The weight that is added to the logits."""
    return model.output_bias if model.tie_embeddings else model.output_layer.weights[-1]


def stacked():
    layers = gru(rk.LSTM, 4), gru()
    return {
        "encoder": rk.StackedRNN(layers, **STATES),
        "cells": [rk.LSTMCell(4), rk.GRUCell(UNITS)],
        "bridge": "copy",
    }


def tied():
    embedding = keras.layers.Embedding(TOKENS, UNITS)
    return {"target_embedding": embedding, "output": None, "tie_embeddings": True}


KINDS = {
    "bahdanau": lambda: {"attention": "bahdanau"},
    "luong": lambda: {"flags": {"input_feeding": False}},
    "local": lambda: {"attention": "local", "flags": {"units": 3}},
    "none": lambda: {"attention": "none", "bridge": "copy"},
    "zeros": lambda: {"bridge": "zeros"},
    "stacked": stacked,
    "tied": tied,
    "bidirectional": lambda: {
        "encoder": rk.Bidirectional(gru(rk.LSTM, 3)),
        "cells": [rk.LSTMCell(4), rk.GRUCell(UNITS)],
        "output": keras.Sequential(
            [keras.layers.Dense(3, "tanh"), keras.layers.Dense(TOKENS)]
        ),
    },
    "backwards": lambda: {"encoder": gru(go_backwards=True), "attention": "local"},
    "cells": lambda: {
        "encoder": rk.RNN([rk.GRUCell(3), rk.LSTMCell(2)], **STATES),
        "flags": {"return_attention": True, "return_state": True},
    },
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def pairs(rng, rows=6, source=5, target=4, tokens=TOKENS):
    """Sources, the first of padding alone, and targets that end."""
    x = rng.integers(1, SOURCES, (rows, source))
    x[np.arange(source) > rng.integers(0, max(source, 1), (rows, 1))] = PAD
    x[:1] = PAD
    y = rng.integers(END + 1, tokens, (rows, target))
    last = rng.integers(0, target, (rows, 1))
    y[np.arange(target) == last] = END
    y[np.arange(target) > last] = PAD
    return x, y


def shifted(y):
    """What the decoder is fed."""
    return np.insert(y, 0, START, axis=1)[:, :-1]


def gains_of(model, x, y):
    """Log-probabilities of what may follow, `(batch, target, vocabulary)`."""
    return log_softmax(np.asarray(model((x, shifted(y))), float), axis=-1)


def told(gains, y):
    """The log-probabilities of the tokens."""
    return np.take_along_axis(gains, y[..., None], axis=-1)[..., 0]


def attention_of(model, x, y):
    """The weights while the decoder is fed `y`, by a decoder that returns them."""
    config = model.decoder.get_config() | {"return_attention": True}
    decoder = type(model.decoder).from_config(config)
    memory, mask, states = model.encode(tf.constant(x))
    fed = model.target_embedding(shifted(y))
    run = {"memory": memory, "memory_mask": mask, "initial_state": states}
    decoder(fed, **run)
    decoder.set_weights(model.decoder.get_weights())
    return np.asarray(decoder(fed, **run)[1])


# Training


def reversal(rng, rows, longest=6, tokens=12):
    """Sequences, and the same turned round."""
    x, y = np.zeros((2, rows, longest + 1), int)
    for i, length in enumerate(rng.integers(1, longest + 1, rows)):
        x[i, :length] = rng.integers(END + 1, tokens, length)
        y[i, : length + 1] = [*x[i, :length][::-1], END]
    return x[:, :longest], y


@functools.cache
def trained_to_reverse(attention, units=48, tokens=12):
    """A model that knows how, and what it was trained on."""
    keras.utils.set_random_seed(0)
    x, y = reversal(np.random.default_rng(0), 1000, tokens=tokens)
    model = make(
        encoder=rk.Bidirectional(gru(units=units // 2)),
        cells=[rk.GRUCell(units)],
        attention=attention,
        flags={"input_feeding": False, "loop": "portable"},
        source_embedding=keras.layers.Embedding(tokens, 16),
        target_embedding=keras.layers.Embedding(tokens, 16),
        output=keras.layers.Dense(tokens),
    )
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, y, batch_size=20, epochs=4, verbose=0)
    return model, x, y


@pytest.mark.parametrize("attention", ["luong", pytest.param("bahdanau", marks=SLOW)])
def test_sequences_are_turned_round_with_attention(attention):
    model, x, y = trained_to_reverse(attention)
    _, accuracy = model.evaluate(x, y, batch_size=500, verbose=0)
    assert accuracy > 0.95
    answers = model.generate(x, max_length=7)
    assert np.mean(np.all(answers == y, axis=1)) > 0.85
    # It looks at the last symbol first.
    _, weights = model.generate(x, max_length=7, method="beam", return_attention=True)
    for row, look in zip(x[:50], weights, strict=False):
        length = np.count_nonzero(row)
        if length == 6:
            turned = look[:length].argmax(axis=1) - np.arange(length)[::-1]
            assert np.abs(turned).mean() <= 1


@pytest.mark.parametrize(
    "kind",
    ["none", *(pytest.param(kind, marks=SLOW) for kind in KINDS if kind != "none")],
)
def test_every_kind_learns(kind, rng):
    model, (x, y) = make(**KINDS[kind]()), pairs(rng, 16)
    for layer in model.encoder, model.decoder:
        if hasattr(layer, "set_loop"):
            layer.set_loop("auto")  # which is the compiled one here
    model.compile(keras.optimizers.Adam(0.05))
    before = model.get_weights()
    loss = model.fit(x, y, batch_size=16, epochs=12, verbose=0).history["loss"]
    assert np.all(np.isfinite(loss))
    assert loss[-1] < 0.8 * loss[0]
    for weight, old in zip(model.weights, before, strict=True):
        assert np.any(weight != old), weight.path


def by_hand(model, x, y, weights=1.0, smoothing=0.0):
    """Loss and accuracy, of the tokens that are no padding."""
    gains = gains_of(model, x, y)
    loss = (smoothing - 1) * told(gains, y) - smoothing * gains.mean(axis=-1)
    counts = (y != PAD) * weights
    right = gains.argmax(axis=-1) == y
    return [np.sum(each * counts) / np.sum(counts) for each in (loss, right)]


@pytest.mark.parametrize(
    ("weights", "smoothing"),
    [(None, 0.0), ("rows", 0.0), ("steps", 0.2)],
)
def test_loss_and_accuracy_leave_padding_out(weights, smoothing, rng):
    model, (x, y) = make("none", rng=rng), pairs(rng)
    shapes = {"rows": (6, 1), "steps": y.shape}
    given = rng.uniform(0, 2, shapes[weights]) if weights else None
    sample_weight = given[:, 0] if weights == "rows" else given
    model.compile(label_smoothing=smoothing)
    expected = by_hand(model, x, y, 1.0 if given is None else given, smoothing)
    got = model.evaluate(x, y, sample_weight=sample_weight, batch_size=6, verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_fit_says_what_numpy_says_of_the_weights_before(rng):
    model, (x, y) = make("none", rng=rng), pairs(rng)
    other, weights = pairs(rng, 4, 3, 6), rng.uniform(0, 2, 6)
    expected = by_hand(model, x, y, weights[:, None])
    model.compile("sgd")
    data = {"x": x, "y": y, "sample_weight": weights, "batch_size": 6}
    history = model.fit(**data, validation_data=other, verbose=0).history
    got = history["loss"][0], history["accuracy"][0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    got = history["val_loss"][0], history["val_accuracy"][0]
    np.testing.assert_allclose(got, by_hand(model, *other), rtol=1e-5)
    # The answers and the losses after it are those of the weights after it.
    after = model.evaluate(x, y, sample_weight=weights, batch_size=6, verbose=0)
    np.testing.assert_allclose(after, by_hand(model, x, y, weights[:, None]), rtol=1e-5)
    assert after[0] < expected[0]
    assert model.evaluate(x, np.zeros_like(y), verbose=0) == [0, 0]


def test_batches_may_differ_in_rows_and_steps(rng):
    model = make(rng=rng)
    sizes = (3, 5, 4), (2, 2, 7), (3, 9, 1)
    batches = [pairs(rng, *size) for size in sizes]
    ids = tf.TensorSpec((None, None), tf.int64)
    data = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=(ids, ids)
    ).apply(tf.data.experimental.assert_cardinality(3))
    model.compile("sgd")
    losses = [by_hand(model, x, y)[0] for x, y in batches]
    tokens = [np.count_nonzero(y) for _, y in batches]
    right = [by_hand(model, x, y)[1] for x, y in batches]
    expected = np.average(losses, weights=[3, 2, 3]), np.average(right, weights=tokens)
    np.testing.assert_allclose(model.evaluate(data, verbose=0), expected, rtol=1e-5)
    before = model.get_weights()
    history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert np.any(model.get_weights()[0] != before[0])


def test_the_decoder_is_fed_the_target_a_step_behind(rng):
    model = make("none")
    for dtype in "int32", "int64":
        x, y = (tf.constant(each, dtype) for each in pairs(rng))
        (source, fed), target, counts = model._teacher_forced((x, y, tf.ones(6)))
        assert source is x
        assert target is y
        assert fed.dtype == dtype
        np.testing.assert_array_equal(fed, shifted(y.numpy()))
        np.testing.assert_array_equal(counts, y.numpy() != PAD)


def test_label_smoothing_is_that_of_keras_and_of_the_formula(rng):
    y = rng.integers(0, 6, (3, 4))
    logits = rng.normal(size=(3, 4, 6)).astype("float32") * 3
    weights = rng.uniform(size=(3, 4)).astype("float32")
    gains = log_softmax(logits.astype(float), axis=-1)
    for smoothing in 0, 0.3:
        loss = TokenCrossentropy(smoothing)
        stock = keras.losses.CategoricalCrossentropy(
            True, smoothing, reduction="mean_with_sample_weight"
        )
        got = loss(y, logits, sample_weight=weights)
        expected = stock(np.eye(6)[y], logits, sample_weight=weights)
        assert_close(got, expected)
        each = (smoothing - 1) * told(gains, y) - smoothing * gains.mean(-1)
        assert_close(got, np.float32(np.sum(each * weights) / np.sum(weights)))
        assert_close(loss.call(y, logits), each.astype("float32"))
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert again.label_smoothing == 0.3


def test_the_loss_is_summed_in_float32(rng):
    y = rng.integers(0, 5000, (2, 3))
    logits = (rng.normal(size=(2, 3, 5000)) * 4).astype("float16")
    got = TokenCrossentropy(0.1).call(y, logits)
    gains = log_softmax(logits.astype(float), axis=-1)
    assert got.dtype == "float32"
    expected = -0.9 * told(gains, y) - 0.1 * gains.mean(axis=-1)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.fixture
def mixed_float16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.usefixtures("mixed_float16")
def test_a_model_trains_and_answers_in_float16(rng):
    model, (x, y) = make(**tied(), sampling=0.3), pairs(rng)
    assert model.decoder.cell.cells[0].compute_dtype == "float16"
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(x, y, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    logits = model((x, shifted(y)))
    assert logits.dtype == "float32"
    found = model.generate(x, max_length=4, return_scores=True, method="beam", n_best=2)
    words, scores = (each[:, 0] for each in found)
    expected = total(gains_of(model, x, words), words)
    np.testing.assert_allclose(scores, expected, rtol=2e-2)


# The model


def alike(logits, others, tolerance=1e-5):
    assert logits.shape == others.shape
    assert np.abs(np.asarray(logits) - others).max() <= tolerance * np.abs(others).max()


@each_kind
def test_logits_are_those_of_decoding_step_by_step(kind, rng):
    model, (x, y) = make(**KINDS[kind](), rng=rng), pairs(rng)
    memory, mask, states = model.encode(tf.constant(x))
    step, states = model._stepper(memory, mask), model._first_states(states, 6)
    logits = []
    for token in shifted(y).T:
        said, states, weights = step(tf.constant(token), states)
        logits.append(said)
        assert (weights is None) == (kind == "none")
    whole = model((x, shifted(y)))
    assert whole.shape == (6, 4, TOKENS)
    alike(whole, np.stack(logits, axis=1))


@each_kind
def test_padding_changes_nothing(kind, rng):
    model, (x, y) = make(**KINDS[kind](), rng=rng), pairs(rng)
    fed = shifted(y)
    logits = np.asarray(model((x, fed)))
    wider = np.pad(x, [(0, 0), (0, 3)])
    alike(model((wider, fed)), logits, 1e-6)
    longer = np.pad(fed, [(0, 0), (0, 2)])
    alike(model((x, longer))[:, :4], logits, 1e-6)
    # Where the padding is the same, other rows are of no concern.
    for row in 1, 3:
        strange, other = pairs(rng)
        strange[row], other[row] = x[row], fed[row]
        np.testing.assert_array_equal(model((strange, other))[row], logits[row])
    # A row alone and without padding says the same.
    n = np.count_nonzero(x[2])
    alike(model((x[2:3, :n], fed[2:3])), logits[2:3])
    assert model((x[:0], fed[:0])).shape == (0, 4, TOKENS)
    assert model((x, fed[:, :0])).shape == (6, 0, TOKENS)


def test_an_encoder_that_runs_backwards_gives_its_memory_in_the_sources_order(rng):
    ahead = make(rng=rng)
    model = make(encoder=gru(go_backwards=True))
    model.set_weights(ahead.get_weights())
    x, y = pairs(rng)
    turned = x.copy()
    for row in turned:  # each without its padding
        row[: np.count_nonzero(row)] = row[: np.count_nonzero(row)][::-1]
    alike(model((x, shifted(y))), np.asarray(ahead((turned, shifted(y)))), 1e-6)
    found = [
        each.generate(x, max_length=3, return_attention=True)[1][:, 0]
        for each, x in ((model, x), (ahead, turned))
    ]
    for row, ours, theirs in zip(x, *found, strict=True):
        n = np.count_nonzero(row)
        np.testing.assert_allclose(ours[:n], theirs[:n][::-1], atol=1e-6)


def test_dropout_is_of_training_alone_and_seeded(rng):
    x, y = pairs(rng)
    models = [make(dropout=0.4, seed=seed) for seed in (5, 5, 6)]
    for model in models[1:]:
        model.set_weights(models[0].get_weights())
    plain = make()
    plain.set_weights(models[0].get_weights())
    first, same, other = (np.asarray(m((x, y), training=True)) for m in models)
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3
    assert np.abs(first - models[0]((x, y), training=True)).max() > 1e-3
    for model in models:
        np.testing.assert_array_equal(model((x, y)), plain((x, y)))


# Scheduled sampling


@keras.saving.register_keras_serializable("tests")
class Always(keras.optimizers.schedules.LearningRateSchedule):
    """The same at every step."""

    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return tf.constant(self.rate)

    def get_config(self):
        return {"rate": self.rate}


FAVOURITE = 6  # a token that is drawn for sure


def with_favourite(model):
    """Gives one token a probability of 1, but for what float32 cannot tell."""
    bias_of(model).assign(60 * np.eye(TOKENS)[FAVOURITE])
    return model


@pytest.mark.parametrize("kind", ["bahdanau", "stacked", "tied", "none"])
def test_drawing_nothing_is_teacher_forcing(kind, rng):
    never = make(**KINDS[kind](), sampling=Always(0.0), rng=rng)
    plain, zero = make(**KINDS[kind]()), make(**KINDS[kind](), sampling=0.0)
    x, y = pairs(rng)
    for model in plain, zero:
        model.set_weights(never.get_weights())
    expected = np.asarray(plain((x, shifted(y))))
    np.testing.assert_array_equal(zero((x, shifted(y)), training=True), expected)
    for dtype in "int64", "int32":
        given = x.astype(dtype), shifted(y).astype(dtype)
        alike(never(given, training=True), expected)


def gradients(model, x, fed):
    weighting = np.random.default_rng(3).normal(size=(*fed.shape, TOKENS))
    with tf.GradientTape() as tape:
        logits = model((x, fed), training=True)
        loss = tf.reduce_sum(logits * weighting)
    return logits, tape.gradient(loss, model.trainable_variables)


def test_draws_are_fed_and_gradients_go_round_them(rng):
    drawing = with_favourite(make(sampling=1 - 1e-9, rng=rng))
    forced = make()
    forced.set_weights(drawing.get_weights())
    x, y = pairs(rng)
    own = np.full_like(y, FAVOURITE)
    logits, found = gradients(drawing, x, shifted(y))
    expected, wanted = gradients(forced, x, shifted(own))
    alike(logits, expected.numpy())
    assert np.abs(logits - forced((x, shifted(y)))).max() > 0.1
    for ours, theirs in zip(found, wanted, strict=True):
        assert_close(*(tf.convert_to_tensor(each) for each in (ours, theirs)))
    # Not in training, nothing is drawn.
    np.testing.assert_array_equal(drawing((x, shifted(y))), forced((x, shifted(y))))


def test_every_token_is_drawn_or_not_by_itself(rng):
    model = with_favourite(make(sampling=0.5, seed=1, rng=rng))
    rows = 400
    x, y = np.repeat(pairs(rng, 2)[0][1:], rows, axis=0), np.full((rows, 4), 4)
    logits = np.asarray(model((x, shifted(y)), training=True))
    mixtures = list(product([4, FAVOURITE], repeat=3))
    fed = np.array([[START, *tokens] for tokens in mixtures])
    expected = np.asarray(model((x[: len(fed)], fed)))
    distance = np.abs(logits[:, None] - expected).max(axis=(2, 3))
    assert distance.min(axis=1).max() < 1e-4
    counts = np.bincount(distance.argmin(axis=1), minlength=8)
    assert counts.min() > 25  # of 50 expected
    assert counts.max() < 75
    again = np.asarray(model((x, shifted(y)), training=True))
    assert np.abs(logits - again).max() > 0.1


def test_draws_follow_the_models_own_distribution(rng):
    """A decoder of two steps: its second logits tell which token it was fed."""
    model = make(sampling=1 - 1e-9, seed=2, rng=rng)
    rows, (x, _) = 1500, pairs(rng, 2)
    x = np.repeat(x[1:], rows, axis=0)
    logits = np.asarray(model((x, np.full((rows, 2), START)), training=True))
    fed = np.array([[START, token] for token in range(TOKENS)])
    expected = np.asarray(model((x[:TOKENS], fed)))
    distance = np.abs(logits[:, None, 1] - expected[:, 1]).max(axis=-1)
    assert distance.min(axis=1).max() < 1e-4
    share = np.bincount(distance.argmin(axis=1), minlength=TOKENS) / rows
    wanted = np.exp(log_softmax(expected[0, 0]))
    assert np.abs(share - wanted).max() < 0.05
    assert wanted.max() < 0.9  # there is something to draw


def test_the_inverse_sigmoid_is_its_formula():
    for k in 0.5, 3.0, 200.0:
        schedule = InverseSigmoid(k)
        for step in 0, 1, 10, 500:
            expected = 1 - k / (k + np.exp(min(step / k, 700)))
            np.testing.assert_allclose(schedule(step), expected, rtol=1e-5)
        assert schedule(tf.constant(10**9, tf.int64)) == 1
        np.testing.assert_allclose(schedule(k * np.log(k)), 0.5, atol=1e-6)
    assert InverseSigmoid.from_config(schedule.get_config()).k == 200
    assert_raises("`k` must be > 0; received 0", InverseSigmoid, 0)


def test_a_schedule_is_of_the_steps_trained(rng):
    model = with_favourite(make(sampling=InverseSigmoid(1e4), rng=rng))
    x, y = pairs(rng)
    own = np.full_like(y, FAVOURITE)
    expected = [np.asarray(model((x, shifted(fed)))) for fed in (y, own)]
    alike(model((x, shifted(y)), training=True), expected[0])  # not compiled yet
    model.compile("sgd")
    for step, logits in zip((0, 10**7), expected, strict=True):
        model.optimizer.iterations.assign(step)
        alike(model((x, shifted(y)), training=True), logits)
    assert model.fit(x, y, verbose=0).history["loss"][0] > 0
    assert model.optimizer.iterations == 10**7 + 1


# Answers


def total(gains, words):
    """The sum of the log-probabilities of answers up to their ends."""
    there = np.cumsum(words == END, axis=1) - (words == END) == 0
    return np.sum(told(gains, words) * there, axis=1)


def greedy_by_hand(model, x, max_length):
    """Asks the whole model again for every token."""
    words = np.zeros((len(x), 0), int)
    for _ in range(max_length):
        gains = gains_of(model, x, np.pad(words, [(0, 0), (0, 1)]))[:, -1]
        ended = (words == END).any(axis=1, keepdims=True)
        words = np.hstack([words, np.where(ended, PAD, gains.argmax(1)[:, None])])
    return words


@each_kind
def test_greedy_says_what_a_plain_loop_over_the_model_says(kind, rng):
    model, (x, _) = make(**KINDS[kind](), rng=rng), pairs(rng, 12)
    flags = {"return_scores": True, "return_attention": kind != "none"}
    words, scores, *weights = model.generate(x, max_length=7, **flags)
    expected = greedy_by_hand(model, x, 7)
    assert words.dtype == "int32"
    np.testing.assert_array_equal(words, expected)
    assert len({tuple(row) for row in words}) > 3
    assert_close(scores, total(gains_of(model, x, words), words).astype("float32"))
    if weights:
        assert_looks(model, x, words, *weights)
    if kind not in ("bahdanau", "none", "stacked"):
        return
    beam = model.generate(x, max_length=7, method="beam", beam_width=1, **flags)
    np.testing.assert_array_equal(beam[0], words)
    for ours, theirs in zip(beam[1:], (scores, *weights), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def assert_looks(model, x, words, weights):
    """Weights are those of the decoder that is fed the answer, up to its end."""
    assert weights.shape == (*words.shape, x.shape[1])
    ends = words == END
    there = np.cumsum(ends, axis=1) - ends == 0
    expected = attention_of(model, x, words) * there[..., None]
    np.testing.assert_allclose(weights, expected, atol=2e-5)
    assert not np.any(weights[~there])
    assert not np.any(weights.transpose(0, 2, 1)[x == PAD])
    if not getattr(model.decoder.cell.attention, "local_window", None):
        sums = there * np.any(x, axis=1, keepdims=True)
        np.testing.assert_allclose(weights.sum(axis=-1), sums, atol=1e-5)


def without(model, *tokens):
    """Has the model never say some tokens."""
    bias = bias_of(model).numpy()
    bias[list(tokens)] = NEVER
    bias_of(model).assign(bias)
    return model


def every_answer(symbols, max_length):
    """All answers, padded."""
    found = list(product(symbols, repeat=max_length))
    for n in range(max_length):
        pad = (PAD,) * (max_length - n - 1)
        found += [(*body, END, *pad) for body in product(symbols, repeat=n)]
    return np.array(found)


@pytest.mark.parametrize(
    ("attention", "alpha", "beta"),
    [
        ("bahdanau", 0.0, 0.0),
        ("local", 0.6, 0.4),
        *(pytest.param("luong", *x, marks=SLOW) for x in ((1.0, 0.0), (0.0, 0.7))),
    ],
)
def test_a_wide_beam_is_an_exhaustive_search(attention, alpha, beta, rng):
    symbols = 3, 4
    others = [token for token in range(TOKENS) if token not in (END, *symbols)]
    model = without(make(attention, rng=rng), *others)
    x, answers = pairs(rng, 3)[0], every_answer(symbols, 4)
    width = len(answers)
    assert width == 31  # wider than the vocabulary
    words, scores, weights = model.generate(
        x,
        max_length=4,
        method="beam",
        beam_width=width,
        n_best=width,
        length_penalty=alpha,
        coverage_penalty=beta,
        return_scores=True,
        return_attention=True,
    )
    assert words.shape == (3, width, 4)
    assert scores.shape == (3, width)
    assert weights.shape == (3, width, 4, 5)
    for row in range(3):
        source = np.repeat(x[row : row + 1], width, axis=0)
        lengths = np.count_nonzero(answers, axis=1)
        sums = total(gains_of(model, source, answers), answers)
        looks = attention_of(model, source, answers)
        looks = looks * (np.arange(4) < lengths[:, None])[..., None]
        covered = np.log(np.clip(looks.sum(axis=1), 1e-6, 1)) * (source != PAD)
        ranks = sums / ((5 + lengths) / 6) ** alpha + beta * covered.sum(axis=1)
        order = np.argsort(-ranks)
        np.testing.assert_allclose(scores[row], ranks[order], atol=2e-5)
        assert np.diff(ranks[order]).max() < -1e-5  # no two of them are equal
        np.testing.assert_array_equal(words[row], answers[order])
        np.testing.assert_allclose(weights[row], looks[order], atol=2e-5)


def test_beams_that_change_places_keep_their_looks_and_states(rng):
    model, (x, _) = make(**stacked(), rng=rng), pairs(rng, 12)
    for options in {}, {"n_best": 3, "length_penalty": 1.0}:
        words, scores, weights = model.generate(
            x,
            max_length=6,
            method="beam",
            beam_width=4,
            return_scores=True,
            return_attention=True,
            **options,
        )
        n = options.get("n_best", 1)
        words, scores, weights = (
            each.reshape(12, n, *each.shape[2 - (n == 1) :])
            for each in (words, scores, weights)
        )
        assert np.all(np.diff(scores, axis=1) <= 0)
        for number in range(n):
            said = words[:, number]
            lengths = (np.cumsum(said == END, 1) - (said == END) == 0).sum(1)
            lp = ((5 + lengths) / 6) ** options.get("length_penalty", 0)
            expected = total(gains_of(model, x, said), said) / lp
            np.testing.assert_allclose(scores[:, number], expected, rtol=2e-5)
            assert_looks(model, x, said, weights[:, number])
    greedy = model.generate(x, max_length=6, return_scores=True)
    assert np.any(greedy[0] != words[:, 0])


def test_a_sample_is_drawn_by_its_seed(rng):
    x = np.repeat(pairs(rng, 2)[0][1:], 8, axis=0)
    model = make(seed=3, rng=rng)
    drawn = {"max_length": 6, "method": "sample"}
    first = model.generate(x, seed=2**40, **drawn)
    assert len({tuple(row) for row in first}) > 3
    np.testing.assert_array_equal(model.generate(x, seed=2**40, **drawn), first)
    assert np.any(model.generate(x, seed=6, **drawn) != first)
    # Without a seed, by the model's own, which other searches leave alone.
    own = [model.generate(x, **drawn) for _ in range(2)]
    assert np.any(own[0] != own[1])
    twin = make(seed=3)
    twin.set_weights(model.get_weights())
    twin.generate(x, max_length=6)
    twin.generate(x, max_length=6, method="beam")
    np.testing.assert_array_equal(twin.generate(x, **drawn), own[0])
    greedy, scores = model.generate(x, max_length=6, return_scores=True)
    words, told = model.generate(x, top_k=1, return_scores=True, **drawn)
    np.testing.assert_array_equal(words, greedy)
    np.testing.assert_array_equal(told, scores)
    for options in {"temperature": 1e-3}, {"top_p": 1e-6}:
        np.testing.assert_array_equal(model.generate(x, **options, **drawn), greedy)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_rows_do_not_touch_each_other(method, rng):
    model, (x, _) = make(**stacked(), rng=rng), pairs(rng, 8)
    flags = {"return_scores": True, "return_attention": True, "method": method}
    found = model.generate(x, max_length=5, **flags)
    for row in 0, 3:
        strange = pairs(rng, 8)[0]
        strange[row] = x[row]
        for ours, theirs in zip(
            model.generate(strange, max_length=5, **flags), found, strict=True
        ):
            np.testing.assert_array_equal(ours[row], theirs[row])
    alone = [model.generate(x[i : i + 1], max_length=5, **flags) for i in range(8)]
    wider = model.generate(np.pad(x, [(0, 0), (0, 4)]), max_length=5, **flags)
    for ours, other, theirs in zip(zip(*alone, strict=True), wider, found, strict=True):
        np.testing.assert_allclose(np.concatenate(ours), theirs, atol=1e-5)
        other = other[..., :5] if other.ndim == 3 else other
        np.testing.assert_allclose(other, theirs, atol=1e-5)


def test_a_search_stops_when_all_rows_have_ended(rng):
    model, (x, _) = make(rng=rng), pairs(rng, 4)
    cell, calls = model.decoder.cell, []
    decode = cell.decode
    cell.decode = lambda *args: calls.append(args) or decode(*args)
    bias_of(model).assign_add(3 * np.eye(TOKENS)[END])
    found = model.search(tf.constant(x), max_length=50)
    assert 1 < len(calls) < 50
    assert len(calls) == found.lengths.numpy().max()
    assert len(calls) > found.lengths.numpy().min()


def test_calls_of_other_sizes_do_not_trace_again_and_see_new_weights(rng):
    model = make(encoder=gru(loop="auto"), rng=rng)
    for rows, steps in (3, 5), (1, 2), (5, 11), (0, 4), (4, 0):
        x = pairs(rng, rows, steps)[0]
        words = model.generate(x, max_length=4)
        np.testing.assert_array_equal(words, greedy_by_hand(model, x, 4))
        assert words.shape == (rows, 4)
    run = model._searcher("greedy", max_length=4)
    assert run.experimental_get_tracing_count() == 1
    x, y = pairs(rng)
    before = model.generate(x, max_length=4)
    model.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    model.fit(x, y, epochs=3, verbose=0)
    after = model.generate(x, max_length=4)
    assert np.any(after != before)
    np.testing.assert_array_equal(after, greedy_by_hand(model, x, 4))
    assert run.experimental_get_tracing_count() == 1


def test_what_is_given_may_be_of_any_kind_of_integer(rng):
    model, (x, _) = make(rng=rng), pairs(rng)
    expected = model.generate(x, max_length=3)
    for same in x.tolist(), tf.constant(x), x.astype("uint8"), x.astype("int16"):
        np.testing.assert_array_equal(model.generate(same, max_length=3), expected)


def test_an_end_that_does_not_come_is_missing(rng):
    model, (x, _) = without(make(rng=rng), PAD, START, END), pairs(rng)
    for method in "greedy", "beam", "sample":
        words, scores, weights = model.generate(
            x,
            max_length=5,
            method=method,
            return_scores=True,
            return_attention=True,
        )
        assert np.all(words > END)
        assert_looks(model, x, words, weights)
        assert_close(scores, told(gains_of(model, x, words), words).sum(1).astype("f"))


# What is wrong

ANSWERS = {
    "unknown": (
        {"source": [[1, 2], [3, SOURCES]]},
        "`source` must hold tokens from 0 to 8; received 9 in row 1, step 1",
    ),
    "negative": ({"source": [[-1]]}, "from 0 to 8; received -1 in row 0, step 0"),
    "float": (
        {"source": np.ones((2, 3))},
        r"`source` must be an int array \(batch, source\); received float64 of shape "
        r"\(2, 3\)",
    ),
    "rank": ({"source": [1, 2]}, r"received int64 of shape \(2,\)"),
    "length": ({"max_length": 0}, "`max_length` must be a positive integer; rec.* 0"),
    "method": (
        {"method": "best"},
        "`method` must be one of 'greedy', 'beam', 'sample'; received 'best'",
    ),
    "greedy n_best": (
        {"n_best": 2},
        "`n_best` must be 1 with `method='greedy'`; received 2: pass `method='beam'`",
    ),
    "sample n_best": ({"n_best": 2, "method": "sample"}, "must be 1 .*'sample'"),
    "n_best": (
        {"n_best": 4, "beam_width": 3, "method": "beam"},
        "`n_best` must be <= 3, the `beam_width`; received 4",
    ),
    "width": ({"beam_width": 0, "method": "beam"}, "`beam_width` must be .*; rec.* 0"),
    "temperature": (
        {"temperature": 0.0, "method": "sample"},
        "`temperature` must be > 0; received 0.0",
    ),
    "top_p": ({"top_p": 2.0, "method": "sample"}, "`top_p` must lie in .* 2.0"),
    "seed": (
        {"seed": 1.5, "method": "sample"},
        "`seed` must be an integer >= 0; received 1.5",
    ),
    "attention": (
        {"return_attention": True, "attention": "none"},
        "`return_attention` and `coverage_penalty` need a decoder with attention; "
        "`seq2_seq.*` has none",
    ),
    "coverage": (
        {"coverage_penalty": 0.1, "attention": "none", "method": "beam"},
        "need a decoder with attention",
    ),
}


@pytest.mark.parametrize(("given", "message"), ANSWERS.values(), ids=ANSWERS)
def test_a_wrong_argument_of_generate_raises(given, message):
    given = {"source": [[1, 2]], "max_length": 3} | given
    model = make(given.pop("attention", "luong"))
    assert_raises(message, model.generate, **given)


def decoder(**flags):
    return rk.AttentionDecoder(rk.GRUCell(UNITS), rk.LuongAttention(UNITS), **flags)


PARTS = {
    "no states": (
        lambda: {"encoder": rk.GRU(5, return_sequences=True)},
        "`encoder` must be a recurrent layer with `return_sequences=True` and "
        "`return_state=True`; received <GRU",
    ),
    "no sequences": (
        lambda: {"encoder": rk.GRU(5, return_state=True)},
        "`encoder` must be a recurrent layer with `return_sequences=True`",
    ),
    "no encoder": (lambda: {"encoder": keras.layers.Dense(5)}, "`encoder`.*<Dense"),
    "merge_mode": (
        lambda: {"encoder": rk.Bidirectional(gru(), merge_mode=None)},
        "`encoder` must return one sequence; received `merge_mode=None`",
    ),
    "decoder": (
        lambda: {"decoder": gru()},
        "`decoder` must be an `AttentionDecoder` with `return_sequences=True` that "
        "runs forwards; received <GRU",
    ),
    "last step": (
        lambda: {"decoder": decoder(return_sequences=False)},
        "`decoder` must .* with `return_sequences=True`",
    ),
    "backwards": (
        lambda: {"decoder": decoder(go_backwards=True)},
        "`decoder` must .* that runs forwards",
    ),
    **{
        f"{name} of another kind": (
            lambda name=name: {name: keras.layers.Dense(4)},
            f"`{name}` must be a `keras.layers.Embedding`; received <Dense",
        )
        for name in ("source_embedding", "target_embedding")
    },
    **{
        f"{name} {bad}": (
            lambda name=name, bad=bad: {name: bad},
            f"`{name}` must {say}",
        )
        for name in ("start_id", "end_id")
        for bad, say in (
            (0, "be a positive integer; received 0"),
            (1.5, "be a positive integer; received 1.5"),
            (TOKENS, "be less than the 8 tokens of `target_embedding`; received 8"),
        )
    },
    "bridge": (
        lambda: {"bridge": "tanh"},
        "`bridge` must be one of 'dense', 'copy', 'zeros'; received 'tanh'",
    ),
    "copy": (
        lambda: {"encoder": rk.Bidirectional(gru()), "bridge": "copy"},
        r"`bridge='copy'` needs states of the same sizes; received \[5, 5\] of the "
        r"encoder and \[5\] of the decoder: pass `bridge='dense'`",
    ),
    "dropout": (lambda: {"dropout": 1.0}, r"`dropout` must lie in \[0, 1\).* 1.0"),
    "sampling": (lambda: {"sampling": -0.1}, r"`sampling` must lie in \[0, 1\)"),
    "tied to an output": (
        lambda: {"tie_embeddings": True},
        "`tie_embeddings=True` needs `output=None` and a target embedding as wide as "
        "the decoder's output; received <Dense.*, 4 and 5",
    ),
    "tied widths": (
        lambda: {"tie_embeddings": True, "output": None},
        "`tie_embeddings=True` needs .*; received None, 4 and 5",
    ),
    "no output": (
        lambda: {"output": None},
        r"`output` must be a layer that makes logits, such as `Dense\(vocabulary\)`; "
        "received None without `tie_embeddings=True`",
    ),
    "width of output": (
        lambda: {"output": keras.layers.Dense(TOKENS + 1)},
        "`output` must make a logit for each of the 8 tokens of `target_embedding`; "
        "received 9",
    ),
}


@pytest.mark.parametrize(("given", "message"), PARTS.values(), ids=PARTS)
def test_parts_that_do_not_fit_raise(given, message):
    assert_raises(message, lambda: make(**given()))


def test_a_wrong_call_says_what_to_do(rng):
    model, (x, y) = make("none"), pairs(rng)
    model.compile(run_eagerly=True)
    assert_raises(r"takes the pair \(source, target\); received", model, x)
    assert_raises("call `generate` for answers", model.predict, x, verbose=0)
    assert_raises("needs targets to be trained on; received none", model.fit, x)
    wrong = {"loss": TokenCrossentropy(), "label_smoothing": 0.1}
    assert_raises("`label_smoothing` must be 0 beside", model.compile, **wrong)
    assert_raises(r"`label_smoothing` must lie in \[0, 1\)", TokenCrossentropy, 1.0)
    np.testing.assert_allclose(
        model.predict((x, shifted(y)), verbose=0), model((x, shifted(y))), atol=1e-6
    )


# What is saved comes back

GIVEN = {  # none is the default
    "bridge": "copy",
    "dropout": 0.2,
    "sampling": InverseSigmoid(50.0),
    "seed": 7,
    "start_id": 4,
    "end_id": 3,
    "name": "mine",
}


def test_every_argument_is_in_the_config_and_comes_back(rng):
    models = {
        "tied": make(**tied() | GIVEN, rng=rng),
        "output": make(**stacked() | {"sampling": 0.3}, rng=rng),
    }
    arguments = set(inspect.signature(rk.Seq2Seq).parameters) - {"kwargs"}
    for name, model in models.items():
        config = model.get_config()
        assert arguments <= set(config)
        assert keras.saving.serialize_keras_object(config["sampling"])
        again = rk.Seq2Seq.from_config(config)
        assert again.get_config() == config
        again.set_weights(model.get_weights())
        x, y = pairs(rng)
        np.testing.assert_array_equal(again((x, y)), model((x, y)))
        if name == "tied":
            assert again.sampling.k == 50
            assert again.tie_embeddings
            for own in set(GIVEN) - {"sampling"}:
                assert getattr(again, own) == GIVEN[own]
        # Of the same seed, it draws the same.
        first, same = (each((x, y), training=True) for each in (model, again))
        if name == "tied":
            alike(first, same.numpy(), 1e-6)


def test_embeddings_may_be_shared(rng, tmp_path):
    shared = keras.layers.Embedding(SOURCES, UNITS)
    both = {"source_embedding": shared, "target_embedding": shared}
    model = make(**tied() | both, rng=rng)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.source_embedding is again.target_embedding
    x, y = pairs(rng)
    np.testing.assert_array_equal(again((x, y)), model((x, y)))


CHILD = """
import sys
import keras, numpy as np
import keras_rnnkit as rk
data = dict(np.load("data.npz"))
x, y = data["x"], data["y"]
model = keras.models.load_model("m.keras")
assert isinstance(model, rk.Seq2Seq)
assert isinstance(model.loss, rk.seq2seq.TokenCrossentropy)
assert model.loss.label_smoothing == 0.1
assert model.run_eagerly
assert model.optimizer.iterations == 2
assert abs(model.optimizer.learning_rate - 0.05) < 1e-7
words, scores = model.generate(x, max_length=5, return_scores=True)
assert (words == data["words"]).all()
assert np.allclose(scores, data["scores"], atol=1e-6)
assert np.allclose(model.evaluate(x, y, verbose=0), data["figures"], atol=1e-6)
model.fit(x, y, verbose=0)
figures = model.evaluate(x, y, verbose=0)
assert np.allclose(figures, data["later"], rtol=1e-4), (figures, data["later"])
print("same")
"""


def test_a_fresh_process_loads_the_same_model_and_goes_on(rng, tmp_path):
    model, (x, y) = make("bahdanau", rng=rng), pairs(rng)
    given = {"label_smoothing": 0.1, "run_eagerly": True}
    model.compile(keras.optimizers.Adam(0.05), **given)
    model.fit(x, y, epochs=2, verbose=0)
    data = {"x": x, "y": y}
    found = model.generate(x, max_length=5, return_scores=True)
    data["words"], data["scores"] = found
    data["figures"] = model.evaluate(x, y, verbose=0)
    model.save(tmp_path / "m.keras")
    model.fit(x, y, verbose=0)
    data["later"] = model.evaluate(x, y, verbose=0)
    np.savez(tmp_path / "data.npz", **data)
    run = [sys.executable, "-W", "error::UserWarning", "-c", CHILD]
    out = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == ["same"]


def test_weights_alone_come_back(rng, tmp_path):
    model, (x, _) = make(**stacked(), rng=rng), pairs(rng)
    model.save_weights(tmp_path / "m.weights.h5")
    other = make(**stacked())
    other.load_weights(tmp_path / "m.weights.h5")
    found = (each.generate(x, max_length=5) for each in (model, other))
    np.testing.assert_array_equal(*found)
