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

TRANSIENT = 32  # steps before a state fades at the rate of the spectral radius
# Below this share of links a sparse product is faster than a dense one.
SPARSE_UNITS, SPARSE_SHARE = 1000, 0.03


@extends(None)
class ESNCell(SplitCell):
    """The leaky echo state cell (Jaeger 2001; Jaeger et al. 2007), a fixed reservoir.

        hₜ = (1 - α) hₜ₋₁ + α (f(xₜ W + hₜ₋₁ R + b) + ν ξₜ),    yₜ = hₜ

    W is `kernel`, R `recurrent_kernel`, b `bias`; α is `leak_rate`, f `activation` and
    ξ normal noise. No weight is trained; gradients flow to the layers below.

    Args:
        units: positive int, the size of h.
        spectral_radius: float > 0, default 0.9. The largest absolute eigenvalue of R.
            None leaves a matrix given as `topology` unscaled.
        leak_rate: float in (0, 1], default 1.
        input_scaling: float >= 0, default 1. W is uniform in [-s, s]. Or a list of
            scales, one for each input feature that is not feedback.
        bias_scaling: float >= 0, default 0. b is uniform in [-s, s]; 0 for no bias.
        connectivity: float in (0, 1], default 0.1. The share of the units that each
            unit gets input from.
        input_connectivity: float in (0, 1], default 1. The probability that a weight of
            W is not zero.
        topology: "random", "ring", "orthogonal", "small_world" or the matrix R, default
            "random"; see `initializers.Reservoir`.
        activation: str or callable f, default "tanh".
        noise: float >= 0, default 0. ν in training; there is no noise in inference.
        feedback: int >= 0, default 0. How many of the last input features are the
            output of the previous step: the target in training, the prediction in
            `forecast`.
        feedback_scaling: float >= 0, default 1. The scale of the feedback weights.
        sparse: bool or None, default None. Whether to store R as its links,
            `recurrent_kernel` and `recurrent_index` `(units, sources)`; None decides
            by speed.
        seed: int or None, default None. The same seed gives the same weights on every
            machine.

    Raises:
        ValueError: an argument is out of range.

    Example:

    ```python
    layer = rk.RNN(rk.ESNCell(100, leak_rate=0.3, seed=0))
    y = layer(np.zeros((2, 5, 3)))  # (2, 100)
    ```
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
        sequence = np.random.SeedSequence(drawn_seed(seed))
        seeds = [int(number) for number in sequence.generate_state(5)]
        self.reservoir = Reservoir(spectral_radius, connectivity, topology, seeds[0])
        self.input_links = SparseUniform(input_scaling, input_connectivity, seeds[1])
        self.feedback_links = SparseUniform(feedback_scaling, 1.0, seeds[2])
        self.bias_links = SparseUniform(bias_scaling, 1.0, seeds[3])
        self.seed_generator = keras.random.SeedGenerator(seeds[4])
        self.sparse = sparse
        self.is_sparse = self._stores_links(topology, connectivity)

    def _stores_links(self, topology, connectivity) -> bool:
        """Whether to store R as its links: `sparse`, or by default what is faster."""
        sources = self.reservoir.sources(self.units)
        if self.sparse and sources is None:
            raise ValueError(
                "`sparse=True` needs a topology of single links; received "
                f"`topology={topology!r}` with `connectivity={connectivity}`"
            )
        if self.sparse is not None or sources is None:
            return bool(self.sparse)
        return self.units >= SPARSE_UNITS and sources <= SPARSE_SHARE * self.units

    state_size = output_size = property(lambda self: self.units)

    def build(self, input_shape):
        features = input_shape[-1]
        if features is None or features < self.feedback:
            raise ValueError(
                f"the last axis of the input of `{self.name}` must have a known size "
                f"of at least `feedback` = {self.feedback}; received {features}"
            )
        scaling, external = self.input_links.scale, features - self.feedback
        if isinstance(scaling, (list, tuple)) and len(scaling) != external:
            raise ValueError(
                f"`input_scaling` of `{self.name}` must be a number or {external} of "
                f"them, one for each feature; received {len(scaling)}"
            )

        def kernel(shape, dtype):
            parts = [
                self.input_links((external, self.units), dtype),
                self.feedback_links((self.feedback, self.units), dtype),
            ]
            return ops.concatenate(parts)

        self.kernel = self._add_fixed("kernel", (features, self.units), kernel)
        if self.is_sparse:
            values, index = self.reservoir.links(self.units)
            self.recurrent_kernel = self._add_fixed(
                "recurrent_kernel", values.shape, lambda shape, dtype: values
            )
            self.recurrent_index = self._add_fixed(
                "recurrent_index", index.shape, lambda shape, dtype: index, "int32"
            )
        else:
            self.recurrent_kernel = self._add_fixed(
                "recurrent_kernel", (self.units, self.units), self.reservoir
            )
        self.bias = None
        if self.bias_scaling:
            self.bias = self._add_fixed(
                "bias",
                (self.units,),
                lambda shape, dtype: self.bias_links((1, *shape), dtype)[0],
            )

    def _add_fixed(self, name, shape, initializer, dtype=None):
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
            sources = tf.gather(h, params.recurrent_index, axis=1)
            r = tf.reduce_sum(sources * params.recurrent_kernel, axis=-1)
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
        """The number of steps after which the initial state has no effect, or None.

        It is computed from `spectral_radius` and `leak_rate`, and None if they do not
        bound it or R is sparse. The loop relies on it and checks the actual weights.
        """
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
