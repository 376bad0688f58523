"""The part of a model below its readouts, which computes their features."""

import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.convert import check_model
from keras_rnnkit.internals import all_layers
from keras_rnnkit.reservoir.shared_graphs import SharedGraph
from keras_rnnkit.reservoir.streaming import can_stream, run_chunk

CHUNK_BYTES = 1 << 26  # of the features of a chunk
MAX_CHUNK_STEPS = 1 << 14

_extractors = weakref.WeakKeyDictionary()


class FeatureExtractor:
    """A model without its readouts, the `Dense` layers that compute its outputs.

    Args:
        model: a built functional or sequential model.

    Attributes:
        model: `keras.Model` from the inputs to the features of each readout.
        readouts: list of `keras.layers.Dense`, one for each output.
        names: list of str, the keys of the outputs in a dict of targets.
        has_tokens: bool, whether inputs `(batch, steps)` are token ids.
        can_stream: bool, whether sequences can run in chunks of steps.

    Raises:
        ValueError: an output does not come from a linear `Dense` layer, a readout feeds
            another, or a layer below is trainable.
    """

    def __init__(self, model):
        check_model(model)
        self.readouts = [_readout_of(model, output) for output in model.outputs]
        _check_frozen(model, self.readouts)
        features = [readout.input for readout in self.readouts]
        is_sequential = isinstance(model, keras.Sequential)
        inputs = model.inputs if is_sequential else model.input
        self.model = keras.Model(inputs, features)
        for readout in self.readouts:
            if readout in self.model.layers:
                raise ValueError(
                    f"a readout of `{model.name}` must not feed another; received "
                    f"`{readout.name}`, which does"
                )
        self.names = [readout.name for readout in self.readouts]
        if not is_sequential and isinstance(model.output, dict):
            self.names = keras.tree.flatten({name: name for name in model.output})
        self.has_tokens = any(
            isinstance(each, keras.layers.Embedding) for each in model.layers
        )
        self.can_stream = self._has_sequence_input() and can_stream(self.model)

    def extract(self, x, lengths=None, training=False):
        """Runs a batch, and yields the features of each chunk of steps.

        Args:
            x: the inputs of a batch, a tensor or a nested structure of tensors.
            lengths: int `(batch,)`, the steps of each row without padding, or None.
            training: bool.

        Yields:
            `(start, features, masks)`: the first step of the chunk, and lists with one
            entry for each readout. Features are `(batch, steps, width)`, or `(batch,
            width)` for a readout of the last step; masks `(batch, steps)` or None.
        """
        states, start = [], 0
        is_only_chunk = not self.has_next_chunk(x, 0)
        run = SharedGraph(run_chunk, self.model)
        for chunk in self.chunks(x):
            remaining = self.remaining_lengths(lengths, start)
            features, masks, states = run(
                chunk, states, remaining, training, is_only_chunk
            )
            states = list(states.values())
            yield start, features, masks
            start += chunk.shape[1] if tf.is_tensor(chunk) else 0

    def _has_sequence_input(self) -> bool:
        """Whether the model has a single input, and that is a sequence."""
        ranks = [len(x.shape) for x in self.model.inputs]
        return len(ranks) == 1 and ranks[0] > (1 if self.has_tokens else 2)

    def remaining_lengths(self, lengths, start):
        """The lengths counted from step `start`, or None if no layer needs them.

        Only readouts of the last step need them: padding does not change the steps
        before it.
        """
        if lengths is None or all(len(y.shape) > 2 for y in self.model.outputs):
            return None
        return tf.constant(np.maximum(lengths - start, 0))

    def has_next_chunk(self, x, start) -> bool:
        """Whether another chunk follows the one that begins at step `start`."""
        size = self._chunk_size(x)
        return size is not None and start + size < x.shape[1]

    def chunks(self, x, size=None):
        """Yields a batch in chunks of `size` steps, by default as memory allows."""
        size = size or self._chunk_size(x)
        if size is None:
            yield x
            return
        for start in range(0, x.shape[1], size):
            yield x[:, start : start + size]

    def _chunk_size(self, x):
        """The steps of a chunk, or None if the batch runs in one piece."""
        if not self.can_stream or not tf.is_tensor(x) or not x.shape[1]:
            return None
        width = sum(y.shape[-1] for y in self.model.outputs)
        steps = CHUNK_BYTES // (4 * width * max(x.shape[0], 1))
        return min(MAX_CHUNK_STEPS, max(64, 1 << max(steps, 1).bit_length() - 1))


def feature_extractor_of(model) -> FeatureExtractor:
    """The `FeatureExtractor` of a model, made once for each model."""
    if model in _extractors:
        _check_frozen(model, _extractors[model].readouts)
    else:
        _extractors[model] = FeatureExtractor(model)
    return _extractors[model]


def _readout_of(model, output):
    """The linear `Dense` layer that computes an output of a model."""
    for layer in model.layers:
        if not isinstance(layer, keras.Model) and _computes(layer, output):
            is_linear = getattr(layer, "activation", None) is keras.activations.linear
            if type(layer) is keras.layers.Dense and is_linear:
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


def _computes(layer, output) -> bool:
    try:
        return layer.output is output
    except (AttributeError, ValueError):  # not called, or called more than once
        return False


def _check_frozen(model, readouts):
    """Raises `ValueError` if a layer below the readouts is trainable."""
    allowed = {id(w) for readout in readouts for w in readout.weights}
    for layer in all_layers(model):
        if isinstance(layer, keras.Model):
            continue
        if any(id(w) not in allowed for w in layer.trainable_weights):
            raise ValueError(
                f"all layers of `{model.name}` except its readouts must be frozen; "
                f"received `{layer.name}`: set its `trainable = False`"
            )
