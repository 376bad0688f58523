"""Base classes of the SimpleRNN, LSTM and GRU cells: weights, dropout, zoneout."""

import keras
from keras import ops

from keras_rnnkit.arguments import check_positive_integer, check_probability
from keras_rnnkit.cells.split_cell import SplitCell

sigmoid = keras.activations.sigmoid
EPSILON = 1e-3  # the default of `keras.layers.LayerNormalization`


class KerasCompatibleCell(SplitCell):
    """A split cell with the arguments and weights of its namesake in Keras.

    A cell subclasses this class and the namesake, in that order, and sets `gates`, the
    number of blocks in its kernels.
    """

    gates = 1
    state_names = ("h",)

    def __init__(self, units, *args, **kwargs):
        check_positive_integer("units", units)
        given = self.signature.bind_partial(self, units, *args, **kwargs).arguments
        for name in ("dropout", "recurrent_dropout"):
            check_probability(name, given.get(name, 0.0))
        super().__init__(units, *args, **kwargs)

    @property
    def is_plain(self) -> bool:
        """Whether fused kernels can compute this cell, with its default equations."""
        return bool(
            self.activation is keras.activations.tanh
            and getattr(self, "recurrent_activation", sigmoid) is sigmoid
            and self.use_bias
            and getattr(self, "reset_after", True)
            and not any(getattr(self, option) for option in self.options)
        )

    def get_config(self):
        config = super().get_config() | {n: getattr(self, n) for n in self.options}
        if hasattr(self, "implementation"):
            config["implementation"] = self.implementation
        return config

    def add_gate_weights(self, features, width, bias_shape, bias_initializer=None):
        """Adds `kernel`, `recurrent_kernel` and `bias`, with Keras's names and shapes.

        Args:
            features: size of the input's last axis.
            width: size of the state that `recur` multiplies.
            bias_shape: shape of the bias, which is added only with `use_bias`.
            bias_initializer: replaces `self.bias_initializer`.
        """
        if features is None:
            raise ValueError(
                f"the last axis of the input of `{self.name}` must have a known size; "
                "received None: give it, as in `keras.Input(shape=(steps, features))`"
            )
        self.kernel = self._add("kernel", (features, self.gates * self.units))
        self.recurrent_kernel = self._add(
            "recurrent_kernel", (width, self.gates * self.units), "recurrent"
        )
        self.bias = None
        if self.use_bias:
            self.bias = self._add("bias", bias_shape, "bias", bias_initializer)

    def _add(self, name, shape, like="kernel", initializer=None):
        """Adds a weight with the initializer, regularizer and constraint of `like`."""
        initializer = initializer or getattr(self, f"{like}_initializer")
        if isinstance(initializer, keras.initializers.Orthogonal):
            initializer = _in_float32(initializer)
        return self.add_weight(
            shape=shape,
            name=name,
            initializer=initializer,
            regularizer=getattr(self, f"{like}_regularizer"),
            constraint=getattr(self, f"{like}_constraint"),
        )

    def _add_gain(self, name, shape):
        return self.add_weight(shape=shape, name=name, initializer="ones")

    # Dropout masks are drawn once per sequence from the cell's seed generator, in the
    # same order as in Keras; there is a list of them if Keras has one for each gate.

    @property
    def is_split(self):
        methods = "get_dropout_mask", "get_recurrent_dropout_mask", "step_constants"
        own = {name: getattr(type(self), name) for name in methods}
        stock = keras.layers.LSTMCell
        return (
            super().is_split
            and own["step_constants"] is KerasCompatibleCell.step_constants
            and all(own[name] is getattr(stock, name) for name in methods[:2])
        )

    def constants(self):
        """Returns the weights by name; `dropout` and `recurrent_dropout` are `None`."""
        params = super().constants()
        params.dropout = params.recurrent_dropout = None
        return params

    def row_constants(self, batch_size, training=False):
        """Returns the dropout masks of training, none in inference.

        `dropout` is `(batch, features)`, `recurrent_dropout` `(batch, width)`.
        """
        kernels = {"dropout": self.kernel, "recurrent_dropout": self.recurrent_kernel}
        return {
            name: self._masks(batch_size, kernel, getattr(self, name))
            for name, kernel in kernels.items()
            if training and getattr(self, name)
        }

    def _masks(self, batch_size, kernel, rate):
        ones = ops.ones((batch_size, kernel.shape[0]), self.compute_dtype)
        masks = [
            keras.random.dropout(ones, rate, seed=self.seed_generator)
            for _ in range(getattr(self, "dropout_mask_count", 1))
        ]
        return masks if hasattr(self, "dropout_mask_count") else masks[0]

    def step_constants(self, inputs, states, training):
        params = self.constants()
        if training:  # Keras's own loop has the masks of a sequence kept on the cell.
            params.dropout = self.get_dropout_mask(inputs)
            params.recurrent_dropout = self.get_recurrent_dropout_mask(states[0])
        return params


