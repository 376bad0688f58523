"""The long short-term memory cell."""

import keras
from keras import ops

from keras_rnnkit.arguments import check_positive_integer, extends
from keras_rnnkit.cells.keras_compatible import ZoneoutCell, gate_products, normalize


@extends(keras.layers.LSTMCell)
class LSTMCell(ZoneoutCell, keras.layers.LSTMCell):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, Gers et al. 2000).

        [a_i a_f a_g a_o] = xₜ W + hₜ₋₁ R + b

        i = σ(a_i)     f = σ(a_f)     g = φ(a_g)     o = σ(a_o)
        cₜ = f ∘ cₜ₋₁ + i ∘ g
        hₜ = o ∘ φ(cₜ)

    W is `kernel`, R `recurrent_kernel`, b `bias`, σ `recurrent_activation`, φ
    `activation`. The states are [h, c], the output is h.

    Args:
        units: positive int, the size of c.
        peephole: bool, default False. The gates see the cell state (Gers and
            Schmidhuber 2000): a_i += p_i ∘ cₜ₋₁, a_f += p_f ∘ cₜ₋₁, a_o += p_o ∘ cₜ.
            Adds the weight `peephole_kernel` `(3, units)`, in the order i, f, o.
        projection_units: int or None, default None. The size of h and of the output
            (Sak et al. 2014, arXiv:1402.1128): hₜ = (o ∘ φ(cₜ)) P. Adds the weight
            `projection_kernel` `(units, projection_units)`.
        layer_norm: bool, default False. Ba et al. 2016 (arXiv:1607.06450):
            a = LN(xₜ W) + LN(hₜ₋₁ R) + b, hₜ = o ∘ φ(LN(cₜ) + β). Adds the weights
            `kernel_gain`, `recurrent_gain` `(4 units,)`, `state_gain` and
            `state_shift` `(units,)`.
        zoneout: float in [0, 1) or a pair of them for [h, c], default 0. Krueger et al.
            2017 (arXiv:1606.01305): the probability that a unit keeps its state for a
            step; outside training the states are their expectation.
        implementation: 1 or 2, default 2. 1 draws a dropout mask for each gate, as
            `recurrent_dropout` always does, 2 one mask for all gates.

    Arguments, defaults, weights and states are those of `keras.layers.LSTMCell`, plus
    the options `peephole`, `projection_units`, `layer_norm` and `zoneout`.

    Raises:
        ValueError: a size that is not a positive integer, a rate outside [0, 1).

    Example:

    ```python
    layer = rk.RNN(rk.LSTMCell(8, peephole=True))
    y = layer(np.zeros((2, 5, 3)))  # (2, 8)
    ```
    """

    gates = 4
    state_names = "h", "c"

    def __init__(
        self,
        *args,
        peephole=False,
        projection_units=None,
        layer_norm=False,
        zoneout=0.0,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if projection_units is not None:
            check_positive_integer("projection_units", projection_units)
        self.peephole = peephole
        self.projection_units = projection_units
        self.layer_norm = layer_norm
        self.output_size = projection_units or self.units
        self.state_size = [self.output_size, self.units]
        self.set_zoneout(zoneout)

    def build(self, input_shape):
        self.add_gate_weights(
            input_shape[-1], self.output_size, (4 * self.units,), self._initial_bias
        )
        if self.peephole:
            self.peephole_kernel = self._add("peephole_kernel", (3, self.units))
        if self.projection_units:
            self.projection_kernel = self._add(
                "projection_kernel", (self.units, self.projection_units)
            )
        if self.layer_norm:
            self.kernel_gain = self._add_gain("kernel_gain", (4 * self.units,))
            self.recurrent_gain = self._add_gain("recurrent_gain", (4 * self.units,))
            self.state_gain = self._add_gain("state_gain", (self.units,))
            self.state_shift = self.add_weight(
                shape=(self.units,), name="state_shift", initializer="zeros"
            )

    def _initial_bias(self, shape, dtype=None):
        """Initializes the bias, with `unit_forget_bias` to ones at the forget gate."""
        if not self.unit_forget_bias:
            return self.bias_initializer(shape, dtype=dtype)
        return ops.concatenate(
            [
                self.bias_initializer((self.units,), dtype=dtype),
                ops.ones((self.units,), dtype=dtype),
                self.bias_initializer((2 * self.units,), dtype=dtype),
            ]
        )

    def project(self, inputs, params):
        z = gate_products(inputs, params.kernel, params.dropout)
        return normalize(z, params.kernel_gain) if self.layer_norm else z

    def recur(self, states, params):
        r = gate_products(states[0], params.recurrent_kernel, params.recurrent_dropout)
        if self.layer_norm:
            r = normalize(r, params.recurrent_gain)
        return r + params.bias if self.use_bias else r

    def pointwise(self, z, r, states, params, noise=None):
        c_before = states[1]
        a_i, a_f, a_g, a_o = ops.split(z + r, 4, axis=-1)
        if self.peephole:
            p_i, p_f, p_o = ops.unstack(params.peephole_kernel)
            a_i, a_f = a_i + p_i * c_before, a_f + p_f * c_before
        i = self.recurrent_activation(a_i)
        f = self.recurrent_activation(a_f)
        c = f * c_before + i * self.activation(a_g)
        o = self.recurrent_activation(a_o + p_o * c if self.peephole else a_o)
        normalized = c
        if self.layer_norm:
            normalized = normalize(c, params.state_gain) + params.state_shift
        h = o * self.activation(normalized)
        if self.projection_units:
            h = ops.matmul(h, params.projection_kernel)
        h, c = self.zone_out([h, c], states, noise)
        return h, [h, c]
