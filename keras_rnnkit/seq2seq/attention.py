"""Attention: a query is compared with each step of a memory, and reads from it."""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_rnnkit.arguments import (
    PACKAGE,
    check_choice,
    check_positive_integer,
)
from keras_rnnkit.cells.split import constants_of
from keras_rnnkit.internals import mask_of
from keras_rnnkit.layers.checks import check_lengths, check_mask
from keras_rnnkit.recurrence import as_mask, keep, wide
from keras_rnnkit.seq2seq.additive import additive_scores

SMALLEST = 1e-12  # a squared norm that is divided by
SCORES = "dot", "general", "concat"


class Attention(keras.layers.Layer):
    """What all attention layers share; a layer of this kind writes `score`.

        αₛ = softmaxₛ(score(q, hₛ))        c = Σₛ αₛ hₛ

    q is the query, h the memory. Steps that a mask leaves out have no weight; if none
    is left, weights and context are zero.

    Args:
        units: positive int, the size in which query and memory are compared.

    Call arguments:
        query: `(batch, size)`, or `(batch, steps, size)` for several at once; None for
            one that is learned, the same for all rows: attention pooling.
        memory: `(batch, source, features)`.
        mask: bool `(batch, source)`, the steps of the memory that count; default the
            mask that the memory carries.
        lengths: int `(batch,)`, stands for a mask of the first steps.
        keys: what `project(memory)` returned, if it is there already.

    Returns:
        The context, `(batch, features)` or `(batch, steps, features)`, and the weights,
        `(batch, source)` or `(batch, steps, source)`.

    Raises:
        ValueError: wrong shapes; see the message.
    """

    def __init__(self, units: int, **kwargs) -> None:
        super().__init__(**kwargs)
        check_positive_integer("units", units)
        self.units = units
        self.supports_masking = True

    def build(self, memory_shape, query_shape=None):
        self._check_rank("memory", memory_shape, (3,))
        self.query_size = None if query_shape is None else query_shape[-1]
        if query_shape is None:
            self.query = self.add_weight((self.units,), "glorot_uniform", name="query")
        else:
            self._check_rank("query", query_shape, (2, 3))
        self.add_weights(memory_shape[-1])

    def add_weights(self, memory_size):
        """Adds the weights; `query_size` is known by then, None if it is learned."""

    def project(self, memory):
        """The keys, `(batch, source, size)`: what of the score needs no query."""
        if not self.built:
            raise ValueError(
                f"`{self.name}` must be built before `project` is called: call it on a "
                "query and a memory, or its `build(memory_shape, query_shape)`"
            )
        memory = ops.cast(memory, self.compute_dtype)
        return self.project_by(memory, self.constants())

    def valid(self, memory, mask=None, lengths=None):
        """The steps of the memory that count, bool `(batch, source)`, or None for all;
        see `call`."""
        if mask is None:
            mask = mask_of(memory)
        else:
            mask = tf.convert_to_tensor(mask)
            check_mask(self.name, mask, memory)
        if lengths is not None:
            lengths = tf.convert_to_tensor(lengths)
            check_lengths(self.name, lengths, memory)
        return as_mask(mask, lengths, memory)

    # As functions of weights that are given: so they run on a compiled loop.

    def constants(self):
        """The weights by name."""
        return constants_of(self)

    def project_by(self, memory, k):
        """See `project`."""
        del k
        return memory

    def score(self, query, keys, k):
        """Returns scores `(batch, steps, source)` of queries `(batch, steps, size)`."""
        raise NotImplementedError

    def window(self, query, valid, keys, k):
        """What a layer that looks at a part of the memory changes: the steps that
        count, `(batch, steps, source)`, and a factor of the weights, or None."""
        del query, keys, k
        return (None if valid is None else valid[:, None]), None

    def attend(self, query, memory, keys, valid, k):
        """Contexts `(batch, steps, features)` and weights `(batch, steps, source)`.

        Args:
            query: `(batch, steps, size)`.
            memory, keys: `(batch, source, ...)`.
            valid: bool `(batch, source)`, or None for all.
            k: see `constants`; may tell a `loop`, "portable" or "fast", for scores that
                have a loop of their own.
        """
        valid, factor = self.window(query, valid, keys, k)
        weights = masked_softmax(wide(self.score(query, keys, k)), valid)
        weights = weights if factor is None else weights * factor
        weights = ops.cast(weights, query.dtype)
        return ops.matmul(weights, memory), weights

    def call(self, query, memory, mask=None, lengths=None, keys=None):
        self._check_sizes(query, memory)
        valid = self.valid(memory, mask, lengths)
        k = self.constants()
        if query is None:
            shape = ops.shape(memory)[0], self.units
            query = ops.broadcast_to(k.query, shape)
        several = len(query.shape) == 3
        keys = self.project_by(memory, k) if keys is None else keys
        queries = query if several else query[:, None]
        context, weights = self.attend(queries, memory, keys, valid, k)
        return (context, weights) if several else (context[:, 0], weights[:, 0])

    def compute_mask(self, query, previous_mask=None):
        """None: the mask of the memory says nothing of what is read from it."""

    def get_config(self):
        return super().get_config() | {"units": self.units}

    def _check_rank(self, name, shape, ranks):
        if len(shape) not in ranks or shape[-1] is None:
            allowed = {2: "(batch, size)", 3: "(batch, steps, size)"}
            raise ValueError(
                f"`{name}` of `{self.name}` must have shape "
                f"{' or '.join(allowed[rank] for rank in ranks)} of known size; "
                f"received shape {tuple(shape)}"
            )

    def _check_sizes(self, query, memory):
        if (query is None) != (self.query_size is None):
            rule, built = ("given", "with") if query is None else ("None", "without")
            received = None if query is None else f"shape {tuple(query.shape)}"
            raise ValueError(
                f"`query` of `{self.name}` must be {rule}, as it was built {built} "
                f"one; received {received}"
            )
        if query is None:
            return
        batches = query.shape[0], memory.shape[0]
        if None not in batches and batches[0] != batches[1]:
            raise ValueError(
                f"query and memory of `{self.name}` must have the same batch size; "
                f"received shapes {tuple(query.shape)} and {tuple(memory.shape)}"
            )
        if self.query_size != query.shape[-1]:
            raise ValueError(
                f"`query` of `{self.name}` must have size {self.query_size}; received "
                f"shape {tuple(query.shape)}"
            )

    def _check_equal(self, rule, **sizes):
        if len(set(sizes.values()) - {None}) > 1:
            received = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise ValueError(f"`{self.name}` {rule}; received {received}")


