"""Search: which sequences a step says. It knows no model, only the step.

A step scores what may follow: `step(tokens, state) -> (logits, state)`, or
`-> (logits, state, record)`, for as many sequences at once as there are rows. A search
runs it once for each token, on all rows, until every row has ended. Rows that have are
fed `pad_id`, and what the step says of them is left out.
"""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit import arguments
from keras_rnnkit.seq2seq.slots import IMPOSSIBLE, Found, Search

nest = tf.nest

UNCOVERED = 1e-6  # the least that a column counts as covered, for a finite logarithm


def greedy(
    step: Callable,
    state,
    *,
    batch_size: int | tf.Tensor,
    start_id: int,
    end_id: int,
    max_length: int,
    pad_id: int = 0,
) -> Found:
    """Takes the likeliest token at every step, of equal ones the first.

        yₜ = argmaxᵥ P(v | y₁ … yₜ₋₁)          score = Σₜ log P(yₜ | y₁ … yₜ₋₁)

    Args:
        step: callable `(tokens, state) -> (logits, state)`, or
            `-> (logits, state, record)`. `tokens` are int32 `(rows,)`, `logits`
            `(rows, vocabulary)` of any float type. `record`, or None, is a tensor
            `(rows, width)` that is kept for every step, such as attention weights.
        state: nest of tensors of `batch_size` rows, the state before the first step.
        batch_size: int or scalar tensor.
        start_id: int, the token that the first step is fed.
        end_id: int, the token that ends a sequence.
        max_length: positive int, how many tokens a sequence has at most.
        pad_id: int, stands behind the end.

    Returns:
        `Found`, with n = 1.

    Raises:
        ValueError: a wrong argument, or a step that returns something else.
    """
    search = Search(step, batch_size, start_id, end_id, max_length, pad_id)
    return _one_by_one(
        search, state, lambda t, gains: tf.argmax(gains, 1, output_type=tf.int32)
    )


def sample(
    step: Callable,
    state,
    *,
    batch_size: int | tf.Tensor,
    start_id: int,
    end_id: int,
    max_length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed=None,
    pad_id: int = 0,
) -> Found:
    """Draws a token at every step.

        q(v) ∝ P(v | y₁ … yₜ₋₁)^(1/T)          yₜ ~ q

    Of q the `top_k` likeliest tokens stay, and of these the fewest likeliest ones that
    have a share of `top_p` together. The score is what the model itself says,
    `Σₜ log P(yₜ | y₁ … yₜ₋₁)`.

    Args:
        step, state, batch_size, start_id, end_id, max_length, pad_id: see `greedy`.
        temperature: float > 0, T.
        top_k: positive int, or None for all tokens.
        top_p: float in (0, 1], or None for all tokens.
        seed: int, or two of them, or a tensor of these: the same draws every time.
            None draws a seed from Keras's own.

    Returns and raises: as `greedy`.

    Source: Fan et al. 2018, arXiv:1805.04833, for `top_k`; Holtzman et al. 2020,
    arXiv:1904.09751, for `top_p`.
    """
    search = Search(step, batch_size, start_id, end_id, max_length, pad_id)
    arguments.check_positive("temperature", temperature)
    if top_k is not None:
        arguments.check_positive_integer("top_k", top_k)
    if top_p is not None:
        arguments.check_share("top_p", top_p)
    seed = _as_seed(seed)

    def draw(t, gains):
        logits, tokens = _shortlist(gains / temperature, top_k, top_p)
        now = tf.random.experimental.stateless_fold_in(seed, t)
        drawn = tf.random.stateless_categorical(logits, 1, now, tf.int32)[:, 0]
        # Where no token is possible, what is drawn lies behind the last one.
        drawn = tf.minimum(drawn, tf.shape(logits)[1] - 1)
        return drawn if tokens is None else tf.gather(tokens, drawn, batch_dims=1)

    return _one_by_one(search, state, draw)


