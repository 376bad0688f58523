"""What a model computes below its readouts, some steps at a time."""

import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.convert import call_any_steps, check_model
from keras_rnnkit.internals import all_layers, mask_of
from keras_rnnkit.layers import RNN, StackedRNN
from keras_rnnkit.layers.sequence import SequenceLayer
from keras_rnnkit.recurrence import DEFAULT, Policy, current_policy
from keras_rnnkit.reservoir.traced import Traced

BYTES = 1 << 26  # of features in a chunk
MOST_STEPS = 1 << 14
# Layers, and operations of `keras.ops`, that compute each step from itself alone.
STEPWISE = {
    *("InputLayer", "Dense", "Embedding", "Masking", "Identity"),
    *("Activation", "ReLU", "LeakyReLU", "ELU", "Rescaling"),
    *("Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout"),
    *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    *("Square", "Sqrt", "Absolute", "Negative", "Tanh", "Sigmoid", "Relu", "Exp"),
    *("Sin", "Cos", "Cast", "Power", "TrueDivide", "Divide", "NotEqual"),
}
ALONG_FEATURES = {  # if their axis is the last one
    *("Concatenate", "LayerNormalization", "BatchNormalization", "Normalization"),
    *("Softmax", "Any"),
}

_bodies = weakref.WeakKeyDictionary()


class Body:
    """A model without its readouts, the `Dense` layers that make its outputs.

    Args:
        model: a built functional or sequential model.

    Attributes:
        readouts: list of `keras.layers.Dense`, one for each output.
        names: list of str, what each output is called in a dict of targets.
        has_tokens: bool, whether inputs `(batch, steps)` are numbers of words.
        streams: bool, whether sequences can be run some steps at a time.

    Raises:
        ValueError: an output that no linear `Dense` layer makes, or that feeds another,
            or a layer below that still trains.
    """

    def __init__(self, model):
        check_model(model)
        self.readouts = [_readout(model, output) for output in model.outputs]
        _check_frozen(model, self.readouts)
        below = [readout.input for readout in self.readouts]
        plain = isinstance(model, keras.Sequential)
        self.model = keras.Model(model.inputs if plain else model.input, below)
        for readout in self.readouts:
            if readout in self.model.layers:
                raise ValueError(
                    f"a readout of `{model.name}` must not feed another; received "
                    f"`{readout.name}`, which does"
                )
        self.names = [readout.name for readout in self.readouts]
        if not plain and isinstance(model.output, dict):
            self.names = keras.tree.flatten({name: name for name in model.output})
        self.has_tokens = any(
            isinstance(each, keras.layers.Embedding) for each in model.layers
        )
        self.streams = self._has_steps() and does_stream(self.model)

    def features(self, x, lengths=None, training=False):
        """Runs a batch: yields the steps so far, the features, and their masks.

        Args:
            x: the inputs of a batch, a tensor or a nest of them.
            lengths: int `(batch,)`, the steps of each row that are no padding; or None.
            training: bool.

        Yields:
            `(start, features, masks)`, lists of one for each readout: `(batch, steps,
            width)`, or `(batch, width)` with the last chunk; masks `(batch, steps)`
            or None.
        """
        states, start = [], 0
        whole = not self.has_more(x, 0)
        run = Traced(features_of, self.model)
        for chunk in self.chunks(x):
            left = self.left(lengths, start)
            features, masks, states = run(chunk, states, left, training, whole)
            states = list(states.values())
            yield start, features, masks
            start += chunk.shape[1] if tf.is_tensor(chunk) else 0

    def _has_steps(self) -> bool:
        """Whether the model has one input, and that is a sequence."""
        ranks = [len(x.shape) for x in self.model.inputs]
        return len(ranks) == 1 and ranks[0] > (1 if self.has_tokens else 2)

    def left(self, lengths, start):
        """The steps of each row from `start` on, if a layer has to be told of them.

        What follows a sequence changes nothing before it: only what is said last does.
        """
        if lengths is None or all(len(y.shape) > 2 for y in self.model.outputs):
            return None
        return tf.constant(np.maximum(lengths - start, 0))

    def has_more(self, x, start) -> bool:
        """Whether chunks follow the one that begins at a step."""
        return self._size(x) is not None and start + self._size(x) < x.shape[1]

    def chunks(self, x, size=None):
        """The steps of a batch, some at a time: `size`, or as many as memory takes."""
        size = size or self._size(x)
        if size is None:
            yield x
            return
        for start in range(0, x.shape[1], size):
            yield x[:, start : start + size]

    def _size(self, x):
        """The steps of a chunk; None for sequences that are run whole."""
        if not self.streams or not tf.is_tensor(x) or not x.shape[1]:
            return None
        width = sum(y.shape[-1] for y in self.model.outputs)
        steps = BYTES // (4 * width * max(x.shape[0], 1))
        return min(MOST_STEPS, max(64, 1 << max(steps, 1).bit_length() - 1))


