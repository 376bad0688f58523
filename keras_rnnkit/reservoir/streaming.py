"""Runs a model a chunk of steps at a time, with the states carried between chunks."""

import keras
import tensorflow as tf

from keras_rnnkit.convert import call_any_steps, check_model
from keras_rnnkit.internals import all_layers, mask_of
from keras_rnnkit.layers import RNN, StackedRNN
from keras_rnnkit.layers.sequence import SequenceLayer
from keras_rnnkit.recurrence import DEFAULT, Policy, current_policy

# Layers, and operations of `keras.ops`, that compute each step from that step alone.
STEPWISE = {
    *("InputLayer", "Dense", "Embedding", "Masking", "Identity"),
    *("Activation", "ReLU", "LeakyReLU", "ELU", "Rescaling"),
    *("Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    *("Square", "Sqrt", "Absolute", "Negative", "Tanh", "Sigmoid", "Relu", "Exp"),
    *("Sin", "Cos", "Cast", "Power", "TrueDivide", "Divide", "NotEqual"),
}
STEPWISE_ON_LAST_AXIS = {
    *("Concatenate", "LayerNormalization", "BatchNormalization", "Normalization"),
    *("Softmax", "Any"),
}


def run_stream(model, x, states, lengths=None, training=False, carry_outputs=False):
    """Runs a chunk of steps from given states.

    Args:
        model: a model of one input, or of several if `states` is empty.
        x: `(batch, steps, ...)`.
        states: dict of tensors by name, or a list of them in the order in which the
            layers use them; empty for the layers' initial states.
        lengths: int `(batch,)`, the valid steps of each row, or None for all.
        training: bool.
        carry_outputs: bool, whether a mask at the start of the next chunk repeats the
            last output of this one.

    Returns:
        `(outputs, masks, states)`: two lists, and a dict in the order of the layers.
    """
    policy = current_policy()
    if policy is DEFAULT:  # Only the loop in ordinary ops carries outputs.
        policy = Policy(compiled=not carry_outputs)
    mask = None if lengths is None else tf.sequence_mask(lengths, tf.shape(x)[1])
    with policy.active(), policy.streaming((), states or None, mask) as stream:
        outputs = call_any_steps(model, x, training)
    outputs = keras.tree.flatten(outputs)
    masks = [mask_of(y) for y in outputs]
    return outputs, masks, {name: stream.last[name] for name in stream.first}


def run_chunk(model, x, states, lengths, training, is_only_chunk):
    """Calls `run_stream`; carries outputs if steps are masked and chunks follow."""
    carry_outputs = not is_only_chunk and (lengths is not None or has_masks(model))
    return run_stream(model, x, states, lengths, training, carry_outputs)


def can_stream(model) -> bool:
    """Whether a model is known to give the same results chunk by chunk."""
    try:
        check_model(model)
    except ValueError:
        return False
    if isinstance(model, keras.Sequential):
        return all(map(_can_stream_layer, model.layers))
    return all(
        _can_stream_layer(each) and _has_uniform_inputs(each)
        for each in model.operations
    )


def has_masks(model) -> bool:
    """Whether a layer of Keras masks steps."""
    return any(
        isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
        for layer in all_layers(model)
    )


def _has_uniform_inputs(layer) -> bool:
    """Whether the inputs of a layer are all sequences or all not, so that it gets
    neither an initial state nor a last step next to a sequence."""
    inputs = [x for x in keras.tree.flatten(layer.input) if x.dtype != "bool"]  # masks
    if isinstance(layer, SequenceLayer):
        return len(inputs) == 1
    return len({len(x.shape) for x in inputs}) <= 1


def _can_stream_layer(layer) -> bool:
    if isinstance(layer, keras.Model):
        return can_stream(layer)
    if isinstance(layer, StackedRNN):
        return not layer.go_backwards and all(map(_can_stream_layer, layer.layers))
    if isinstance(layer, RNN):
        return _is_forward_rnn(layer)
    kind, axis = type(layer), getattr(layer, "axis", None)
    if not kind.__module__.startswith("keras."):
        return False
    if isinstance(layer, keras.layers.TimeDistributed):  # may wrap a recurrent layer
        return not any(map(_is_recurrent, all_layers(layer)))
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    if kind.__name__ not in STEPWISE_ON_LAST_AXIS:
        return kind.__name__ in STEPWISE
    rank = len(keras.tree.flatten(layer.input)[0].shape)
    return axis in (-1, rank - 1) and rank > 2


def _is_recurrent(layer) -> bool:
    return isinstance(layer, (SequenceLayer, keras.layers.RNN))


def _is_forward_rnn(layer) -> bool:
    has_own_call = type(layer).call is not RNN.call
    return not (has_own_call or layer.go_backwards or layer.stateful)
