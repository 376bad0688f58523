"""Generation: searches over the decoder of a `Seq2Seq`, token by token."""

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
    """The logits with that of padding at -inf."""
    tokens = tf.range(logits.shape[-1])
    return tf.where(tokens == PAD, tf.constant(-math.inf, logits.dtype), logits)


class Generation:
    """The part of `Seq2Seq` that generates answers."""

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
        """Generates an answer to each source, token by token; see `rk.seq2seq.search`.

        Args:
            source: int array `(batch, source)`, padded with 0. A row may be all
                padding; its context is zero.
            max_length: positive int, the maximum number of tokens of an answer,
                including the end symbol.
            method: "greedy" (default), "beam" or "sample".
            beam_width: positive int, default 5, for "beam".
            length_penalty: float >= 0, default 0, for "beam"; above 0 it favors longer
                answers.
            coverage_penalty: float >= 0, default 0, for "beam"; above 0 it favors
                answers that attend to all of the source.
            temperature: float > 0, default 1, for "sample".
            top_k: positive int or None (default), for "sample": draw from the k most
                likely tokens.
            top_p: float in (0, 1] or None (default), for "sample": draw from the most
                likely tokens whose probabilities sum to `top_p`.
            n_best: positive int up to `beam_width`, default 1, for "beam": the number
                of answers to return per source.
            return_scores: bool, default False: also return the log-probabilities of
                the answers, for "beam" with its penalties.
            return_attention: bool, default False: also return the attention weights.
            seed: int, for "sample"; None (default) draws one from the model's own
                generator.

        Returns:
            Tokens, int array `(batch, max_length)`. Padding follows the end symbol,
            which is missing if an answer does not end within `max_length` tokens. If
            requested, scores `(batch,)` and weights `(batch, max_length, source)`
            follow. With `n_best` above 1 each has another axis after the batch.

        Raises:
            ValueError: an argument is invalid or belongs to another method, or a token
                is outside the vocabulary.
        """
        check_choice("method", method, OPTIONS)
        source = self._as_tokens(source)
        arguments = {
            "beam_width": beam_width,
            "length_penalty": length_penalty,
            "coverage_penalty": coverage_penalty,
            "n_best": n_best,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        options = {name: arguments[name] for name in OPTIONS[method]}
        self._check_other_methods(method, arguments)
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
        run_search = self._compiled_search(method, max_length=max_length, **options)
        found = run_search(source, seed)
        results = [found.tokens]
        results += [found.scores] if return_scores else []
        results += [found.records] if return_attention else []
        results = [(each[:, 0] if n_best == 1 else each).numpy() for each in results]
        return results[0] if len(results) == 1 else tuple(results)

    def _check_other_methods(self, method, arguments):
        """Raises `ValueError` unless arguments of other methods have their defaults."""
        parameters = inspect.signature(self.generate).parameters
        for other, names in OPTIONS.items():
            for name in names:
                default = parameters[name].default
                if other != method and arguments[name] != default:
                    raise ValueError(
                        f"`{name}` must be {default} with `method={method!r}`; "
                        f"received {arguments[name]}: pass `method={other!r}`"
                    )

    def _as_tokens(self, source):
        """The source as an int32 array of tokens in the vocabulary."""
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

    def _compiled_search(self, method, **options):
        """The search as a `tf.function`, cached by method and options."""
        known = vars(self).setdefault("_searches", {})  # hidden from Keras's tracking
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
        """Runs a search in the current graph; see `generate` for the options.

        Args:
            source: int32 `(batch, source)`. Its tokens are not checked.
        """
        memory, mask, states = self.encode(source)
        first = self._initial_states(states, tf.shape(source)[0])
        width = options.get("beam_width", 1)
        if method == "beam":
            options["memory_mask"] = mask
            memory, mask = (tf.repeat(each, width, axis=0) for each in (memory, mask))
        step = self._make_step(memory, mask)

        def step_without_padding(tokens, states):
            logits, *rest = step(tokens, states)
            return without_padding(logits), *rest

        return getattr(search, method)(
            step_without_padding,
            first,
            batch_size=tf.shape(source)[0],
            start_id=self.start_id,
            end_id=self.end_id,
            pad_id=PAD,
            **options,
        )

    def _initial_states(self, states, batch):
        """The initial states of the decoder, `(batch, size)` each, completed with
        zeros."""
        cell = self.decoder.cell
        zeros = cell.get_initial_state(batch)
        given = [ops.cast(state, cell.compute_dtype) for state in states or []]
        return [*given, *zeros[len(given) :]]

    def _make_step(self, memory, mask, training=False):
        """The decoder as `step(tokens, states) -> (logits, states, weights)`."""
        cell = self.decoder.cell
        params = vars(cell.constants())
        params = params | cell.row_constants(tf.shape(memory)[0], training)
        params = SimpleNamespace(**params | cell.memory_constants(memory, mask))

        def step(tokens, states, noise=None):
            x = self._embed(self.target_embedding, tokens, training)
            output, weights, states = cell.decode(x, states, params, noise)
            return self.logits(self._drop(output, training)), states, weights

        return step
