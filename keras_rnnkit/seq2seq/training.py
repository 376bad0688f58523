"""How models of sequences are trained: teacher forcing, loss and schedule."""

import contextlib
import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_rnnkit.arguments import PACKAGE, check_positive, check_probability
from keras_rnnkit.seq2seq.generation import PAD


@keras.saving.register_keras_serializable(PACKAGE)
class TokenCrossentropy(keras.losses.Loss):
    """The cross-entropy of tokens, in float32, the mean over those of weight.

        -(1 - ε) log p(y) - ε / V Σᵥ log p(v)

    V is the size of the vocabulary. `Seq2Seq` gives padding no weight.

    Args:
        label_smoothing: float in [0, 1), ε (Szegedy et al. 2016), default 0.

    Shapes: tokens `(batch, steps)`, logits `(batch, steps, vocabulary)`.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        reduction: str | None = "mean_with_sample_weight",
        name: str | None = "token_crossentropy",
        **kwargs,
    ) -> None:
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_probability("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        logits = ops.cast(y_pred, "float32")
        loss = keras.losses.sparse_categorical_crossentropy(
            ops.cast(y_true, "int32"), logits, from_logits=True
        )
        if not self.label_smoothing:
            return loss
        spread = -ops.mean(ops.log_softmax(logits), axis=-1)
        return (1 - self.label_smoothing) * loss + self.label_smoothing * spread

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(PACKAGE)
class InverseSigmoid(keras.optimizers.schedules.LearningRateSchedule):
    """How often a decoder is fed its own answers: ever more (Bengio et al. 2015).

        p(step) = 1 - k / (k + exp(step / k))

    Args:
        k: float > 0, in training steps; p is one half at `k log k`.
    """

    def __init__(self, k: float) -> None:
        check_positive("k", k)
        self.k = k

    def __call__(self, step):
        # The same, without a number that overflows.
        return ops.sigmoid(ops.cast(step, "float32") / self.k - math.log(self.k))

    def get_config(self):
        return {"k": self.k}


class Training:
    """What `Seq2Seq` does to be trained: it is fed the target, one step behind."""

    def compile(
        self,
        optimizer="adam",
        loss=None,
        *,
        label_smoothing=0.0,
        weighted_metrics=("accuracy",),
        **kwargs,
    ):
        """As `keras.Model.compile`; the loss is the cross-entropy of each token.

        Args:
            loss: one of tokens `(batch, steps)` and logits `(batch, steps,
                vocabulary)`, as `TokenCrossentropy` is, which is the default.
            label_smoothing: of the default loss; see `TokenCrossentropy`.
            weighted_metrics: as in Keras; these leave padding out.

        Raises:
            ValueError: a loss or a metric that does not take tokens and logits; a loss
                of probabilities; `label_smoothing` beside a loss of your own.
        """
        if loss is None:
            loss = TokenCrossentropy(label_smoothing)
        elif label_smoothing:
            raise ValueError(
                "`label_smoothing` must be 0 beside a `loss` of your own; received "
                f"{label_smoothing}: give it to the loss"
            )
        metrics = weighted_metrics or None
        self._check_compiled("loss", loss)
        for name, given in {
            "weighted_metrics": metrics,
            "metrics": kwargs.get("metrics"),
        }.items():
            self._check_compiled(name, given)
        super().compile(optimizer, loss, weighted_metrics=metrics, **kwargs)

    def _check_compiled(self, name, given):
        """Raises `ValueError` unless a loss or metrics take tokens and logits.

        A model of logits alone tries them, in the way that `fit` would.
        """
        if given is None:
            return
        vocabulary = self.target_embedding.input_dim
        wants = (
            f"`{name}` must take tokens `(batch, steps)` and logits `(batch, steps, "
            f"{vocabulary})`, as `TokenCrossentropy` does; received {given!r}"
        )
        for each in keras.tree.flatten(given):
            each = keras.losses.get(each) if name == "loss" else each
            if each is keras.losses.sparse_categorical_crossentropy or (
                name == "loss" and getattr(each, "from_logits", True) is False
            ):
                raise ValueError(f"{wants}, which is of probabilities")
        # No two of these numbers are one, so that no wrong shapes fit by chance.
        rows, steps = 2, 3
        logits = keras.Input((steps, vocabulary))
        probe = keras.Model(logits, keras.layers.Identity()(logits))
        tokens, weights = ops.ones((rows, steps), "int32"), ops.ones((rows, steps))
        said = ops.zeros((rows, steps, vocabulary))
        try:
            probe.compile(**({"loss": None} | {name: given}))
            if name == "loss":
                probe.compute_loss(None, tokens, said, weights)
            else:
                probe.compute_metrics(None, tokens, said, weights)
                probe.reset_metrics()
        except Exception as error:
            shapes = isinstance(error, tf.errors.OpError)  # those of a kernel say less
            why = "" if shapes else f": {str(error).splitlines()[0]}"
            raise ValueError(f"{wants}{why}") from error

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """As `keras.Model.fit`, of sources and targets.

        A target ends with `end_id`, or goes without where it was cut. Where no row has
        it a model could not learn to end its answers: that is an error, of arrays at
        once, of other data in the first batch of a training (but not with
        `jit_compile=True`, which leaves such checks out).

        Raises:
            ValueError: no target has `end_id`.
        """
        if hasattr(y, "__array__"):
            tokens = np.asarray(y)
            if tokens.size and not np.any(tokens == self.end_id):
                raise ValueError(self._no_end)
        with self._ends_asked_for():
            return super().fit(x, y, *args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        """As `keras.Model.train_on_batch`, with the error of `fit`."""
        with self._ends_asked_for():
            return super().train_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _ends_asked_for(self):
        """Raises the error of a graph in which no target ends as a `ValueError`."""
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            if self._no_end not in error.message:
                raise
            raise ValueError(self._no_end) from None

    @property
    def _no_end(self):
        return (
            f"targets must end with `end_id`; received none with {self.end_id}: append "
            "it to each, before the padding"
        )

    def train_step(self, data):
        data = self._teacher_forced(data)
        target = data[1]
        ended = tf.reduce_any(tf.equal(target, tf.cast(self.end_id, target.dtype)))
        later = self.optimizer.iterations > 0
        # Left out by XLA, which has no assertions.
        there = tf.debugging.Assert(
            later | ended | tf.equal(tf.size(target), 0), [self._no_end]
        )
        with tf.control_dependencies([] if there is None else [there]):
            return super().train_step(data)

    def test_step(self, data):
        return super().test_step(self._teacher_forced(data))

    def _teacher_forced(self, data):
        source, target, weight = keras.utils.unpack_x_y_sample_weight(data)
        if target is None:
            raise ValueError(
                f"`{self.name}` needs targets to be trained on; received none"
            )
        start = tf.fill((tf.shape(target)[0], 1), self.start_id)
        before = tf.concat([tf.cast(start, target.dtype), target[:, :-1]], axis=1)
        counts = tf.cast(tf.not_equal(target, PAD), "float32")
        if weight is not None:
            weight = tf.cast(weight, "float32")
            counts *= weight if weight.shape.rank == 2 else weight[:, None]
        return (source, before), target, counts