def beam(
    step: Callable,
    state,
    *,
    batch_size: int | tf.Tensor,
    start_id: int,
    end_id: int,
    max_length: int,
    beam_width: int,
    length_penalty: float = 0.0,
    coverage_penalty: float = 0.0,
    n_best: int = 1,
    pad_id: int = 0,
    memory_mask: tf.Tensor | None = None,
) -> Found:
    """Keeps the best `beam_width` sequences at every step.

        score = log P(y) / lp(|y|) + cp          lp(n) = ((5 + n) / 6)^α
        cp = β Σₛ log(max(min(Σₜ aₜₛ, 1), 10⁻⁶))

    |y| counts the end symbol; aₜₛ is column s of the record of the step that said token
    t. A sequence is done when it ends, or has `max_length` tokens. Of the sequences of
    a row that are done, and the others with each token that may follow, the best by the
    score so far stay; of equal ones those that follow on the better sequence, then the
    likelier token, then the first. A width of 1 is `greedy`, and one that no sequence
    falls out of an exhaustive search.

    Args:
        step, batch_size, start_id, end_id, max_length, pad_id: see `greedy`. The step
            is run on `batch_size * beam_width` rows, row i of the batch being those
            from `i * beam_width` on.
        state: nest of tensors of `batch_size` rows, repeated here for the beams.
        beam_width: positive int.
        length_penalty: float >= 0, α; above 0 it favours longer sequences.
        coverage_penalty: float >= 0, β; above 0 it favours sequences whose records sum
            up to 1 in every column, and needs a step that returns records.
        n_best: positive int up to `beam_width`, how many sequences are returned.
        memory_mask: bool `(batch, width)`, the columns that cp counts. None: those
            where the record of the first step is not 0.

    Returns and raises: as `greedy`, with n = `n_best`.

    Source: Wu et al. 2016, arXiv:1609.08144, equation 14.
    """
    search = Search(step, batch_size, start_id, end_id, max_length, pad_id, beam_width)
    arguments.check_at_least("length_penalty", length_penalty, 0)
    arguments.check_at_least("coverage_penalty", coverage_penalty, 0)
    arguments.check_positive_integer("n_best", n_best)
    if n_best > beam_width:
        raise ValueError(
            f"`n_best` must be <= {beam_width}, the `beam_width`; received {n_best}"
        )
    repeat = partial(tf.repeat, repeats=beam_width, axis=0)
    counted = None if memory_mask is None else repeat(memory_mask)
    lp = ((5 + np.arange(max_length + 1)) / 6) ** length_penalty
    score = partial(_score, lp.astype("float32"), coverage_penalty, counted)
    choose = partial(_choose_best, search, score)
    slots = search.run(nest.map_structure(repeat, state), choose)
    return search.found(slots, score(slots, slots.totals[:, None])[:, 0], n_best)


def _one_by_one(search, state, pick):
    """A search with a slot a row, of the tokens that `pick(t, gains)` says."""

    def choose(t, gains, slots):
        tokens = pick(t, gains)
        gain = tf.gather(gains, tokens, batch_dims=1)
        return None, tokens, slots.totals + tf.where(slots.live, gain, 0.0)

    slots = search.run(state, choose)
    return search.found(slots, slots.totals)


def _choose_best(search, score, t, gains, slots):
    """The `beam_width` best of what the slots of a row may become.

    A live slot may go on with each of its best tokens; another stays, once.
    """
    width = search.beam_width
    gains, tokens = tf.math.top_k(gains, tf.minimum(width, tf.shape(gains)[1]))
    choices = tf.shape(tokens)[1]
    stay = tf.where(tf.range(choices) == 0, 0.0, IMPOSSIBLE)
    totals = slots.totals[:, None] + tf.where(slots.live[:, None], gains, stay)
    scores = tf.reshape(score(slots, totals), [search.batch_size, width * choices])
    _, best = tf.math.top_k(scores, width)
    best += tf.range(search.batch_size)[:, None] * width * choices
    best = tf.reshape(best, [-1])
    tokens, totals = (tf.gather(tf.reshape(x, [-1]), best) for x in (tokens, totals))
    return best // choices, tokens, totals


def _score(lp, coverage_penalty, counted, slots, totals):
    """The scores that slots have with totals `(rows, choices)`.

    Args:
        lp: array `(max_length + 1,)`, by length.
        counted: bool `(rows, width)`, the `memory_mask`, or None.
    """
    scores = totals / tf.gather(lp, slots.lengths)[:, None]
    if not coverage_penalty:
        return scores
    if not slots.records:
        raise ValueError(
            "`step` must return (logits, state, record) for a `coverage_penalty`; "
            "received no record"
        )
    records = tf.cast(slots.records[0], tf.float32)
    counted = records[:, 0] != 0 if counted is None else counted
    covered = tf.clip_by_value(tf.reduce_sum(records, axis=1), UNCOVERED, 1.0)
    logs = tf.where(counted, tf.math.log(covered), 0.0)
    scores += coverage_penalty * tf.reduce_sum(logs, axis=1, keepdims=True)
    return tf.where(scores > IMPOSSIBLE, scores, IMPOSSIBLE)  # of a record of NaN too


def _shortlist(logits, top_k, top_p):
    """The logits to draw from, and their tokens, or None where these are all."""
    if top_k is None and top_p is None:
        return logits, None
    size = tf.shape(logits)[1]
    logits, tokens = tf.math.top_k(logits, tf.minimum(top_k or size, size))
    if top_p is not None and top_p < 1:
        likelier = tf.cumsum(tf.nn.softmax(logits), axis=1, exclusive=True)
        logits = tf.where(likelier < top_p, logits, IMPOSSIBLE)
    return logits, tokens


def _as_seed(seed):
    """Two integers, as TensorFlow's stateless operations take them."""
    if seed is None:
        return keras.random.randint((2,), 0, 2**31 - 1)
    given = seed if tf.is_tensor(seed) else np.asarray(seed)
    if not tf.as_dtype(given.dtype).is_integer or given.shape not in ((), (2,)):
        raise ValueError(f"`seed` must be an integer or two; received {seed!r}")
    given = tf.cast(given, tf.int64)
    return given if given.shape.rank else tf.stack([given, 0])
