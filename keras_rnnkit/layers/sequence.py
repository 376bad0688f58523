"""How every recurrent layer is called: checks, lengths, and masks handed on."""

import inspect

import keras
from keras import tree

from keras_rnnkit.layers.checks import check_call, input_spec
from keras_rnnkit.layers.forms import check_stream
from keras_rnnkit.recurrence import as_mask


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
        initial_state, mask, lengths = check_call(
            self, sequences, initial_state, mask, lengths
        )
        check_stream(self, lengths)
        mask = as_mask(mask, lengths, sequences)
        outputs = self.run(sequences, initial_state, mask, training, **of_subclass)
        if lengths is not None:
            masks = tree.flatten(self.compute_mask(sequences, mask))
            for output, own_mask in zip(tree.flatten(outputs), masks, strict=False):
                output._keras_mask = own_mask  # as Keras itself hands a mask on
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


def takes(layer, argument: str) -> bool:
    """Whether a layer's or cell's `call` has an argument."""
    return argument in inspect.signature(layer.call).parameters
