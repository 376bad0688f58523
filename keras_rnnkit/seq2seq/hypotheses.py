"""The loop of every search: sequences in slots, which a step goes on with."""

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
    """What a search found: `n` sequences for each row of the batch, the best first.

    Where no sequence of a probability above 0 is left, as logits are NaN or as there
    are fewer than `n`, the score is -inf, the length 0, and every token `pad_id`.

    Attributes:
        tokens: int32 `(batch, n, max_length)`; the end symbol is one of them, and
            `pad_id` stands behind it.
        lengths: int32 `(batch, n)`, numbers of tokens, with the end symbol.
        scores: float32 `(batch, n)`.
        records: `(batch, n, max_length, width)`, of the step that said each token, and
            zero behind the end; None if the step returns none.
    """

    tokens: tf.Tensor
    lengths: tf.Tensor
    scores: tf.Tensor
    records: tf.Tensor | None


class Slots(NamedTuple):
    """Room for a sequence in each of the rows that the loop carries.

    A sequence is live, or it has ended, or it is impossible, with a total of -inf.
    """

    tokens: tf.Tensor  # int32 (rows, max_length)
    lengths: tf.Tensor  # int32 (rows,)
    totals: tf.Tensor  # float32 (rows,), Σ log P
    live: tf.Tensor  # bool (rows,)
    records: list  # of one tensor (rows, max_length, width), or of none


@dataclasses.dataclass
class Search:
    """The loop of every search, over `beam_width` slots for each row of the batch."""

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

    def run(self, state, choose) -> Slots:
        """Runs the step until no slot is live.

        The first turn is written out: it tells what the loop has to carry.

        Args:
            state: nest of tensors of as many rows as there are slots.
            choose: callable `(t, gains, slots) -> (parents, tokens, totals)`, from
                log-probabilities `(rows, vocabulary)`: the token of each slot, the sum
                with it, and the slot that it follows on, or None for each its own.
        """
        rows = self.batch_size * self.beam_width
        live = tf.tile(tf.range(self.beam_width) == 0, [self.batch_size])
        slots = Slots(
            tokens=tf.fill([rows, self.max_length], self.pad_id),
            lengths=tf.zeros([rows], tf.int32),
            totals=tf.where(live, 0.0, IMPOSSIBLE),
            live=live,
            records=[],
        )
        turn = partial(self._turn, choose)
        first = turn(tf.constant(0), tf.fill([rows], self.start_id), state, slots)

        def goes_on(t, tokens, state, slots):
            return (t < self.max_length) & tf.reduce_any(slots.live)

        def turn_again(*carried):
            return nest.map_structure(_shaped, turn(*carried), carried)

        return tf.while_loop(goes_on, turn_again, first)[-1]

    def _turn(self, choose, t, tokens, state, slots):
        gains, state, record = self._advance(tokens, state)
        here = tf.range(self.max_length) == t
        slots = slots._replace(
            lengths=slots.lengths + tf.cast(slots.live, tf.int32),
            records=_with_record(slots, here, record),
        )
        parents, tokens, totals = choose(t, gains, slots)
        if parents is not None:
            follow = partial(tf.gather, indices=parents)
            state, slots = nest.map_structure(follow, (state, slots))
        tokens = tf.where(slots.live, tokens, self.pad_id)
        slots = slots._replace(
            tokens=tf.where(here, tokens[:, None], slots.tokens),
            totals=totals,
            live=slots.live & (tokens != self.end_id) & (totals > IMPOSSIBLE),
        )
        return t + 1, tokens, state, slots

    def _advance(self, tokens, state):
        """Runs the step: log-probabilities, the state after it, the record or None."""
        said = self.step(tokens, state)
        if not isinstance(said, (tuple, list)) or len(said) not in (2, 3):
            raise ValueError(
                "`step` must return (logits, state) or (logits, state, record); "
                f"received {said}"
            )
        logits, state = nest.map_structure(tf.convert_to_tensor, tuple(said[:2]))
        self._check_vocabulary(logits.shape)
        gains = tf.nn.log_softmax(tf.cast(logits, tf.float32))
        gains = tf.where(gains > IMPOSSIBLE, gains, IMPOSSIBLE)  # nor is NaN possible
        record = said[2] if len(said) == 3 else None
        return gains, state, None if record is None else tf.convert_to_tensor(record)

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

    def found(self, slots, scores, n_best=1) -> Found:
        """The first `n_best` slots of each row of the batch."""
        possible = scores > IMPOSSIBLE

        def by_row(x, blank):
            there = tf.reshape(possible, [-1] + [1] * (x.shape.rank - 1))
            x = tf.where(there, x, tf.cast(blank, x.dtype))
            shape = tf.concat([[self.batch_size, self.beam_width], tf.shape(x)[1:]], 0)
            return tf.reshape(x, shape)[:, :n_best]

        return Found(
            by_row(slots.tokens, self.pad_id),
            by_row(slots.lengths, 0),
            by_row(scores, IMPOSSIBLE),
            by_row(slots.records[0], 0) if slots.records else None,
        )


def _with_record(slots, here, record):
    """The records of slots, with that of this step where they are live."""
    if record is None:
        return []
    none = tf.zeros_like(record)
    past = slots.records or [none[:, None]]
    record = tf.where(slots.live[:, None], record, none)
    return [tf.where(here[:, None], record[:, None], past[0])]


def _shaped(new, old):
    """What a turn of the loop made, of the shape that went into it."""
    new.set_shape(old.shape)
    return new
