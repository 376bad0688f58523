"""Greedy search, sampling and beam search over a step function.

The searches know no model. They call `step(tokens, state) -> (logits, state)`, or
`-> (logits, state, record)`, for all rows, once per token, until every row has ended. A
row that has ended is fed `pad_id`, and its logits are ignored.
"""

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit import arguments
from keras_rnnkit.seq2seq.hypotheses import IMPOSSIBLE, Found, Search

nest = tf.nest

MIN_COVERAGE = 1e-6  # of a column, so that its logarithm is finite


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
    """Picks the most likely token at every step, the first of equally likely ones.

        yₜ = argmaxᵥ P(v | y₁ … yₜ₋₁)          score = Σₜ log P(yₜ | y₁ … yₜ₋₁)

    Args:
        step: callable `(tokens, state) -> (logits, state)`, or
            `-> (logits, state, record)`. `tokens` are int32 `(rows,)`, `logits`
            `(rows, vocabulary)` of any float type. `record` is a tensor `(rows, width)`
            to save for every step, such as attention weights, or None.
        state: nest of tensors of `batch_size` rows, the state before the first step.
        batch_size: int or scalar tensor.
        start_id: int, the input token of the first step.
        end_id: int, the token that ends a sequence.
        max_length: positive int, the maximum number of tokens, including the end.
        pad_id: int, the token after the end; default 0.

    Returns:
        A named tuple `(tokens, lengths, scores, records)`: int32 `(batch, n,
        max_length)`, int32 `(batch, n)`, float32 `(batch, n)`, and `(batch, n,
        max_length, width)` or None, with n = 1. Lengths include the end symbol.

    Raises:
        ValueError: an argument is invalid, or `step` returns something else.

    Example:

    ```python
    import keras
    import tensorflow as tf
    from keras_rnnkit.seq2seq import search

    bigrams = keras.random.normal((6, 6))  # logits of the next token
    step = lambda tokens, state: (tf.gather(bigrams, tokens), state)
    ids = {"start_id": 1, "end_id": 2}
    print(search.greedy(step, [], batch_size=1, max_length=8, **ids).tokens)
    ```
    """
    search = Search(step, batch_size, start_id, end_id, max_length, pad_id)
    return _extend_each(
        search,
        state,
        lambda t, log_probs: tf.argmax(log_probs, 1, output_type=tf.int32),
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

    `top_k` keeps only the most likely tokens of q; of these, `top_p` keeps the fewest
    most likely ones whose probabilities sum to `top_p`. The score is the model's own
    log-probability, `Σₜ log P(yₜ | y₁ … yₜ₋₁)`.

    Args:
        step, state, batch_size, start_id, end_id, max_length, pad_id: see `greedy`.
        temperature: float > 0, T; default 1.
        top_k: positive int, or None (default) for all tokens.
        top_p: float in (0, 1], or None (default) for all tokens.
        seed: int, two ints, or a tensor of these, for reproducible draws. None
            (default) draws a seed from Keras's global generator.

    Returns:
        See `greedy`.

    Raises:
        ValueError: see `greedy`.

    Example:

    ```python
    import keras
    import tensorflow as tf
    from keras_rnnkit.seq2seq import search

    bigrams = keras.random.normal((6, 6))  # logits of the next token
    step = lambda tokens, state: (tf.gather(bigrams, tokens), state)
    ids = {"start_id": 1, "end_id": 2, "batch_size": 4, "max_length": 8}
    print(search.sample(step, [], top_k=3, seed=0, **ids).tokens)
    ```

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

    def draw(t, log_probs):
        logits, tokens = _restrict(log_probs / temperature, top_k, top_p)
        step_seed = tf.random.experimental.stateless_fold_in(seed, t)
        drawn = tf.random.stateless_categorical(logits, 1, step_seed, tf.int32)[:, 0]
        # If no token is possible, the drawn index is beyond the last one.
        drawn = tf.minimum(drawn, tf.shape(logits)[1] - 1)
        return drawn if tokens is None else tf.gather(tokens, drawn, batch_dims=1)

    return _extend_each(search, state, draw)


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
    """Keeps the best `beam_width` hypotheses of each row at every step.

        score = log P(y) / lp(|y|) + cp          lp(n) = ((5 + n) / 6)^α
        cp = β Σₛ log(max(min(Σₜ aₜₛ, 1), 10⁻⁶))

    |y| counts the end symbol; aₜₛ is column s of the record of the step that produced
    token t. A hypothesis is finished when it ends or has `max_length` tokens. Each step
    ranks the finished hypotheses of a row together with all extensions of the others by
    score. Ties go to the extension of the better hypothesis, then to the more likely
    token, then to the first. A width of 1 is `greedy`; a width that drops no hypothesis
    is an exhaustive search.

    Args:
        step, batch_size, start_id, end_id, max_length, pad_id: see `greedy`. The step
            runs on `batch_size * beam_width` rows; those of batch row i start at
            `i * beam_width`.
        state: nest of tensors of `batch_size` rows; `beam` repeats them per hypothesis.
        beam_width: positive int.
        length_penalty: float >= 0, α, default 0; above 0 it favors longer sequences.
        coverage_penalty: float >= 0, β, default 0; above 0 it favors sequences whose
            records sum to 1 in every column, and `step` must return records.
        n_best: positive int up to `beam_width`, the number of sequences to return;
            default 1.
        memory_mask: bool `(batch, width)`, the columns s in cp. None (default) takes
            those where the record of the first step is not 0.

    Returns:
        See `greedy`, with n = `n_best`, best first.

    Raises:
        ValueError: see `greedy`.

    Example:

    ```python
    import keras
    import tensorflow as tf
    from keras_rnnkit.seq2seq import search

    bigrams = keras.random.normal((6, 6))  # logits of the next token
    step = lambda tokens, state: (tf.gather(bigrams, tokens), state)
    ids = {"start_id": 1, "end_id": 2, "batch_size": 1, "max_length": 8}
    print(search.beam(step, [], beam_width=4, n_best=2, **ids).scores)
    ```

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
    columns = None if memory_mask is None else repeat(memory_mask)
    lp = ((5 + np.arange(max_length + 1)) / 6) ** length_penalty
    score = partial(_score, lp.astype("float32"), coverage_penalty, columns)
    choose = partial(_choose_best, search, score)
    hypotheses = search.run(nest.map_structure(repeat, state), choose)
    scores = score(hypotheses, hypotheses.totals[:, None])[:, 0]
    return search.found(hypotheses, scores, n_best)


def _extend_each(search, state, pick):
    """A search with one hypothesis per row, extended by `pick(t, log_probs)`."""

    def choose(t, log_probs, hypotheses):
        tokens = pick(t, log_probs)
        log_prob = tf.gather(log_probs, tokens, batch_dims=1)
        log_prob = tf.where(hypotheses.live, log_prob, 0.0)
        return None, tokens, hypotheses.totals + log_prob

    hypotheses = search.run(state, choose)
    return search.found(hypotheses, hypotheses.totals)


def _choose_best(search, score, t, log_probs, hypotheses):
    """The `beam_width` best successors of the hypotheses of each row.

    A live hypothesis has a successor for each of its best tokens; any other one is its
    own only successor.
    """
    width = search.beam_width
    vocabulary = tf.shape(log_probs)[1]
    log_probs, tokens = tf.math.top_k(log_probs, tf.minimum(width, vocabulary))
    choices = tf.shape(tokens)[1]
    unchanged = tf.where(tf.range(choices) == 0, 0.0, IMPOSSIBLE)
    log_probs = tf.where(hypotheses.live[:, None], log_probs, unchanged)
    totals = hypotheses.totals[:, None] + log_probs
    scores = tf.reshape(score(hypotheses, totals), [search.batch_size, width * choices])
    _, best = tf.math.top_k(scores, width)
    best += tf.range(search.batch_size)[:, None] * width * choices
    best = tf.reshape(best, [-1])
    tokens, totals = (tf.gather(tf.reshape(x, [-1]), best) for x in (tokens, totals))
    return best // choices, tokens, totals


def _score(lp, coverage_penalty, columns, hypotheses, totals):
    """The scores of hypotheses with totals `(rows, choices)`.

    Args:
        lp: array `(max_length + 1,)`, the length penalty by length.
        columns: bool `(rows, width)`, the `memory_mask`, or None.
    """
    scores = totals / tf.gather(lp, hypotheses.lengths)[:, None]
    if not coverage_penalty:
        return scores
    if not hypotheses.records:
        raise ValueError(
            "`step` must return (logits, state, record) for a `coverage_penalty`; "
            "received no record"
        )
    records = tf.cast(hypotheses.records[0], tf.float32)
    columns = records[:, 0] != 0 if columns is None else columns
    covered = tf.clip_by_value(tf.reduce_sum(records, axis=1), MIN_COVERAGE, 1.0)
    logs = tf.where(columns, tf.math.log(covered), 0.0)
    scores += coverage_penalty * tf.reduce_sum(logs, axis=1, keepdims=True)
    return tf.where(scores > IMPOSSIBLE, scores, IMPOSSIBLE)  # NaN too


def _restrict(logits, top_k, top_p):
    """The logits to draw from, and their tokens, or None for the whole vocabulary."""
    if top_k is None and top_p is None:
        return logits, None
    size = tf.shape(logits)[1]
    logits, tokens = tf.math.top_k(logits, tf.minimum(top_k or size, size))
    if top_p is not None and top_p < 1:
        mass_before = tf.cumsum(tf.nn.softmax(logits), axis=1, exclusive=True)
        logits = tf.where(mass_before < top_p, logits, IMPOSSIBLE)
    return logits, tokens


def _as_seed(seed):
    """The seed as the two integers that TensorFlow's stateless operations take."""
    if seed is None:
        return keras.random.randint((2,), 0, 2**31 - 1)
    given = seed if tf.is_tensor(seed) else np.asarray(seed)
    if not tf.as_dtype(given.dtype).is_integer or given.shape not in ((), (2,)):
        raise ValueError(f"`seed` must be an integer or two; received {seed!r}")
    given = tf.cast(given, tf.int64)
    return given if given.shape.rank else tf.stack([given, 0])
