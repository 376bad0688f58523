"""Answers against plain loops and exhaustive search, and wrong arguments."""

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import assert_close
from tests.layers.test_bad_input import assert_raises
from tests.small_seq2seq import (
    END,
    KINDS,
    NEVER,
    PAD,
    SLOW,
    SOURCES,
    START,
    TOKENS,
    attention_of,
    bias_of,
    each_kind,
    gru,
    make,
    may_be_said,
    pairs,
    scores_of,
    stacked,
)


def greedy_by_hand(model, x, max_length):
    """Asks the whole model again for every token."""
    words = np.zeros((len(x), 0), int)
    for _ in range(max_length):
        gains = may_be_said(model, x, np.pad(words, [(0, 0), (0, 1)]))[:, -1]
        ended = (words == END).any(axis=1, keepdims=True)
        words = np.hstack([words, np.where(ended, PAD, gains.argmax(1)[:, None])])
    return words


@pytest.mark.one_in(2)
@each_kind
def test_greedy_says_what_a_plain_loop_over_the_model_says(kind, rng):
    model, (x, _) = make(**KINDS[kind](), rng=rng), pairs(rng, 24)
    flags = {"return_scores": True, "return_attention": kind != "none"}
    words, scores, *weights = model.generate(x, max_length=7, **flags)
    expected = greedy_by_hand(model, x, 7)
    assert words.dtype == "int32"
    np.testing.assert_array_equal(words, expected)
    assert len({tuple(row) for row in words}) > 3
    assert_close(scores, scores_of(model, x, words).astype("float32"))
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
        sums = scores_of(model, source, answers)
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
            expected = scores_of(model, x, said) / lp
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


def test_padding_is_not_said_before_the_end(rng):
    model, (x, _) = make(rng=rng), pairs(rng)
    bias_of(model).assign(20 * np.eye(TOKENS)[PAD])  # as if nothing else were right
    for method in "greedy", "beam", "sample":
        words = model.generate(x, max_length=6, method=method)
        np.testing.assert_array_equal(np.sort(words == PAD, axis=1), words == PAD)
        assert np.all(words[:, 0] != PAD)
    # Of answers of a single token there is one fewer than there are tokens.
    all_of_them = {"beam_width": TOKENS, "n_best": TOKENS, "return_scores": True}
    words, scores = model.generate(x, max_length=1, method="beam", **all_of_them)
    assert set(words[0, :-1, 0].tolist()) == set(range(TOKENS)) - {PAD}
    np.testing.assert_array_equal(words[:, -1], PAD)
    assert np.all(np.isneginf(scores[:, -1]))
    assert np.all(np.isfinite(scores[:, :-1]))


@pytest.mark.parametrize(
    ("method", "loop"),
    [("greedy", "portable"), ("beam", "portable"), ("greedy", "auto")],
)
def test_rows_do_not_touch_each_other(method, loop, rng):
    own = stacked() if loop == "portable" else {"encoder": gru(loop=loop)}
    model, (x, _) = make(**own, rng=rng), pairs(rng, 8)
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
    bias_of(model).assign_add(np.eye(TOKENS)[END])
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
    run = model._compiled_search("greedy", max_length=4)
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
        assert_close(scores, scores_of(model, x, words).astype("f"))


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
    "of another": (
        {"beam_width": 4},
        "`beam_width` must be 5 with `method='greedy'`; received 4: pass "
        "`method='beam'`",
    ),
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