class ZoneoutCell(KerasCompatibleCell):
    """A gated cell with zoneout (Krueger et al. 2017, arXiv:1606.01305).

    In training each unit keeps its previous state with probability p, drawn at each
    step. In inference the new state is the expectation, `p s_{t-1} + (1 - p) s_t`.
    """

    @property
    def zoneout_rates(self):
        """The rates, one for each state."""
        sizes = self.state_size
        count = len(sizes) if isinstance(sizes, (list, tuple)) else 1
        given = self.zoneout
        return list(given) if isinstance(given, (list, tuple)) else [given] * count

    def set_zoneout(self, zoneout):
        """Sets one rate for all states, or one for each."""
        self.zoneout = list(zoneout) if isinstance(zoneout, tuple) else zoneout
        for rate in self.zoneout_rates:
            check_probability("zoneout", rate)
        sizes = keras.tree.flatten(self.state_size)
        if len(self.zoneout_rates) != len(sizes):
            raise ValueError(
                f"`zoneout` must be a number or {len(sizes)} of them, one for each "
                f"state; received {self.zoneout!r}"
            )

    def draw_noise(self, shape, training=False):
        """Returns masks, one for each state: 1 where a unit keeps its state, else 0."""
        if not training or not any(self.zoneout_rates):
            return None
        return [
            ops.cast(
                keras.random.uniform((*shape, size), seed=self.seed_generator) < rate,
                self.compute_dtype,
            )
            for size, rate in zip(
                keras.tree.flatten(self.state_size), self.zoneout_rates, strict=True
            )
        ]

    def zone_out(self, new_states, states, noise):
        """Returns the new states, mixed with the previous ones by the zoneout rates."""
        if not any(self.zoneout_rates):
            return new_states
        previous_shares = noise or self.zoneout_rates
        return [
            p * old + (1 - p) * new
            for p, old, new in zip(previous_shares, states, new_states, strict=True)
        ]


def _in_float32(initializer):
    """Runs an initializer for bfloat16 in float32, as TensorFlow's QR needs it."""

    def draw(shape, dtype=None):
        drawn_in = "float32" if dtype == "bfloat16" else dtype
        return ops.cast(initializer(shape, dtype=drawn_in), dtype)

    return draw


def gate_products(inputs, kernel, masks):
    """Returns `inputs @ kernel` after dropout, with one mask or one for each gate."""
    if masks is None:
        return ops.matmul(inputs, kernel)
    if not isinstance(masks, list):
        return ops.matmul(inputs * ops.stop_gradient(masks), kernel)
    blocks = ops.split(kernel, len(masks), axis=-1)
    pairs = zip(masks, blocks, strict=True)
    return ops.concatenate([gate_products(inputs, b, m) for m, b in pairs], axis=-1)


def normalize(inputs, gain):
    """Layer normalization over the last axis (Ba et al. 2016), without a shift.

    `gain (x - mean) / sqrt(variance + 1e-3)`, in float32 where the inputs are narrower.
    """
    dtype = inputs.dtype
    wide = ops.cast(inputs, "float64" if dtype == "float64" else "float32")
    mean = ops.mean(wide, axis=-1, keepdims=True)
    centred = wide - mean
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    return gain * ops.cast(centred * ops.rsqrt(variance + EPSILON), dtype)
