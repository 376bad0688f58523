"""The deep recurrent network."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import tree

from keras_rnnkit.arguments import PACKAGE, check_choice, check_probability
from keras_rnnkit.layers.rnn import RNN
from keras_rnnkit.layers.sequence import SequenceLayer
from keras_rnnkit.recurrence import (
    RowFunction,
    compiled_function,
    current_stream,
    elements,
    gradients,
    is_often,
    ordinary_function,
    ordinary_ops,
)


@keras.saving.register_keras_serializable(PACKAGE)
class StackedRNN(SequenceLayer):
    """The deep recurrent network: each layer is fed the sequence of the one below.

        h⁽ˡ⁾ₜ = layer_l(h⁽ˡ⁻¹⁾₁ … h⁽ˡ⁻¹⁾ₜ),    h⁽⁰⁾ₜ = xₜ

    Args:
        layers: list of recurrent layers, of this package or of Keras, `Bidirectional`
            and `StackedRNN` among them. The stack takes them over: it sets their
            `return_sequences`, `return_state` and `stateful`.
        residual: bool, default False. Adds a layer's input to its output, (He et al.
            2016) from the second layer on, and to the first's if the sizes are equal.
            With `return_sequences=False` the last layer's input is taken at the last
            unmasked step.
        dropout: float in [0, 1), default 0, between the layers.
        outputs: "last", or "all" to return the outputs of all layers side by side, as a
            readout of a deep echo state network sees them (Gallicchio et al. 2017).
        return_sequences: bool, default False: the last layer's whole sequence.
        return_state: bool, default False: also the states of all layers, in order.
        go_backwards: bool, default False: run over the reversed sequence.
        stateful: bool, default False; see `keras.layers.RNN`.
        seed: int or None, of the dropout.

    Call arguments, shapes and errors are those of `RNN`; `initial_state` holds the
    states of all layers, in order.

    Raises:
        ValueError: no layer, one that is not recurrent, that runs backwards or returns
            two sequences; a skip over layers of different sizes; `residual` without
            `return_sequences` above a bidirectional layer.
    """

    def __init__(
        self,
        layers: Sequence[keras.layers.Layer],
        *,
        residual: bool = False,
        dropout: float = 0.0,
        outputs: str = "last",
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        seed: int | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(layers, (list, tuple)) or not layers:
            raise ValueError(f"`layers` must be a list of layers; received {layers!r}")
        self.layers = list(layers)
        self._check_layers(residual and not return_sequences)
        check_probability("dropout", dropout)
        check_choice("outputs", outputs, ("last", "all"))
        self.residual = residual
        self.dropout = dropout
        self.outputs = outputs
        self.go_backwards = go_backwards
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        for layer in self.layers[:-1]:
            set_flag(layer, "return_sequences", True)
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.stateful = stateful

    def _check_layers(self, last_step_is_taken):
        if len({id(layer) for layer in self.layers}) < len(self.layers):
            raise ValueError(
                "`layers` must be different layers; received "
                f"{[layer.name for layer in self.layers]}, one of them twice"
            )
        for number, layer in enumerate(self.layers):
            subject = f"`layers[{number}]`"
            if not hasattr(layer, "return_sequences"):
                raise ValueError(
                    f"{subject} must be a recurrent layer; received {layer}"
                )
            if getattr(layer, "go_backwards", False):
                raise ValueError(
                    f"{subject} must run forwards; received {layer.name} with "
                    "`go_backwards=True`: give it to the stack"
                )
            if getattr(layer, "merge_mode", "concat") is None:
                raise ValueError(
                    f"{subject} must return one sequence; received {layer.name} with "
                    "`merge_mode=None`"
                )
        if last_step_is_taken and hasattr(self.layers[-1], "backward_layer"):
            raise ValueError(
                "`residual=True` above a bidirectional layer needs "
                "`return_sequences=True`: its two directions end at different steps"
            )

    # What the layers share with the stack

    @property
    def return_sequences(self):
        return self.layers[-1].return_sequences

    @return_sequences.setter
    def return_sequences(self, value):
        set_flag(self.layers[-1], "return_sequences", value)

    @property
    def return_state(self):
        return self.layers[0].return_state

    @return_state.setter
    def return_state(self, value):
        for layer in self.layers:
            set_flag(layer, "return_state", value)

    @property
    def stateful(self):
        return self.layers[0].stateful

    @stateful.setter
    def stateful(self, value):
        for layer in self.layers:
            set_flag(layer, "stateful", value)

    @property
    def zero_output_for_mask(self):
        return getattr(self.layers[-1], "zero_output_for_mask", None)

    @zero_output_for_mask.setter
    def zero_output_for_mask(self, value):
        self.layers[-1].zero_output_for_mask = value

    @property
    def state_size(self):
        """The sizes of the states of all layers, in order."""
        return [size for layer in self.layers for size in state_sizes(layer)]

    @property
    def states(self):
        """The states of a stateful stack, or `None`."""
        states = [layer.states for layer in self.layers]
        return None if None in states else [s for each in states for s in each]

    def reset_state(self):
        """Sets the states of a stateful stack to zero."""
        for layer in self.layers:
            layer.reset_state()

    # The chain

    def build(self, sequences_shape, initial_state_shape=None):
        super().build(sequences_shape)
        for number, layer in enumerate(self.layers):
            layer.build(sequences_shape)
            below, above = sequences_shape[-1], output_shape(layer, sequences_shape)[-1]
            if self.residual and number and above != below:
                raise ValueError(
                    f"`residual=True` needs layers of one size; received {below} below "
                    f"and {above} above `layers[{number}]`"
                )
            sequences_shape = (*sequences_shape[:2], above)

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        states, widths = [], []
        for layer in self.layers:
            if self.return_state:
                states += layer.compute_output_shape(sequences_shape)[1:]
            sequences_shape = output_shape(layer, sequences_shape)
            widths.append(sequences_shape[-1])
        if self.outputs == "all":
            sequences_shape = (*sequences_shape[:-1], sum(widths))
        return (sequences_shape, *states) if self.return_state else sequences_shape

    def compute_mask(self, _, mask):
        mask = tree.flatten(mask)[0] if self.return_sequences else None
        if not self.return_state:
            return mask
        return [mask] + [None] * len(tree.flatten(self.state_size))

    def run(self, sequences, initial_state, mask, training):
        x = sequences
        if self.go_backwards:
            x = tf.reverse(x, [1])
            mask = None if mask is None else tf.reverse(mask, [1])
        if training or not self._runs_whole(x):
            return self._run_layers(x, initial_state, mask, training)

        # A core takes its rows through all layers in one go. In training, where this
        # would not be faster, XLA would draw other random numbers for the dropout.
        weights = [w.value for w in self.weights]
        rows, given = [x, *(initial_state or [])], [] if mask is None else [mask]
        often = None
        if all(layer.loop == "auto" for layer in self.layers):
            often = is_often(x, elements(weights))
        outputs = self._of_rows()(rows, weights, given, often)
        return tuple(outputs) if self.return_state else outputs[0]

    def _of_rows(self):
        """The stack as a function of some rows and of its weights."""

        def forward(rows, shared, given):
            (x, *states), (mask,) = rows, given or [None]
            values = zip(self.weights, shared, strict=True)
            with keras.StatelessScope(state_mapping=values):
                return tree.flatten(self._run_layers(x, states or None, mask))

        def backward(rows, shared, given, d_results):
            def results():
                return forward(rows, shared, given)

            return tuple(gradients(results, [rows, shared], d_results))

        def in_ordinary_ops(function):
            def run(*values):
                with ordinary_ops():
                    return function(*values)

            return run

        functions = forward, backward
        return RowFunction(
            [ordinary_function(in_ordinary_ops(each)) for each in functions],
            [compiled_function(each) for each in functions],
            in_ordinary_ops(forward),
        )

    def _runs_whole(self, sequences):
        """Whether XLA can compile the layers as one, for rows apart."""
        shape = sequences.shape
        if shape[1] is None or not tf.is_symbolic_tensor(sequences):
            return False
        if current_stream():
            return False
        for layer in self.layers:
            if not isinstance(layer, RNN) or type(layer).call is not RNN.call:
                return False
            if layer.stateful or layer.activity_regularizer:
                return False
            if not layer.takes_fast_loop(shape):
                return False
            shape = (*shape[:2], output_shape(layer, shape)[-1])
        return True

    def _run_layers(self, x, initial_state, mask, training=False):
        states, outputs = [], []
        for number, layer in enumerate(self.layers):
            if number and training and self.dropout:
                x = keras.random.dropout(x, self.dropout, seed=self.seed_generator)
            first = None
            if initial_state is not None:
                count = len(state_sizes(layer))
                first, initial_state = initial_state[:count], initial_state[count:]
            output = layer(x, initial_state=first, mask=mask, training=training)
            if self.return_state:
                output, *own = output
                states += own
            x = self._add_skip(output, x, mask)
            outputs.append(x)
        if self.outputs == "all":
            if not self.return_sequences:
                outputs[:-1] = [self._last_step(y, mask) for y in outputs[:-1]]
            x = tf.concat(outputs, axis=-1)
        return (x, *states) if self.return_state else x

    def _add_skip(self, output, x, mask):
        if not self.residual or output.shape[-1] != x.shape[-1]:
            return output
        return output + (x if len(output.shape) == 3 else self._last_step(x, mask))

    def _last_step(self, x, mask):
        """The last unmasked step; of a stream, also one of the calls before."""
        last, stream = last_step(x, mask), current_stream()
        if mask is None or not stream:
            return last
        (before,) = stream.enter([f"{self.name}_last"], [tf.zeros_like(last)])
        any_now = tf.reduce_any(mask, axis=1, keepdims=True)
        last = tf.where(any_now, last, before)
        stream.leave([last])
        return last

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return super().get_config() | {
            "layers": [serialize(layer) for layer in self.layers],
            "residual": self.residual,
            "dropout": self.dropout,
            "outputs": self.outputs,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        deserialize = keras.saving.deserialize_keras_object
        layers = [deserialize(each, custom_objects) for each in config["layers"]]
        return cls(**(config | {"layers": layers}))


def state_sizes(layer):
    """The sizes of a layer's states; of both directions of a `Bidirectional`."""
    if hasattr(layer, "state_size"):
        return list(layer.state_size)
    return [*state_sizes(layer.forward_layer), *state_sizes(layer.backward_layer)]


def output_shape(layer, shape):
    """The shape of a layer's output, without its states."""
    shape = layer.compute_output_shape(shape)
    return shape[0] if layer.return_state else shape


def set_flag(layer, name, value):
    """Sets an attribute of a recurrent layer and of the two of a `Bidirectional`."""
    setattr(layer, name, value)
    for direction in ("forward_layer", "backward_layer"):
        if hasattr(layer, direction):
            set_flag(getattr(layer, direction), name, value)
            if name == "return_sequences":  # as `Bidirectional` does when it is made
                getattr(layer, direction).zero_output_for_mask = value


def last_step(sequences, mask):
    """The last unmasked step of each row, `(batch, features)`; zeros without one."""
    padded = tf.pad(sequences, [[0, 0], [1, 0], [0, 0]])
    if mask is None:
        return padded[:, -1]
    ordinal = tf.range(1, tf.shape(sequences)[1] + 1) * tf.cast(mask, tf.int32)
    last = tf.reduce_max(tf.pad(ordinal, [[0, 0], [1, 0]]), axis=1)
    return tf.gather(padded, last, batch_dims=1)
