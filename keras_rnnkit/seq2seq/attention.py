"""Attention layers: a query reads from a memory by its similarity to each step."""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_rnnkit.arguments import (
    PACKAGE,
    check_choice,
    check_positive_integer,
)
from keras_rnnkit.cells.split_cell import constants_of
from keras_rnnkit.internals import mask_of
from keras_rnnkit.layers.checks import check_lengths, check_mask
from keras_rnnkit.recurrence import as_mask, save_residual, wide
from keras_rnnkit.seq2seq.additive import additive_scores
from keras_rnnkit.seq2seq.attention_checks import (
    check_equal_sizes,
    check_query,
    check_rank,
)

MIN_SQUARED_NORM = 1e-12  # of a vector that is normalized
SCORES = "dot", "general", "concat"


class Attention(keras.layers.Layer):
    """Base class of attention layers: a subclass implements `score`.

        αₛ = softmaxₛ(score(q, hₛ))        c = Σₛ αₛ hₛ

    q is the query, h the memory. Masked steps have weight zero. If all steps are
    masked, the weights and the context are zero.

    Args:
        units: positive int, the size in which query and memory are compared.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        query: `(batch, size)`, or `(batch, steps, size)` for several queries. None
            learns one query for all rows (attention pooling).
        memory: `(batch, source, features)`, the sequence to read from.
        mask: bool `(batch, source)`, True for the steps of the memory to read; default
            the mask that the memory carries.
        lengths: int `(batch,)`, the number of steps to read in each row. Given with a
            mask, both apply.
        keys: the result of `project(memory)`, if already computed; default None.

    Returns:
        The context, `(batch, features)` or `(batch, steps, features)`, and the weights,
        `(batch, source)` or `(batch, steps, source)`.

    Raises:
        ValueError: `units` is no positive int, or shapes do not fit.

    Example:

    ```python
    import keras
    from keras_rnnkit.seq2seq import Attention

    class DotAttention(Attention):
        def score(self, query, keys, params):
            return keras.ops.matmul(query, keras.ops.swapaxes(keys, 1, 2))

    query, memory = keras.random.normal((2, 4)), keras.random.normal((2, 7, 4))
    context, weights = DotAttention(4)(query, memory)  # (2, 4), (2, 7)
    ```
    """

    def __init__(self, units: int, **kwargs) -> None:
        super().__init__(**kwargs)
        check_positive_integer("units", units)
        self.units = units
        self.supports_masking = True

    def build(self, memory_shape, query_shape=None):
        check_rank(self, "memory", memory_shape, (3,))
        self.query_size = None if query_shape is None else query_shape[-1]
        if query_shape is None:
            self.query = self.add_weight((self.units,), "glorot_uniform", name="query")
        else:
            check_rank(self, "query", query_shape, (2, 3))
        self.add_weights(memory_shape[-1])

    def add_weights(self, memory_size):
        """Adds the weights of the score. Called by `build`, after `query_size` is set.

        Args:
            memory_size: int, the last size of the memory.
        """

    def project(self, memory):
        """Returns the keys, `(batch, source, size)`: the part of the score that depends
        on the memory alone.

        Args:
            memory: `(batch, source, features)`.

        Raises:
            ValueError: the layer is not built.
        """
        if not self.built:
            raise ValueError(
                f"`{self.name}` must be built before `project` is called: call it on a "
                "query and a memory, or its `build(memory_shape, query_shape)`"
            )
        memory = ops.cast(memory, self.compute_dtype)
        return self.project_by(memory, self.constants())

    def valid(self, memory, mask=None, lengths=None):
        """Returns the mask of the memory, bool `(batch, source)`, None for all steps.

        Args:
            memory, mask, lengths: see the call arguments.

        Raises:
            ValueError: `mask` or `lengths` does not fit the memory.
        """
        if mask is None:
            mask = mask_of(memory)
        else:
            mask = tf.convert_to_tensor(mask)
            check_mask(self.name, mask, memory)
        if lengths is not None:
            lengths = tf.convert_to_tensor(lengths)
            check_lengths(self.name, lengths, memory)
        return as_mask(mask, lengths, memory)

    # A compiled loop runs these methods, so they take their weights as arguments.

    def constants(self):
        """Returns the weights by name, the `params` of the other methods."""
        return constants_of(self)

    def project_by(self, memory, params):
        """Returns the keys, as `project` does, with the weights in `params`."""
        del params
        return memory

    def score(self, query, keys, params):
        """Returns the scores, `(batch, steps, source)`.

        Args:
            query: `(batch, steps, size)`.
            keys: `(batch, source, size)`; see `project`.
            params: the weights by name; see `constants`.
        """
        raise NotImplementedError

    def window(self, query, valid, keys, params):
        """Returns the mask of each query and a factor of the weights, None if unused.

        Local attention overrides it. Both broadcast to `(batch, steps, source)`.

        Args:
            query, keys, params: see `score`.
            valid: bool `(batch, source)`, the mask of the memory, or None.
        """
        del query, keys, params
        return (None if valid is None else valid[:, None]), None

    def attend(self, query, memory, keys, valid, params):
        """Returns contexts `(batch, steps, features)` and weights
        `(batch, steps, source)`.

        Args:
            query: `(batch, steps, size)`.
            memory, keys: `(batch, source, ...)`.
            valid: bool `(batch, source)`, the mask of the memory, or None.
            params: see `constants`. An additional entry `loop`, "portable" or "fast",
                sets the loop of additive scores.
        """
        valid, factor = self.window(query, valid, keys, params)
        weights = masked_softmax(wide(self.score(query, keys, params)), valid)
        weights = weights if factor is None else weights * factor
        weights = ops.cast(weights, query.dtype)
        return ops.matmul(weights, memory), weights

    def call(self, query, memory, mask=None, lengths=None, keys=None):
        check_query(self, query, memory)
        valid = self.valid(memory, mask, lengths)
        params = self.constants()
        if query is None:
            shape = ops.shape(memory)[0], self.units
            query = ops.broadcast_to(params.query, shape)
        has_steps = len(query.shape) == 3
        keys = self.project_by(memory, params) if keys is None else keys
        queries = query if has_steps else query[:, None]
        context, weights = self.attend(queries, memory, keys, valid, params)
        return (context, weights) if has_steps else (context[:, 0], weights[:, 0])

    def compute_mask(self, query, previous_mask=None):
        """Returns None: the mask of the memory does not apply to the context."""

    def get_config(self):
        return super().get_config() | {"units": self.units}