class AdditiveScore(Attention):
    """`v · tanh(q Wq + h Wk)`, the score of Bahdanau, and of Luong's "concat"."""

    def add_additive_weights(self, memory_size):
        if self.query_size is not None:
            self.query_kernel = self.add_weight(
                (self.query_size, self.units), "glorot_uniform", name="query_kernel"
            )
        self.memory_kernel = self.add_weight(
            (memory_size, self.units), "glorot_uniform", name="memory_kernel"
        )
        self.scale = self.add_weight((self.units,), "glorot_uniform", name="scale")

    def additive_score(self, query, keys, k, scale, bias=0):
        if self.query_size is not None:
            query = times(query, k.query_kernel)
        loop = vars(k).get("loop", "auto")
        return additive_scores(query + bias, keys, scale, loop)


@keras.saving.register_keras_serializable(PACKAGE)
class BahdanauAttention(AdditiveScore):
    """Additive attention (Bahdanau et al. 2015, arXiv:1409.0473).

        score(q, h) = v · tanh(q Wq + h Wk)
        normalized: score(q, h) = g v / ‖v‖ · tanh(q Wq + h Wk + b)

    Wq is `query_kernel`, Wk `memory_kernel`, v `scale`. Call arguments, shapes and
    errors are those of `Attention`.

    Args:
        units: positive int, the size of v.
        normalize: bool, default False. Weight normalization of v (Salimans and Kingma
            2016), with the weights g, `gain`, and b, `bias`.
    """

    def __init__(self, units: int, *, normalize: bool = False, **kwargs) -> None:
        super().__init__(units, **kwargs)
        check_choice("normalize", normalize, (True, False))
        self.normalize = normalize

    def add_weights(self, memory_size):
        self.add_additive_weights(memory_size)
        if self.normalize:
            first = keras.initializers.Constant(math.sqrt(1 / self.units))
            self.gain = self.add_weight((), first, name="gain")
            self.bias = self.add_weight((self.units,), "zeros", name="bias")

    def project_by(self, memory, k):
        return times(memory, k.memory_kernel)

    def score(self, query, keys, k):
        if not self.normalize:
            return self.additive_score(query, keys, k, k.scale)
        scale = wide(k.scale)
        norm = ops.sqrt(ops.maximum(ops.sum(ops.square(scale)), SMALLEST))
        scale = k.gain * ops.cast(scale / norm, k.scale.dtype)
        return self.additive_score(query, keys, k, scale, k.bias)

    def get_config(self):
        return super().get_config() | {"normalize": self.normalize}


