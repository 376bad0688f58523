"""The base class of recurrent layers: call arguments, lengths and masks."""

import keras
import tensorflow as tf

from keras_rnnkit.internals import set_masks
from keras_rnnkit.layers.checks import (
    check_stream,
    checked_call,
    input_spec,
    ragged_in_time,
)
from keras_rnnkit.recurrence import as_mask, current_stream


class SequenceLayer(keras.layers.Layer):
    """A layer that is called with `(sequences, initial_state, mask, lengths)`.

    A layer subclasses this class and then its namesake in Keras, if it has one, and
    defines `run` and `state_size`, the sizes of its states.
    """

    def run(self, sequences, initial_state, mask, training, **extra):
        """Returns the layer's outputs from checked arguments.

        Args:
            sequences: `(batch, time, ...)`.
            initial_state: list of tensors `(batch, size)` or `(1, size)`, or `None`.
            mask: bool `(batch, time)`, or `None`.
            training: bool.
            **extra: arguments that only the subclass takes.
        """
        raise NotImplementedError

    def __call__(self, sequences, *args, **kwargs):
        if isinstance(sequences, tf.RaggedTensor):
            sequences = ragged_in_time(self.name, sequences)
        return super().__call__(sequences, *args, **kwargs)

    def build(self, sequences_shape, initial_state_shape=None):
        self.input_spec = input_spec(self, sequences_shape)
        super().build(sequences_shape)

    def call(
        self, sequences, initial_state=None, mask=None, training=False, lengths=None
    ):
        return self.run_checked(sequences, initial_state, mask, training, lengths)

    def run_checked(self, sequences, initial_state, mask, training, lengths, **extra):
        """Checks the call arguments, combines masks and lengths, and calls `run`."""
        if isinstance(sequences, tf.RaggedTensor):
            sequences, lengths = dense(sequences, lengths)
        initial_state, mask, lengths = checked_call(
            self, sequences, initial_state, mask, lengths
        )
        check_stream(self, lengths)
        mask = as_mask(mask, lengths, sequences)
        if (stream := current_stream()) and stream.mask is not None:
            mask = stream.mask if mask is None else tf.logical_and(mask, stream.mask)
        outputs = self.run(sequences, initial_state, mask, training, **extra)
        if lengths is not None:
            set_masks(outputs, self.compute_mask(sequences, mask))
        return outputs

    def compute_output_spec(
        self,
        sequences,
        initial_state=None,
        mask=None,
        training=False,
        lengths=None,
        **extra,
    ):
        checked_call(self, sequences, initial_state, mask, lengths)
        if initial_state is not None:
            extra["initial_state"] = initial_state
        return super().compute_output_spec(sequences, **extra)


def dense(ragged, lengths):
    """Returns a ragged tensor as `(sequences, lengths)`, at most the given lengths."""
    row_lengths = ragged.row_lengths()
    if lengths is not None:
        row_lengths = tf.minimum(row_lengths, tf.cast(lengths, row_lengths.dtype))
    return ragged.to_tensor(), row_lengths
