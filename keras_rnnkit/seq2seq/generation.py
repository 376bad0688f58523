"""Answers: a model of sequences says what follows, token by token."""

import inspect
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf
from keras import ops

from keras_rnnkit.arguments import check_choice, check_count
from keras_rnnkit.recurrence import at_once
from keras_rnnkit.seq2seq import search
from keras_rnnkit.seq2seq.search import Found

PAD = 0
OPTIONS = {
    "greedy": (),
    "beam": ("beam_width", "length_penalty", "coverage_penalty", "n_best"),
    "sample": ("temperature", "top_k", "top_p"),
}


def without_padding(logits):
    """The logits of what may be said."""
    tokens = tf.range(logits.shape[-1])
    return tf.where(tokens == PAD, tf.constant(-math.inf, logits.dtype), logits)


class Generation:
    """What `Seq2Seq` is beside a model that is trained: the search over its decoder."""

    def generate(
        self,
        source,
        *,
        max_length: int,
        method: str = "greedy",
        beam_width: int = 5,
        length_penalty: float = 0.0,
        coverage_penalty: float = 0.0,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        n_best: int = 1,
        return_scores: bool = False,
        return_attention: bool = False,
        seed: int | None = None,
    ) -> np.ndarray | Any:
        """Answers sources, token by token; see `rk.seq2seq.search`.

        Args:
            source: int array `(batch, source)`, padded with 0. A row of padding alone
                is answered too, from a context of zeros.
            max_length: positive int, the most tokens of an answer, its end counted.
            method: "greedy", "beam" or "sample".
            beam_width, length_penalty, coverage_penalty, n_best: of "beam".
            temperature, top_k, top_p: of "sample".
            seed: int, of "sample"; None draws it from the model's own.
            return_scores: bool, also the log-probabilities, as the search ranks them.
            return_attention: bool, also the weights.

        Returns:
            Tokens, int array `(batch, max_length)`, the end symbol last and padding
            behind it, and nowhere else; the end symbol is missing where it did not come
            in time. Scores `(batch,)` and weights `(batch, max_length, source)` follow
            if asked for. With `n_best` above 1 each has an axis more, after the batch.

        Raises:
            ValueError: a wrong argument, or a token that the model does not know.
        """
        check_choice("method", method, OPTIONS)
        source = self._checked(source)
        given = {
            "beam_width": beam_width,
            "length_penalty": length_penalty,
            "coverage_penalty": coverage_penalty,
            "n_best": n_best,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        options = {name: given[name] for name in OPTIONS[method]}
        self._check_left_out(method, given)
        if (return_attention or coverage_penalty) and not self.decoder.cell.attention:
            raise ValueError(
                "`return_attention` and `coverage_penalty` need a decoder with "
                f"attention; `{self.name}` has none"
            )
        if seed is not None:
            check_count("seed", seed)
        if seed is None and method == "sample":
            seed = tf.cast(self.seed_generator.next(), tf.int64)
        else:
            seed = np.array([seed or 0, 0], np.int64)
        searcher = self._searcher(method, max_length=max_length, **options)
        found = searcher(source, seed)
        given = [found.tokens]
        given += [found.scores] if return_scores else []
        given += [found.records] if return_attention else []
        given = [(each[:, 0] if n_best == 1 else each).numpy() for each in given]
        return given[0] if len(given) == 1 else tuple(given)

    def _check_left_out(self, method, given):
        """Raises if an argument of another method is not the default."""
        usual = inspect.signature(self.generate).parameters
        for other, names in OPTIONS.items():
            for name in names:
                default = usual[name].default
                if other != method and given[name] != default:
                    raise ValueError(
                        f"`{name}` must be {default} with `method={method!r}`; "
                        f"received {given[name]}: pass `method={other!r}`"
                    )

    def _checked(self, source):
        source = np.asarray(source)
        tokens = self.source_embedding.input_dim
        if source.ndim != 2 or source.dtype.kind not in "iu":
            raise ValueError(
                "`source` must be an int array (batch, source); received "
                f"{source.dtype} of shape {source.shape}"
            )
        outside = np.argwhere((source < 0) | (source >= tokens))
        if len(outside):
            row, column = outside[0]
            raise ValueError(
                f"`source` must hold tokens from 0 to {tokens - 1}; received "
                f"{source[row, column]} in row {row}, step {column}"
            )
        return source.astype(np.int32)

    def _searcher(self, method, **options):
        """The compiled search of a method, made once for its options."""
        known = vars(self).setdefault("_searchers", {})  # hidden from Keras's tracking
        key = method, *map(repr, options.values())
        if key not in known:

            def run_search(source, seed):
                more = {"seed": seed} if method == "sample" else {}
                with at_once():
                    return self.search(source, method, **options, **more)

            known[key] = tf.function(
                run_search,
                input_signature=[
                    tf.TensorSpec((None, None), tf.int32),
                    tf.TensorSpec((2,), tf.int64),
                ],
                autograph=False,
            )
        return known[key]

    def search(self, source, method="greedy", **options) -> Found:
        """`generate` in a graph, from tokens that are not checked."""
        memory, mask, states = self.encode(source)
        first = self._first_states(states, tf.shape(source)[0])
        width = options.get("beam_width", 1)
        if method == "beam":
            options["memory_mask"] = mask
            memory, mask = (tf.repeat(each, width, axis=0) for each in (memory, mask))
        step = self._stepper(memory, mask)

        def say(tokens, states):
            logits, *rest = step(tokens, states)
            return without_padding(logits), *rest

        return getattr(search, method)(
            say,
            first,
            batch_size=tf.shape(source)[0],
            start_id=self.start_id,
            end_id=self.end_id,
            pad_id=PAD,
            **options,
        )

    def _first_states(self, states, batch):
        """The states that the decoder begins with, `(batch, size)` each."""
        cell = self.decoder.cell
        zeros = cell.get_initial_state(batch)
        given = [ops.cast(state, cell.compute_dtype) for state in states or []]
        return [*given, *zeros[len(given) :]]

    def _stepper(self, memory, mask, training=False):
        """The decoder as `step(tokens, states) -> (logits, states, weights)`."""
        cell = self.decoder.cell
        k = vars(cell.constants())
        k = k | cell.row_constants(tf.shape(memory)[0], training)
        k = SimpleNamespace(**k | cell.memory_constants(memory, mask))

        def step(tokens, states, noise=None):
            x = self._embedded(self.target_embedding, tokens, training)
            output, weights, states = cell.decode(x, states, k, noise)
            return self.logits(self._dropped(output, training)), states, weights

        return step
