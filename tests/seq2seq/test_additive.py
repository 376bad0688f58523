"""The additive score of all steps: a compiled loop says what a plain sum says."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from keras_rnnkit.recurrence import RowFunction, both_ways, often
from keras_rnnkit.seq2seq import additive

UNITS = 6


def by_hand(query, keys, scale):
    """The scores, number by number, in float64."""
    query, keys, scale = (np.asarray(v, np.float64) for v in (query, keys, scale))
    scores = np.zeros((len(query), query.shape[1], keys.shape[1]))
    for b, t, s in np.ndindex(scores.shape):
        scores[b, t, s] = scale @ np.tanh(query[b, t] + keys[b, s])
    return scores


def draw(rng, batch, steps, source, dtype="float64"):
    shapes = (batch, steps, UNITS), (batch, source, UNITS), (UNITS,)
    return [tf.constant(rng.standard_normal(shape), dtype) for shape in shapes]


def in_graph(function, values, known):
    """Runs in a graph that knows the sizes, or none but that of a unit."""

    def spec(value):
        sizes = [None] * (value.shape.rank - 1)
        return tf.TensorSpec(value.shape if known else [*sizes, UNITS], value.dtype)

    signature = [spec(value) for value in values]
    return tf.function(function, input_signature=signature, autograph=False)(*values)


@pytest.fixture
def is_compiled(monkeypatch):
    """Counts the calls of the loops, which are compiled at once."""
    monkeypatch.setattr(often, "LARGE", 0)
    monkeypatch.setattr(additive, "BLOCK_BYTES", additive.BLOCK_BYTES)
    functions = both_ways(additive.forward, additive.backward)
    loops = RowFunction(*functions, additive.reference)  # compiled anew for each test
    spy = mock.Mock(wraps=loops)
    monkeypatch.setattr(additive, "compiled_scores", spy)
    return spy


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("sizes", [(5, 9, 7), (1, 6, 3), (2, 5, 1), (3, 17, 30)])
def test_scores_are_those_of_plain_loops(sizes, known, rng, is_compiled):
    values = draw(rng, *sizes)
    scores = in_graph(additive.additive_scores, values, known)
    np.testing.assert_allclose(scores, by_hand(*values), rtol=1e-12, atol=1e-12)
    assert is_compiled.called


@pytest.mark.one_in(2)
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("block", [9, 4, 1, 0])  # 0: less than a step
@pytest.mark.parametrize("batch", [1, 5])
def test_gradients_are_those_of_ordinary_ops(batch, block, known, rng, is_compiled):
    values, d = draw(rng, batch, 9, 7), rng.standard_normal((batch, 9, 7))
    additive.BLOCK_BYTES = block * 7 * UNITS * 8

    def gradients(*values):
        with tf.GradientTape() as outer:
            outer.watch(values)
            with tf.GradientTape() as inner:
                inner.watch(values)
                scores = additive.additive_scores(*values)
            first = inner.gradient(scores, values, output_gradients=tf.constant(d))
            total = tf.add_n([tf.reduce_sum(g * g) for g in first])
        return [*first, *outer.gradient(total, values)]

    ours = in_graph(gradients, values, known)
    assert is_compiled.called
    theirs = gradients(*values)  # eager: ordinary ops
    assert is_compiled.call_count == 1
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_no_source_step_has_no_score(rng):
    for known in (True, False):
        values = draw(rng, 3, 8, 0)
        assert in_graph(additive.additive_scores, values, known).shape == (3, 8, 0)


def test_no_row_has_no_score(rng):
    values = draw(rng, 0, 8, 4)
    assert in_graph(additive.additive_scores, values, False).shape == (0, 8, 4)


def test_narrow_floats_add_up_in_wide_ones(rng):
    wide = draw(rng, 4, 64, 64)
    narrow = [tf.cast(value, "float16") for value in wide]
    wide = [tf.cast(value, "float64") for value in narrow]

    def by_keys(query, keys, scale):
        with tf.GradientTape() as tape:
            tape.watch(keys)
            scores = additive.additive_scores(query, keys, scale)
        return tape.gradient(scores, keys)

    ours, exact = (in_graph(by_keys, values, True) for values in (narrow, wide))
    off = np.abs(np.float64(ours) - exact).max() / np.abs(exact).max()
    assert off < 2e-3


def test_compiled_whole_it_gives_the_same(rng, is_compiled):
    values = draw(rng, 3, 9, 7)
    scores = tf.function(additive.additive_scores, jit_compile=True)(*values)
    np.testing.assert_allclose(scores, by_hand(*values), rtol=1e-12, atol=1e-12)
    assert is_compiled.called