def body_of(model) -> Body:
    """The body of a model."""
    if model in _bodies:
        _check_frozen(model, _bodies[model].readouts)
    else:
        _bodies[model] = Body(model)
    return _bodies[model]


def run_stream(model, x, states, lengths=None, training=False, held=False):
    """Runs steps of sequences from states, as they were left by the steps before.

    Args:
        model: a model of one input, or of several if `states` is empty.
        x: `(batch, steps, ...)`.
        states: dict of tensors by name, or a list of them in the order in which the
            layers take them; empty for those that the layers begin with.
        lengths: int `(batch,)`, the steps of each row that count, or None for all.
        training: bool.
        held: bool, whether the output that masked steps hold is handed on too.

    Returns:
        `(outputs, masks, states)`: lists, and a dict in the order as above.
    """
    policy = current_policy()
    if policy is DEFAULT:  # Only in ordinary ops is an output handed on.
        policy = Policy(compiled=not held)
    mask = None if lengths is None else tf.sequence_mask(lengths, tf.shape(x)[1])
    with policy.active(), policy.streaming((), states or None, mask) as stream:
        outputs = call_any_steps(model, x, training)
    outputs = keras.tree.flatten(outputs)
    masks = [mask_of(y) for y in outputs]
    return outputs, masks, {name: stream.last[name] for name in stream.first}


def features_of(model, x, states, lengths, training, whole):
    """What `run_stream` gives for a chunk, if `whole` the only one."""
    held = not whole and (lengths is not None or has_masks(model))
    return run_stream(model, x, states, lengths, training, held)


def does_stream(model) -> bool:
    """Whether a model surely gives the same, run some steps at a time."""
    try:
        check_model(model)
    except ValueError:
        return False
    if isinstance(model, keras.Sequential):
        return all(map(_does_stream, model.layers))
    return all(_does_stream(each) and _is_fed(each) for each in model.operations)


def has_masks(model) -> bool:
    """Whether a layer of Keras masks steps."""
    return any(
        isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False)
        for layer in all_layers(model)
    )


def _is_fed(layer) -> bool:
    """Whether what goes into a layer has steps, or all of it has none: no first state,
    nor a last step beside a sequence."""
    inputs = [x for x in keras.tree.flatten(layer.input) if x.dtype != "bool"]  # masks
    if isinstance(layer, SequenceLayer):
        return len(inputs) == 1
    return len({len(x.shape) for x in inputs}) <= 1


def _does_stream(layer) -> bool:
    if isinstance(layer, keras.Model):
        return does_stream(layer)
    if isinstance(layer, StackedRNN):
        return not layer.go_backwards and all(map(_does_stream, layer.layers))
    if isinstance(layer, RNN):
        return _is_forward(layer)
    kind, axis = type(layer), getattr(layer, "axis", None)
    if not kind.__module__.startswith("keras."):
        return False
    if isinstance(layer, keras.layers.TimeDistributed):  # may hold another sequence
        return not any(map(_is_recurrent, all_layers(layer)))
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    if kind.__name__ not in ALONG_FEATURES:
        return kind.__name__ in STEPWISE
    rank = len(keras.tree.flatten(layer.input)[0].shape)
    return axis in (-1, rank - 1) and rank > 2


def _is_recurrent(layer) -> bool:
    return isinstance(layer, (SequenceLayer, keras.layers.RNN))


def _is_forward(layer) -> bool:
    own = type(layer).call is RNN.call
    return own and not layer.go_backwards and not layer.stateful


def _readout(model, output):
    """The linear `Dense` layer that makes an output of a model."""
    for layer in model.layers:
        if not isinstance(layer, keras.Model) and _makes(layer, output):
            linear = getattr(layer, "activation", None) is keras.activations.linear
            if type(layer) is keras.layers.Dense and linear:
                return layer
            kind = type(layer).__name__
            if type(layer) is keras.layers.Dense:
                kind = f"activation {keras.activations.serialize(layer.activation)!r}"
            raise ValueError(
                f"the output of `{model.name}` must come from a `Dense` layer with a "
                f"linear activation; received `{layer.name}`, {kind}"
            )
    raise ValueError(
        f"the output of `{model.name}` must come from a `Dense` layer of its own; "
        "received an operation, or a layer of another model"
    )


def _makes(layer, output) -> bool:
    try:
        return layer.output is output
    except (AttributeError, ValueError):  # not called, or more than once
        return False


def _check_frozen(model, readouts):
    """Raises `ValueError` if a layer below the readouts trains."""
    kept = {id(w) for readout in readouts for w in readout.weights}
    for layer in all_layers(model):
        if isinstance(layer, keras.Model):
            continue
        if any(id(w) not in kept for w in layer.trainable_weights):
            raise ValueError(
                f"all layers of `{model.name}` but its readout must be frozen; received"
                f" `{layer.name}`, which trains: set `trainable = False`"
            )
