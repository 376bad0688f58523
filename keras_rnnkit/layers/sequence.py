"""How every recurrent layer is called: checks, lengths, and masks handed on."""

import keras
import tensorflow as tf

from keras_rnnkit.internals import set_masks
from keras_rnnkit.layers.checks import (
    check_call,
    check_stream,
    input_spec,
    uniform,
)
from keras_rnnkit.recurrence import as_mask, current_stream


class SequenceLayer(keras.layers.Layer):
    """A layer that is called with `(sequences, initial_state, mask, lengths)`.

    A layer subclasses this class, and one of Keras's after it if it has a namesake, and
    writes `run`. `state_size` tells the states that it takes.
    """

    def run(self, sequences, initial_state, mask, training, **of_subclass):
        """What `call` returns, from arguments that are checked.

        Args:
            sequences: `(batch, time, ...)`.
            initial_state: as it was given, tensors of the right shapes, or `None`.
            mask: bool `(batch, time)`, or `None`.
            training: bool.
        """
        raise NotImplementedError

    def __call__(self, sequences, *args, **kwargs):
        if isinstance(sequences, tf.RaggedTensor):
            sequences = uniform(self.name, sequences)
        return super().__call__(sequences, *args, **kwargs)

    def build(self, sequences_shape, initial_state_shape=None):
        self.input_spec = input_spec(self, sequences_shape)
        super().build(sequences_shape)

    def call(
        self, sequences, initial_state=None, mask=None, training=False, lengths=None
    ):
        return self.run_checked(sequences, initial_state, mask, training, lengths)

    def run_checked(
        self, sequences, initial_state, mask, training, lengths, **of_subclass
    ):
        """Checks the arguments of a call, and runs it."""
        if isinstance(sequences, tf.RaggedTensor):
            sequences, lengths = dense(sequences, lengths)
        initial_state, mask, lengths = check_call(
            self, sequences, initial_state, mask, lengths
        )
        check_stream(self, lengths)
        mask = as_mask(mask, lengths, sequences)
        if (stream := current_stream()) and stream.mask is not None:
            mask = stream.mask if mask is None else tf.logical_and(mask, stream.mask)
        outputs = self.run(sequences, initial_state, mask, training, **of_subclass)
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
        **of_subclass,
    ):
        check_call(self, sequences, initial_state, mask, lengths)
        if initial_state is not None:
            of_subclass["initial_state"] = initial_state
        return super().compute_output_spec(sequences, **of_subclass)


def dense(ragged, lengths):
    """A ragged tensor as `(sequences, lengths)`; of lengths beside it the lesser."""
    own = ragged.row_lengths()
    if lengths is not None:
        own = tf.minimum(own, tf.cast(lengths, own.dtype))
    return ragged.to_tensor(), own