class AdditiveScore(Attention):
    """`v · tanh(q Wq + h Wk)`, the score of Bahdanau and Luong's "concat"."""

    def add_additive_weights(self, memory_size):
        if self.query_size is not None:
            self.query_kernel = self.add_weight(
                (self.query_size, self.units), "glorot_uniform", name="query_kernel"
            )
        self.memory_kernel = self.add_weight(
            (memory_size, self.units), "glorot_uniform", name="memory_kernel"
        )
        self.scale = self.add_weight((self.units,), "glorot_uniform", name="scale")

    def additive_score(self, query, keys, params, scale, bias=0):
        if self.query_size is not None:
            query = project_steps(query, params.query_kernel)
        loop = vars(params).get("loop", "auto")
        return additive_scores(query + bias, keys, scale, loop)


@keras.saving.register_keras_serializable(PACKAGE)
class BahdanauAttention(AdditiveScore):
    """Additive attention (Bahdanau et al. 2015, arXiv:1409.0473).

        score(q, h) = v · tanh(q Wq + h Wk)
        normalized: score(q, h) = g v / ‖v‖ · tanh(q Wq + h Wk + b)

    Wq is `query_kernel`, Wk `memory_kernel`, v `scale`.

    Args:
        units: positive int, the size of v.
        normalize: bool, default False. Weight normalization of v (Salimans and Kingma
            2016), with the weights g, `gain`, and b, `bias`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        query: `(batch, size)`, or `(batch, steps, size)` for several queries. None
            learns one query for all rows (attention pooling).
        memory: `(batch, source, features)`, the sequence to read from.
        mask: bool `(batch, source)`, True for the steps of the memory to read; default
            the mask that the memory carries.
        lengths: int `(batch,)`, the number of steps to read in each row. Given with a
            mask, both apply.
        keys: the result of `project(memory)`, if already computed; default None.

    Returns:
        The context, `(batch, features)` or `(batch, steps, features)`, and the weights,
        `(batch, source)` or `(batch, steps, source)`. If all steps are masked, both are
        zero.

    Raises:
        ValueError: an argument is invalid, or shapes do not fit.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    query, memory = keras.random.normal((2, 5, 8)), keras.random.normal((2, 7, 16))
    context, weights = rk.BahdanauAttention(32)(query, memory, lengths=[7, 4])
    print(context.shape, weights.shape)  # (2, 5, 16) (2, 5, 7)
    ```
    """

    def __init__(self, units: int, *, normalize: bool = False, **kwargs) -> None:
        super().__init__(units, **kwargs)
        check_choice("normalize", normalize, (True, False))
        self.normalize = normalize

    def add_weights(self, memory_size):
        self.add_additive_weights(memory_size)
        if self.normalize:
            initializer = keras.initializers.Constant(math.sqrt(1 / self.units))
            self.gain = self.add_weight((), initializer, name="gain")
            self.bias = self.add_weight((self.units,), "zeros", name="bias")

    def project_by(self, memory, params):
        return project_steps(memory, params.memory_kernel)

    def score(self, query, keys, params):
        if not self.normalize:
            return self.additive_score(query, keys, params, params.scale)
        scale = wide(params.scale)
        norm = ops.sqrt(ops.maximum(ops.sum(ops.square(scale)), MIN_SQUARED_NORM))
        scale = params.gain * ops.cast(scale / norm, params.scale.dtype)
        return self.additive_score(query, keys, params, scale, params.bias)

    def get_config(self):
        return super().get_config() | {"normalize": self.normalize}


