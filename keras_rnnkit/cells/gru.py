"""The gated recurrent unit."""

import keras
from keras import ops

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells.keras_compatible import ZoneoutCell, gate_products, normalize


@extends(keras.layers.GRUCell)
class GRUCell(ZoneoutCell, keras.layers.GRUCell):
    """The gated recurrent unit (Cho et al. 2014, arXiv:1406.1078).

        z = σ(xₜ W_z + hₜ₋₁ R_z + b_z)
        r = σ(xₜ W_r + hₜ₋₁ R_r + b_r)
        h̃ = φ(xₜ W_h + b_h + r ∘ (hₜ₋₁ R_h + d_h))      reset_after=True, the default
        h̃ = φ(xₜ W_h + b_h + (r ∘ hₜ₋₁) R_h)            reset_after=False
        hₜ = z ∘ hₜ₋₁ + (1 - z) ∘ h̃

    [W_z W_r W_h] is `kernel`, R `recurrent_kernel`, σ `recurrent_activation`, φ
    `activation`. `bias` is [b_z b_r b_h], with a second row [d_z d_r d_h] for the
    recurrent product if `reset_after`. Textbooks that write hₜ = (1 - z) ∘ hₜ₋₁ + z ∘ h̃
    mean the same cell with the signs of W_z, R_z and b_z reversed.

    Args:
        units: positive int, the size of h.
        reset_after: bool, default True. Applies the reset gate after the product with
            R_h rather than before it.
        layer_norm: bool, default False. Ba et al. 2016 (arXiv:1607.06450): normalizes
            every product with W and with R, the blocks of the two gates together and
            the candidate's block on its own. Adds the weights `kernel_gain` and
            `recurrent_gain` `(3 units,)`.
        zoneout: float in [0, 1), default 0. Krueger et al. 2017 (arXiv:1606.01305): the
            probability that a unit keeps its state for a step; outside training the
            state is its expectation.
        implementation: 1 or 2, default 2. 1 draws a dropout mask for each gate, as
            `recurrent_dropout` always does, 2 one mask for all gates.

    Arguments, defaults, weights and states are those of `keras.layers.GRUCell`, plus
    the options `layer_norm` and `zoneout`.

    Raises:
        ValueError: `units` is not a positive integer, a rate outside [0, 1).

    Example:

    ```python
    layer = rk.RNN(rk.GRUCell(8, layer_norm=True))
    y = layer(np.zeros((2, 5, 3)))  # (2, 8)
    ```
    """

    gates = 3

    def __init__(self, *args, layer_norm=False, zoneout=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.layer_norm = layer_norm
        self.set_zoneout(zoneout)

    def build(self, input_shape):
        width = 3 * self.units
        bias_shape = (2, width) if self.reset_after else (width,)
        self.add_gate_weights(input_shape[-1], self.units, bias_shape)
        if self.layer_norm:
            self.kernel_gain = self._add_gain("kernel_gain", (width,))
            self.recurrent_gain = self._add_gain("recurrent_gain", (width,))

    def project(self, inputs, params):
        z = gate_products(inputs, params.kernel, params.dropout)
        z = self._normalize(z, params, "kernel_gain")
        if self.use_bias:
            z = z + (params.bias[0] if self.reset_after else params.bias)
        return z

    def recur(self, states, params):
        """With `reset_after=False`, only the product of the gates: h̃ depends on r."""
        if not self.reset_after:
            gates = slice(0, 2 * self.units)
            masks = params.recurrent_dropout
            masks = masks[:2] if isinstance(masks, list) else masks
            r = gate_products(states[0], params.recurrent_kernel[:, gates], masks)
            return self._normalize(r, params, "recurrent_gain")
        r = gate_products(states[0], params.recurrent_kernel, params.recurrent_dropout)
        r = self._normalize(r, params, "recurrent_gain")
        return r + params.bias[1] if self.use_bias else r

    def pointwise(self, z, r, states, params, noise=None):
        h_before = states[0]
        x_z, x_r, x_h = ops.split(z, 3, axis=-1)
        r_z, r_r, *r_h = ops.split(r, 3 if self.reset_after else 2, axis=-1)
        update = self.recurrent_activation(x_z + r_z)
        reset = self.recurrent_activation(x_r + r_r)
        if self.reset_after:
            recurrent = reset * r_h[0]
        else:
            recurrent = self._reset_before(reset * h_before, params)
        candidate = self.activation(x_h + recurrent)
        h = update * h_before + (1 - update) * candidate
        (h,) = self.zone_out([h], states, noise)
        return h, [h]

    def _reset_before(self, h, params):
        block = slice(2 * self.units, None)
        masks = params.recurrent_dropout
        masks = masks[2] if isinstance(masks, list) else masks
        product = gate_products(h, params.recurrent_kernel[:, block], masks)
        return (
            normalize(product, params.recurrent_gain[block])
            if self.layer_norm
            else product
        )

    def _normalize(self, products, params, gain):
        """Normalizes the gates' blocks together and the candidate's on its own."""
        if not self.layer_norm:
            return products
        gain, split = getattr(params, gain), 2 * self.units
        parts = [normalize(products[..., :split], gain[:split])]
        if products.shape[-1] > split:
            parts.append(normalize(products[..., split:], gain[split:]))
        return ops.concatenate(parts, axis=-1)
