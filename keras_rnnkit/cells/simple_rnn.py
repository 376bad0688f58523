"""The simple recurrent cell."""

import keras

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells.keras_compatible import (
    KerasCompatibleCell,
    gate_products,
    normalize,
)


@extends(keras.layers.SimpleRNNCell)
class SimpleRNNCell(KerasCompatibleCell, keras.layers.SimpleRNNCell):
    """The fully connected recurrent cell of Elman (1990).

        hₜ = f(xₜ W + hₜ₋₁ R + b),    yₜ = hₜ

    W is `kernel`, R `recurrent_kernel`, b `bias`, f `activation`. For Elman's output
    yₜ = g(hₜ V + c) put a `Dense` layer on top.

    Args:
        units: positive int, the size of h.
        layer_norm: bool, default False. Ba et al. 2016 (arXiv:1607.06450):
            hₜ = f(LN(xₜ W + hₜ₋₁ R) + b). Adds the weight `gain` `(units,)`.

    Arguments, defaults, weights and states are those of `keras.layers.SimpleRNNCell`,
    plus the option `layer_norm`.

    Raises:
        ValueError: `units` is not a positive integer, a rate outside [0, 1).

    Example:

    ```python
    layer = rk.RNN(rk.SimpleRNNCell(8, activation="relu"))
    y = layer(np.zeros((2, 5, 3)))  # (2, 8)
    ```
    """

    def __init__(self, *args, layer_norm=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.layer_norm = layer_norm

    def build(self, input_shape):
        self.add_gate_weights(input_shape[-1], self.units, (self.units,))
        if self.layer_norm:
            self.gain = self._add_gain("gain", (self.units,))

    def project(self, inputs, params):
        return gate_products(inputs, params.kernel, params.dropout)

    def recur(self, states, params):
        r = gate_products(states[0], params.recurrent_kernel, params.recurrent_dropout)
        return r + params.bias if self.use_bias and not self.layer_norm else r

    def pointwise(self, z, r, states, params, noise=None):
        a = z + r
        if self.layer_norm:
            a = normalize(a, params.gain) + (params.bias if self.use_bias else 0)
        h = self.activation(a)
        return h, [h]