@keras.saving.register_keras_serializable(PACKAGE)
class LuongAttention(AdditiveScore):
    """Multiplicative attention, global or local (Luong et al. 2015, arXiv:1508.04025).

        dot:      score(q, h) = q · h
        general:  score(q, h) = q · (h Wk)
        concat:   score(q, h) = v · tanh(q Wq + h Wk)

    With a `local_window` D, α is of the steps within D of a predicted position p, times
    a bell about it; n is the number of steps that count:

        p = n σ(vp · tanh(q Wp))        α *= exp(-(s - p)² / (2 (D/2)²))

    Call arguments, shapes and errors are those of `Attention`; a mask of a local
    attention has to be one of first steps.

    Args:
        units: positive int: the size of v for "concat"; of the query for "general"; of
            query and memory for "dot".
        score: "dot", "general" or "concat".
        local_window: positive int, D, or None for global attention.
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
            self._check_equal(rule, **sizes)
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

    def project_by(self, memory, k):
        return memory if self.kind == "dot" else times(memory, k.memory_kernel)

    def score(self, query, keys, k):
        if self.kind == "concat":
            return self.additive_score(query, keys, k, k.scale)
        return tf.matmul(wide(query), wide(keys), transpose_b=True)  # unbounded

    def window(self, query, valid, keys, k):
        valid, _ = super().window(query, valid, keys, k)
        if not self.local_window:
            return valid, None
        hidden = ops.tanh(times(query, k.position_kernel))
        share = ops.sigmoid(ops.sum(wide(hidden * k.position_scale), axis=-1))
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
    """Softmax over the last axis where `valid`, zero elsewhere; zeros without any."""
    if valid is None:
        return tf.nn.softmax(scores)
    x = ops.where(valid, scores, scores.dtype.min)
    top = ops.stop_gradient(tf.reduce_max(x, axis=-1, keepdims=True))
    shares = ops.where(valid, ops.exp(x - top), 0)
    total = ops.sum(shares, axis=-1, keepdims=True)
    return shares / ops.where(total > 0, total, 1)


def times(x, kernel):
    """`x @ kernel`, `(batch, steps, size)`, as one product, which a loop is to keep.

    `ops.matmul` works its shapes out in a way that XLA refuses within a loop.
    """
    shape = ops.shape(x)
    rows = tf.matmul(tf.reshape(x, (-1, shape[2])), kernel)
    return keep(tf.reshape(rows, (*shape[:2], kernel.shape[1])))