@keras.saving.register_keras_serializable(PACKAGE)
class LuongAttention(AdditiveScore):
    """Multiplicative attention, global or local (Luong et al. 2015, arXiv:1508.04025).

        dot:      score(q, h) = q · h
        general:  score(q, h) = q · (h Wk)
        concat:   score(q, h) = v · tanh(q Wq + h Wk)

    Local attention, with `local_window` D, reads only the steps within D of a predicted
    position p, with weights times a Gaussian centered at p. n is the number of unmasked
    steps:

        p = n σ(vp · tanh(q Wp))        α *= exp(-(s - p)² / (2 (D/2)²))

    Args:
        units: positive int: the size of v for "concat", of the query for "general", of
            query and memory for "dot".
        score: "dot" (default), "general" or "concat".
        local_window: positive int, D, or None (default) for global attention.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        query: `(batch, size)`, or `(batch, steps, size)` for several queries. None
            learns one query for all rows (attention pooling).
        memory: `(batch, source, features)`, the sequence to read from.
        mask: bool `(batch, source)`, True for the steps of the memory to read; default
            the mask that the memory carries. Local attention needs one that is True on
            the first steps of each row.
        lengths: int `(batch,)`, the number of steps to read in each row. Given with a
            mask, both apply.
        keys: the result of `project(memory)`, if already computed; default None.

    Returns:
        The context, `(batch, features)` or `(batch, steps, features)`, and the weights,
        `(batch, source)` or `(batch, steps, source)`. If all steps are masked, both are
        zero.

    Raises:
        ValueError: an argument is invalid, or shapes do not fit.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    query, memory = keras.random.normal((2, 5, 8)), keras.random.normal((2, 7, 16))
    context, weights = rk.LuongAttention(8, "general")(query, memory)
    print(context.shape, weights.shape)  # (2, 5, 16) (2, 5, 7)
    ```
    """

    def __init__(
        self,
        units: int,
        score: str = "dot",
        *,
        local_window: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(units, **kwargs)
        check_choice("score", score, SCORES)
        if local_window is not None:
            check_positive_integer("local_window", local_window)
        self.kind = score
        self.local_window = local_window

    def add_weights(self, memory_size):
        if self.kind == "concat":
            self.add_additive_weights(memory_size)
        else:
            sizes = {"units": self.units, "query": self.query_size}
            if self.kind == "dot":
                sizes["memory"] = memory_size
            rule = f"with score {self.kind!r} needs one size"
            check_equal_sizes(self, rule, **sizes)
        if self.kind == "general":
            self.memory_kernel = self.add_weight(
                (memory_size, self.units), "glorot_uniform", name="memory_kernel"
            )
        if self.local_window:
            size = self.query_size or self.units
            self.position_kernel = self.add_weight(
                (size, self.units), "glorot_uniform", name="position_kernel"
            )
            self.position_scale = self.add_weight(
                (self.units,), "glorot_uniform", name="position_scale"
            )

    def project_by(self, memory, params):
        return (
            memory
            if self.kind == "dot"
            else project_steps(memory, params.memory_kernel)
        )

    def score(self, query, keys, params):
        if self.kind == "concat":
            return self.additive_score(query, keys, params, params.scale)
        return tf.matmul(wide(query), wide(keys), transpose_b=True)  # unbounded

    def window(self, query, valid, keys, params):
        valid, _ = super().window(query, valid, keys, params)
        if not self.local_window:
            return valid, None
        hidden = ops.tanh(project_steps(query, params.position_kernel))
        share = ops.sigmoid(ops.sum(wide(hidden * params.position_scale), axis=-1))
        source = tf.shape(keys)[1]
        count = source if valid is None else tf.reduce_sum(tf.cast(valid, tf.int32), -1)
        steps = tf.cast(tf.range(source), share.dtype)
        distance = steps - (tf.cast(count, share.dtype) * share)[..., None]
        near = abs(distance) <= self.local_window
        bell = ops.exp(-2 * ops.square(distance / self.local_window))
        return near if valid is None else near & valid, bell

    def get_config(self):
        own = {"score": self.kind, "local_window": self.local_window}
        return super().get_config() | own


def masked_softmax(scores, valid):
    """Softmax over the last axis where `valid`, zero elsewhere; zeros if none is."""
    if valid is None:
        return tf.nn.softmax(scores)
    x = ops.where(valid, scores, scores.dtype.min)
    top = ops.stop_gradient(tf.reduce_max(x, axis=-1, keepdims=True))
    shares = ops.where(valid, ops.exp(x - top), 0)
    total = ops.sum(shares, axis=-1, keepdims=True)
    return shares / ops.where(total > 0, total, 1)


def project_steps(x, kernel):
    """`x @ kernel`, `(batch, steps, size)`, in one matrix product whose result a loop
    saves for its gradient.

    `ops.matmul` computes shapes in a way that XLA does not support inside a loop.
    """
    shape = ops.shape(x)
    rows = tf.matmul(tf.reshape(x, (-1, shape[2])), kernel)
    return save_residual(tf.reshape(rows, (*shape[:2], kernel.shape[1])))
