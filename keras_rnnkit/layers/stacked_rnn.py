"""Stacks of recurrent layers."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import tree

from keras_rnnkit.arguments import PACKAGE, check_choice, check_probability
from keras_rnnkit.layers.checks import check_stack
from keras_rnnkit.layers.layer_stack import (
    LayerStack,
    output_shape,
    set_flag,
    state_sizes,
)
from keras_rnnkit.layers.rnn import RNN
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
class StackedRNN(LayerStack):
    """A deep recurrent network: each layer gets the output sequence of the one below.

        h⁽ˡ⁾ₜ = layer_l(h⁽ˡ⁻¹⁾₁ … h⁽ˡ⁻¹⁾ₜ),    h⁽⁰⁾ₜ = xₜ

    Args:
        layers: list of recurrent layers, of this package or of Keras, `Bidirectional`
            and `StackedRNN` included. The stack sets their `return_sequences`,
            `return_state` and `stateful`.
        residual: bool, default False. Adds a layer's input to its output (He et al.
            2016) from the second layer on, and in the first if the sizes are equal.
            With `return_sequences=False` the last layer adds its input at the last
            valid step.
        dropout: float in [0, 1), default 0. The dropout rate between the layers.
        outputs: "last" or "all", default "last". "all" concatenates the outputs of all
            layers, for the readout of a deep echo state network (Gallicchio et al.
            2017).
        return_sequences: bool, default False. Returns the outputs of all steps rather
            than the last one.
        return_state: bool, default False. Also returns the final states of all layers,
            in order.
        go_backwards: bool, default False. Reverses the input sequence.
        stateful: bool, default False. Starts from the final states of the previous
            call.
        seed: int or None, default None. The seed of the dropout.
        **kwargs: `name`, `dtype` and `trainable`, as for `keras.layers.Layer`.

    Call arguments, shapes and errors are those of `RNN`. `initial_state` holds the
    states of all layers, in order.

    Raises:
        ValueError: there is no layer; a layer is not recurrent, runs backwards or
            returns two sequences; `residual` joins layers of different sizes, or needs
            `return_sequences` above a bidirectional layer.

    Example:

    ```python
    layer = rk.StackedRNN([rk.LSTM(8), rk.GRU(8)], residual=True, dropout=0.1)
    y = layer(np.zeros((2, 5, 3)))  # (2, 8)
    ```
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
        check_stack(self.layers, residual and not return_sequences)
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

    def build(self, sequences_shape, initial_state_shape=None):
        super().build(sequences_shape)
        for number, layer in enumerate(self.layers):
            layer.build(sequences_shape)
            below, above = sequences_shape[-1], output_shape(layer, sequences_shape)[-1]
            if self.residual and number and above != below:
                raise ValueError(
                    f"`residual=True` needs layers of the same size; received {below} "
                    f"below and {above} above `layers[{number}]`"
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
        if training or not self._compiles_as_one(x):
            return self._run_layers(x, initial_state, mask, training)

        # Each core runs its rows through all layers at once. Not in training, where it
        # is not faster and XLA would draw other random numbers for the dropout.
        weights = [w.value for w in self.weights]
        rows, masks = [x, *(initial_state or [])], [] if mask is None else [mask]
        often = None
        if all(layer.loop == "auto" for layer in self.layers):
            often = is_often(x, elements(weights))
        outputs = self._row_function()(rows, weights, masks, often)
        return tuple(outputs) if self.return_state else outputs[0]

    def _row_function(self):
        """The stack as a function of rows of the batch and of its weights."""

        def forward(rows, shared, masks):
            (x, *states), (mask,) = rows, masks or [None]
            values = zip(self.weights, shared, strict=True)
            with keras.StatelessScope(state_mapping=values):
                return tree.flatten(self._run_layers(x, states or None, mask))

        def backward(rows, shared, masks, d_results):
            def results():
                return forward(rows, shared, masks)

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

    def _compiles_as_one(self, sequences):
        """Whether XLA can compile all layers as one function of rows of the batch."""
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
        """The last valid step, in a stream also of the previous calls."""
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


def last_step(sequences, mask):
    """The last valid step of each row, `(batch, features)`, zeros if there is none."""
    padded = tf.pad(sequences, [[0, 0], [1, 0], [0, 0]])
    if mask is None:
        return padded[:, -1]
    ordinal = tf.range(1, tf.shape(sequences)[1] + 1) * tf.cast(mask, tf.int32)
    last = tf.reduce_max(tf.pad(ordinal, [[0, 0], [1, 0]]), axis=1)
    return tf.gather(padded, last, batch_dims=1)
