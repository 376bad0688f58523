"""Training of sequence-to-sequence models: teacher forcing, loss and schedule."""

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
    """Cross-entropy of tokens with logits, computed in float32.

        -(1 - ε) log p(y) - ε / V Σᵥ log p(v)

    V is the size of the vocabulary. `Seq2Seq` sets the weight of padding to zero.

    Args:
        label_smoothing: float in [0, 1), ε (Szegedy et al. 2016), default 0.
        reduction: str, as in Keras; default "mean_with_sample_weight", the weighted
            mean over tokens.
        name: str.
        **kwargs: those of `keras.losses.Loss`, such as `dtype`.

    Call arguments:
        y_true: int `(batch, steps)`, the tokens.
        y_pred: float `(batch, steps, vocabulary)`, the logits.

    Raises:
        ValueError: `label_smoothing` is outside [0, 1).

    Example:

    ```python
    import numpy as np
    from keras_rnnkit.seq2seq import TokenCrossentropy

    tokens, logits = np.array([[1, 3]]), np.zeros((1, 2, 4), "float32")
    print(float(TokenCrossentropy(label_smoothing=0.1)(tokens, logits)))  # log 4
    ```
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
        uniform = -ops.mean(ops.log_softmax(logits), axis=-1)
        return (1 - self.label_smoothing) * loss + self.label_smoothing * uniform

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(PACKAGE)
class InverseSigmoid(keras.optimizers.schedules.LearningRateSchedule):
    """A rising schedule of the probability of scheduled sampling (Bengio et al. 2015).

        p(step) = 1 - k / (k + exp(step / k))

    Args:
        k: float > 0, in training steps; p is 0.5 at step `k log k`.

    Call arguments:
        step: int or scalar tensor, the training step.

    Returns:
        A float32 scalar, p.

    Raises:
        ValueError: `k` is not above 0.

    Example:

    ```python
    import keras_rnnkit as rk

    schedule = rk.seq2seq.InverseSigmoid(1000)  # pass it as `Seq2Seq(sampling=...)`
    print([float(schedule(step)) for step in (0, 6908, 20000)])  # 0.001, 0.5, 1
    ```
    """

    def __init__(self, k: float) -> None:
        check_positive("k", k)
        self.k = k

    def __call__(self, step):
        # An equal form that does not overflow.
        return ops.sigmoid(ops.cast(step, "float32") / self.k - math.log(self.k))

    def get_config(self):
        return {"k": self.k}


class Training:
    """The part of `Seq2Seq` that trains it by teacher forcing."""

    def compile(
        self,
        optimizer="adam",
        loss=None,
        *,
        label_smoothing=0.0,
        weighted_metrics=("accuracy",),
        **kwargs,
    ):
        """Configures the model for training, as `keras.Model.compile` does.

        Args:
            optimizer: as in Keras; default "adam".
            loss: a loss of tokens `(batch, steps)` and logits `(batch, steps,
                vocabulary)`; default `TokenCrossentropy`.
            label_smoothing: float in [0, 1), default 0, of the default loss; see
                `TokenCrossentropy`.
            weighted_metrics: as in Keras, default `("accuracy",)`; they ignore padding.
            **kwargs: the other arguments of `keras.Model.compile`.

        Raises:
            ValueError: a loss or a metric does not take tokens and logits, a loss takes
                probabilities, or `label_smoothing` is set together with `loss`.
        """
        if loss is None:
            loss = TokenCrossentropy(label_smoothing)
        elif label_smoothing:
            raise ValueError(
                "`label_smoothing` must be 0 with a `loss` of your own; received "
                f"{label_smoothing}: pass it to the loss"
            )
        metrics = weighted_metrics or None
        self._check_takes_logits("loss", loss)
        for name, given in {
            "weighted_metrics": metrics,
            "metrics": kwargs.get("metrics"),
        }.items():
            self._check_takes_logits(name, given)
        super().compile(optimizer, loss, weighted_metrics=metrics, **kwargs)

    def _check_takes_logits(self, name, given):
        """Raises `ValueError` unless a loss or metrics take tokens and logits.

        A small model that returns its logits calls them the way `fit` does.
        """
        if given is None:
            return
        vocabulary = self.target_embedding.input_dim
        message = (
            f"`{name}` must take tokens `(batch, steps)` and logits `(batch, steps, "
            f"{vocabulary})`, as `TokenCrossentropy` does; received {given!r}"
        )
        for each in keras.tree.flatten(given):
            each = keras.losses.get(each) if name == "loss" else each
            if each is keras.losses.sparse_categorical_crossentropy or (
                name == "loss" and getattr(each, "from_logits", True) is False
            ):
                raise ValueError(f"{message}, which takes probabilities")
        # The sizes differ, so that wrong shapes do not fit by chance.
        rows, steps = 2, 3
        logits = keras.Input((steps, vocabulary))
        probe = keras.Model(logits, keras.layers.Identity()(logits))
        tokens, weights = ops.ones((rows, steps), "int32"), ops.ones((rows, steps))
        predicted = ops.zeros((rows, steps, vocabulary))
        try:
            probe.compile(**({"loss": None} | {name: given}))
            if name == "loss":
                probe.compute_loss(None, tokens, predicted, weights)
            else:
                probe.compute_metrics(None, tokens, predicted, weights)
                probe.reset_metrics()
        except Exception as error:
            is_kernel = isinstance(error, tf.errors.OpError)  # its text does not help
            reason = "" if is_kernel else f": {str(error).splitlines()[0]}"
            raise ValueError(f"{message}{reason}") from error

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """Trains the model, as `keras.Model.fit` does.

        Targets must end with `end_id`, except truncated ones: if none did, the model
        could not learn to end its answers. Arrays are checked before training, other
        data in the first batch, but not with `jit_compile=True`, which has no
        assertions.

        Args:
            x: int array `(batch, source)`, or a dataset of `(source, target)`.
            y: int array `(batch, target)`; None for a dataset.
            *args, **kwargs: the other arguments of `keras.Model.fit`.

        Returns:
            A Keras `History`.

        Raises:
            ValueError: no target contains `end_id`.
        """
        if hasattr(y, "__array__"):
            tokens = np.asarray(y)
            if tokens.size and not np.any(tokens == self.end_id):
                raise ValueError(self._missing_end)
        with self._missing_end_as_value_error():
            return super().fit(x, y, *args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        """Trains on one batch, as `keras.Model.train_on_batch`; raises as `fit`."""
        with self._missing_end_as_value_error():
            return super().train_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _missing_end_as_value_error(self):
        """Turns the assertion error of `train_step` into a `ValueError`."""
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            if self._missing_end not in error.message:
                raise
            raise ValueError(self._missing_end) from None

    @property
    def _missing_end(self):
        return (
            f"targets must end with `end_id`; received none with {self.end_id}: append "
            "it to each, before the padding"
        )

    def train_step(self, data):
        data = self._teacher_forced(data)
        target = data[1]
        has_end = tf.reduce_any(tf.equal(target, tf.cast(self.end_id, target.dtype)))
        is_later = self.optimizer.iterations > 0
        # None under XLA, which has no assertions.
        assertion = tf.debugging.Assert(
            is_later | has_end | tf.equal(tf.size(target), 0), [self._missing_end]
        )
        with tf.control_dependencies([] if assertion is None else [assertion]):
            return super().train_step(data)

    def test_step(self, data):
        return super().test_step(self._teacher_forced(data))

    def _teacher_forced(self, data):
        """Returns `((source, decoder input), target, weights without padding)`."""
        source, target, weight = keras.utils.unpack_x_y_sample_weight(data)
        if target is None:
            raise ValueError(f"`{self.name}` needs targets for training; received none")
        start = tf.fill((tf.shape(target)[0], 1), self.start_id)
        decoder_input = tf.concat(
            [tf.cast(start, target.dtype), target[:, :-1]], axis=1
        )
        weights = tf.cast(tf.not_equal(target, PAD), "float32")
        if weight is not None:
            weight = tf.cast(weight, "float32")
            weights *= weight if weight.shape.rank == 2 else weight[:, None]
        return (source, decoder_input), target, weights
