"""The loop that greedy search, sampling and beam search share."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_rnnkit import arguments

nest = tf.nest

IMPOSSIBLE = -np.inf  # as a log-probability
IDS = "start_id", "end_id", "pad_id"


class Found(NamedTuple):
    """The result of a search: `n` sequences for each row of the batch, best first.

    If fewer than `n` sequences have a probability above 0, for example because logits
    are NaN, each missing one has score -inf, length 0, and `pad_id` for every token.

    Attributes:
        tokens: int32 `(batch, n, max_length)`, including the end symbol; `pad_id` fills
            the steps after it.
        lengths: int32 `(batch, n)`, the number of tokens, including the end symbol.
        scores: float32 `(batch, n)`.
        records: `(batch, n, max_length, width)`, the record of the step that produced
            each token, and zero after the end; None if the step returns no record.
    """

    tokens: tf.Tensor
    lengths: tf.Tensor
    scores: tf.Tensor
    records: tf.Tensor | None


class Hypotheses(NamedTuple):
    """The hypotheses of a search, sequences that are not yet complete, one per row.

    A hypothesis is live, has ended, or is impossible, with a total of -inf.
    """

    tokens: tf.Tensor  # int32 (rows, max_length)
    lengths: tf.Tensor  # int32 (rows,)
    totals: tf.Tensor  # float32 (rows,), Σ log P
    live: tf.Tensor  # bool (rows,)
    records: list  # of one tensor (rows, max_length, width), or of none


@dataclasses.dataclass
class Search:
    """Runs a step on `beam_width` hypotheses for each row of the batch.

    Args: see `search.greedy`, and `search.beam` for `beam_width`.
    """

    step: Callable
    batch_size: int | tf.Tensor
    start_id: int
    end_id: int
    max_length: int
    pad_id: int
    beam_width: int = 1

    def __post_init__(self):
        checks = dict.fromkeys(IDS, arguments.check_count)
        checks["max_length"] = checks["beam_width"] = arguments.check_positive_integer
        if tf.is_tensor(self.batch_size):
            self.batch_size = tf.cast(self.batch_size, tf.int32)
        else:
            checks["batch_size"] = arguments.check_count
        for name, check in checks.items():
            check(name, getattr(self, name))
            setattr(self, name, int(getattr(self, name)))

    def run(self, state, choose) -> Hypotheses:
        """Runs the step until no hypothesis is live.

        The first step runs before the loop and gives the shapes of the loop variables.

        Args:
            state: nest of tensors, one row per hypothesis.
            choose: callable `(t, log_probs, hypotheses) -> (parents, tokens, totals)`,
                with log-probabilities `(rows, vocabulary)`. It returns, for each new
                hypothesis, the row that it extends, its next token and its new total;
                `parents` is None if each row extends itself.
        """
        rows = self.batch_size * self.beam_width
        live = tf.tile(tf.range(self.beam_width) == 0, [self.batch_size])
        hypotheses = Hypotheses(
            tokens=tf.fill([rows, self.max_length], self.pad_id),
            lengths=tf.zeros([rows], tf.int32),
            totals=tf.where(live, 0.0, IMPOSSIBLE),
            live=live,
            records=[],
        )
        advance = partial(self._advance, choose)
        start = tf.fill([rows], self.start_id)
        first = advance(tf.constant(0), start, state, hypotheses)

        def is_running(t, tokens, state, hypotheses):
            return (t < self.max_length) & tf.reduce_any(hypotheses.live)

        def body(*carried):
            return nest.map_structure(_with_shape_of, advance(*carried), carried)

        return tf.while_loop(is_running, body, first)[-1]

    def _advance(self, choose, t, tokens, state, hypotheses):
        log_probs, state, record = self._call_step(tokens, state)
        is_now = tf.range(self.max_length) == t
        hypotheses = hypotheses._replace(
            lengths=hypotheses.lengths + tf.cast(hypotheses.live, tf.int32),
            records=_with_record(hypotheses, is_now, record),
        )
        parents, tokens, totals = choose(t, log_probs, hypotheses)
        if parents is not None:
            follow = partial(tf.gather, indices=parents)
            state, hypotheses = nest.map_structure(follow, (state, hypotheses))
        tokens = tf.where(hypotheses.live, tokens, self.pad_id)
        hypotheses = hypotheses._replace(
            tokens=tf.where(is_now, tokens[:, None], hypotheses.tokens),
            totals=totals,
            live=hypotheses.live & (tokens != self.end_id) & (totals > IMPOSSIBLE),
        )
        return t + 1, tokens, state, hypotheses

    def _call_step(self, tokens, state):
        """Calls the step: log-probabilities, the next state, the record or None."""
        outputs = self.step(tokens, state)
        if not isinstance(outputs, (tuple, list)) or len(outputs) not in (2, 3):
            raise ValueError(
                "`step` must return (logits, state) or (logits, state, record); "
                f"received {outputs}"
            )
        logits, state = nest.map_structure(tf.convert_to_tensor, tuple(outputs[:2]))
        self._check_vocabulary(logits.shape)
        log_probs = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        # NaN becomes -inf, too.
        log_probs = tf.where(log_probs > IMPOSSIBLE, log_probs, IMPOSSIBLE)
        record = outputs[2] if len(outputs) == 3 else None
        if record is not None:
            record = tf.convert_to_tensor(record)
        return log_probs, state, record

    def _check_vocabulary(self, shape):
        if shape.rank != 2:
            raise ValueError(
                "the logits of `step` must have shape (rows, vocabulary); received "
                f"shape {shape}"
            )
        for name in IDS:
            if shape[1] is not None and getattr(self, name) >= shape[1]:
                raise ValueError(
                    f"`{name}` must be < {shape[1]}, the size of the vocabulary; "
                    f"received {getattr(self, name)}"
                )

    def found(self, hypotheses, scores, n_best=1) -> Found:
        """The first `n_best` hypotheses of each row of the batch."""
        possible = scores > IMPOSSIBLE

        def by_row(x, default):
            is_possible = tf.reshape(possible, [-1] + [1] * (x.shape.rank - 1))
            x = tf.where(is_possible, x, tf.cast(default, x.dtype))
            shape = tf.concat([[self.batch_size, self.beam_width], tf.shape(x)[1:]], 0)
            return tf.reshape(x, shape)[:, :n_best]

        return Found(
            by_row(hypotheses.tokens, self.pad_id),
            by_row(hypotheses.lengths, 0),
            by_row(scores, IMPOSSIBLE),
            by_row(hypotheses.records[0], 0) if hypotheses.records else None,
        )


def _with_record(hypotheses, is_now, record):
    """The records of the hypotheses, with the new one where they are live."""
    if record is None:
        return []
    zeros = tf.zeros_like(record)
    past = hypotheses.records or [zeros[:, None]]
    record = tf.where(hypotheses.live[:, None], record, zeros)
    return [tf.where(is_now[:, None], record[:, None], past[0])]


def _with_shape_of(new, old):
    """The new value of a loop variable, with the static shape of the old one."""
    new.set_shape(old.shape)
    return new
