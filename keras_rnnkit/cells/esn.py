"""The echo state cell."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_rnnkit.arguments import (
    check_at_least,
    check_choice,
    check_count,
    check_positive_integer,
    check_share,
    extends,
)
from keras_rnnkit.cells.split_cell import SplitCell
from keras_rnnkit.initializers import (
    Reservoir,
    SparseUniform,
    check_scale,
    drawn_seed,
)

TRANSIENT = 32  # steps that a state may take to begin to fade
# Links that take as long as one product with a whole row of a matrix.
SPARSE_UNITS, SPARSE_SHARE = 1000, 0.03


@extends(None)
class ESNCell(SplitCell):
    """The leaky echo state cell (Jaeger 2001; Jaeger et al. 2007), a fixed reservoir.

        hₜ = (1 - α) hₜ₋₁ + α (f(xₜ W + hₜ₋₁ R + b) + ν ξₜ),    yₜ = hₜ

    W is `kernel`, R `recurrent_kernel`, b `bias`; α is `leak_rate`, f `activation` and
    ξ normal noise. No weight is trained; gradients go through to what is below.

    Args:
        units: positive int, the size of h.
        spectral_radius: float > 0, the largest absolute eigenvalue of R; None with a
            matrix for `topology` leaves that as it is.
        leak_rate: float in (0, 1].
        input_scaling: float >= 0, W is uniform up to it, or a list of one for each
            feature of the input that is not fed back.
        bias_scaling: float >= 0, b is uniform up to it; with 0 there is none.
        connectivity: float in (0, 1], the share of the units that each unit listens to.
        input_connectivity: float in (0, 1], the probability of each weight of W.
        topology: "random", "ring", "orthogonal", "small_world" or the matrix R; see
            `initializers.Reservoir`.
        activation: f.
        noise: float >= 0, ν, in training alone.
        feedback: int >= 0. The last so many features of the input are outputs of the
            step before: true ones in training, the model's own in `forecast`.
        feedback_scaling: float >= 0, the scale of their weights.
        sparse: bool, whether R is kept as its links, `recurrent_kernel` and
            `recurrent_index` `(units, sources)`; None where that is faster.
        seed: int or None. The same seed gives the same weights everywhere.

    Raises:
        ValueError: an argument out of its range; see the message.
    """

    state_names = ("h",)

    def __init__(
        self,
        units,
        *,
        spectral_radius=0.9,
        leak_rate=1.0,
        input_scaling=1.0,
        bias_scaling=0.0,
        connectivity=0.1,
        input_connectivity=1.0,
        topology="random",
        activation="tanh",
        noise=0.0,
        feedback=0,
        feedback_scaling=1.0,
        sparse=None,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_positive_integer("units", units)
        check_share("leak_rate", leak_rate)
        check_scale("input_scaling", input_scaling)
        check_share("input_connectivity", input_connectivity)
        check_at_least("bias_scaling", bias_scaling, 0)
        check_at_least("noise", noise, 0)
        check_at_least("feedback_scaling", feedback_scaling, 0)
        check_count("feedback", feedback)
        check_choice("sparse", sparse, (True, False, None))
        self.units = units
        self.leak_rate = leak_rate
        self.bias_scaling = bias_scaling
        self.activation = keras.activations.get(activation)
        self.noise = noise
        self.feedback = feedback
        self.feedback_scaling = feedback_scaling
        self.seed = seed
        drawn = np.random.SeedSequence(drawn_seed(seed))
        of_reservoir, of_input, of_feedback, of_bias, of_noise = (
            int(number) for number in drawn.generate_state(5)
        )
        self.reservoir = Reservoir(
            spectral_radius, connectivity, topology, of_reservoir
        )
        self.input_links = SparseUniform(input_scaling, input_connectivity, of_input)
        self.feedback_links = SparseUniform(feedback_scaling, 1.0, of_feedback)
        self.bias_links = SparseUniform(bias_scaling, 1.0, of_bias)
        self.seed_generator = keras.random.SeedGenerator(of_noise)
        sources = self.reservoir.sources(units)
        if sparse and sources is None:
            raise ValueError(
                "`sparse=True` needs a topology of single links; received "
                f"`topology={topology!r}` with `connectivity={connectivity}`"
            )
        if sparse is None and sources is not None:
            self.is_sparse = units >= SPARSE_UNITS and sources <= SPARSE_SHARE * units
        else:
            self.is_sparse = bool(sparse)
        self.sparse = sparse

    state_size = output_size = property(lambda self: self.units)

    def build(self, input_shape):
        features = input_shape[-1]
        if features is None or features < self.feedback:
            raise ValueError(
                f"the last axis of the input of `{self.name}` must have a known size "
                f"of at least `feedback` = {self.feedback}; received {features}"
            )
        scaling, own = self.input_links.scale, features - self.feedback
        if isinstance(scaling, (list, tuple)) and len(scaling) != own:
            raise ValueError(
                f"`input_scaling` of `{self.name}` must be a number or {own} of them, "
                f"one for each feature; received {len(scaling)}"
            )

        def kernel(shape, dtype):
            parts = [
                self.input_links((own, self.units), dtype),
                self.feedback_links((self.feedback, self.units), dtype),
            ]
            return ops.concatenate(parts)

        self.kernel = self._fixed("kernel", (features, self.units), kernel)
        if self.is_sparse:
            values, index = self.reservoir.links(self.units)
            self.recurrent_kernel = self._fixed(
                "recurrent_kernel", values.shape, lambda shape, dtype: values
            )
            self.recurrent_index = self._fixed(
                "recurrent_index", index.shape, lambda shape, dtype: index, "int32"
            )
        else:
            self.recurrent_kernel = self._fixed(
                "recurrent_kernel", (self.units, self.units), self.reservoir
            )
        self.bias = None
        if self.bias_scaling:
            self.bias = self._fixed(
                "bias",
                (self.units,),
                lambda shape, dtype: self.bias_links((1, *shape), dtype)[0],
            )

    def _fixed(self, name, shape, initializer, dtype=None):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            trainable=False,
        )

    def project(self, inputs, params):
        return ops.matmul(inputs, params.kernel)

    def recur(self, states, params):
        (h,) = states
        if self.is_sparse:
            heard = tf.gather(h, params.recurrent_index, axis=1)
            r = tf.reduce_sum(heard * params.recurrent_kernel, axis=-1)
        else:
            r = ops.matmul(h, params.recurrent_kernel)
        return r if self.bias is None else r + params.bias

    def draw_noise(self, shape, training=False):
        if not training or not self.noise:
            return None
        draw = keras.random.normal(
            (*shape, self.units), dtype=self.compute_dtype, seed=self.seed_generator
        )
        return [self.noise * draw]

    def pointwise(self, z, r, states, params, noise=None):
        h = self.activation(z + r)
        if noise:
            h = h + noise[0]
        if self.leak_rate != 1:
            h = (1 - self.leak_rate) * states[0] + self.leak_rate * h
        return h, [h]

    @property
    def memory(self) -> int | None:
        """The steps after which a start state has no trace left, if the weights are as
        they were drawn and forget; else None, as for links, which gain nothing from
        rows side by side. The loop relies on it, and checks it."""
        radius = self.reservoir.spectral_radius
        rate = 1 - self.leak_rate + self.leak_rate * (1 if radius is None else radius)
        types = "float32", "float64"
        if rate >= 1 or self.is_sparse or self.compute_dtype not in types:
            return None
        steps = np.log(np.finfo(self.compute_dtype).eps) / np.log(rate)
        return int(steps) + TRANSIENT

    @property
    def matrix(self) -> np.ndarray:
        """R, `(units, units)`: entry (i, j) is the weight from unit i to unit j."""
        values = ops.convert_to_numpy(self.recurrent_kernel)
        if not self.is_sparse:
            return values
        matrix = np.zeros((self.units, self.units), values.dtype)
        index = ops.convert_to_numpy(self.recurrent_index)
        matrix[index, np.arange(self.units)[:, None]] = values
        return matrix

    def get_config(self):
        return super().get_config() | {
            "units": self.units,
            "spectral_radius": self.reservoir.spectral_radius,
            "leak_rate": self.leak_rate,
            "input_scaling": self.input_links.scale,
            "bias_scaling": self.bias_scaling,
            "connectivity": self.reservoir.connectivity,
            "input_connectivity": self.input_links.connectivity,
            "topology": self.reservoir.get_config()["topology"],
            "activation": keras.activations.serialize(self.activation),
            "noise": self.noise,
            "feedback": self.feedback,
            "feedback_scaling": self.feedback_scaling,
            "sparse": self.sparse,
            "seed": self.seed,
        }
