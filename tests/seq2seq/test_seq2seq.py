"""Models of sequences against plain loops: loss, training, and what is saved."""

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
from tests.layers.test_bad_input import assert_raises
from tests.small_seq2seq import (
    KINDS,
    PAD,
    SLOW,
    SOURCES,
    START,
    TOKENS,
    UNITS,
    alike,
    bias_of,
    each_kind,
    gains_of,
    gru,
    make,
    pairs,
    scores_of,
    shifted,
    stacked,
    tied,
    told,
    trained_to_reverse,
)


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
    expected = scores_of(model, x, words)
    np.testing.assert_allclose(scores, expected, rtol=2e-2)


# The model


@each_kind
def test_logits_are_those_of_decoding_step_by_step(kind, rng):
    model, (x, y) = make(**KINDS[kind](), rng=rng), pairs(rng)
    memory, mask, states = model.encode(tf.constant(x))
    step, states = model._make_step(memory, mask), model._initial_states(states, 6)
    logits = []
    for token in shifted(y).T:
        said, states, weights = step(tf.constant(token), states)
        logits.append(said)
        assert (weights is None) == (kind == "none")
    whole = model((x, shifted(y)))
    assert whole.shape == (6, 4, TOKENS)
    alike(whole, np.stack(logits, axis=1))


@pytest.mark.one_in(2)
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


def test_drawing_nothing_leaves_zoneout_its_draws(rng):
    def made(sampling):
        cells = [rk.GRUCell(UNITS, zoneout=0.5, seed=3)]
        return make("none", cells=cells, sampling=sampling)

    never, plain = made(Always(0.0)), made(0.0)
    randomize(never, rng)
    plain.set_weights(never.get_weights())
    x, y = pairs(rng)
    expected = plain((x, shifted(y)), training=True).numpy()
    alike(never((x, shifted(y)), training=True), expected)
    assert np.abs(expected - plain((x, shifted(y)))).max() > 0.01


def test_targets_may_have_no_step(rng):
    model, (x, _) = make(sampling=0.5, rng=rng), pairs(rng)
    for training in True, False:
        logits = model((x, np.zeros((len(x), 0), int)), training=training)
        assert logits.shape == (len(x), 0, TOKENS)


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
    wanted = np.exp(log_softmax(expected[0, 0, 1:]))  # of all but padding
    wanted = np.insert(wanted, PAD, 0)
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
