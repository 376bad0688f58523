"""The interface between a cell and the loop: a step split into three parts."""

from types import SimpleNamespace

import keras
import tensorflow as tf
from keras import ops


class SplitCell(keras.layers.Layer):
    """A recurrent cell whose step is split into three parts.

    The loop reads `params = cell.constants()` once per sequence and then runs, for
    every step t,

        z_t = project(x_t, params)                     needs no earlier state
        r_t = recur(s_{t-1}, params)                   the matrix product with the state
        y_t, s_t = pointwise(z_t, r_t, s_{t-1}, params)

    so that it can compute all `z_t` in one product. States are lists, even a single
    one. To write a cell, subclass this class and define the three methods, `build`,
    `state_size` and `output_size`. The cell runs in `RNN` and in `keras.layers.RNN`.

    The fast loop needs parts that depend on their arguments alone and read weights from
    `params`; other cells run on the portable loop. The fast loop is fastest if z and r
    appear only as the sum `z + r`.

    Args:
        **kwargs: `name`, `dtype` and `trainable`, as for `keras.layers.Layer`.

    Example:

    ```python
    class MinimalCell(rk.SplitCell):
        state_size = output_size = 8

        def build(self, shape):
            self.kernel = self.add_weight((shape[-1], 8))
            self.recurrent_kernel = self.add_weight((8, 8))

        def project(self, inputs, params):
            return inputs @ params.kernel

        def recur(self, states, params):
            return states[0] @ params.recurrent_kernel

        def pointwise(self, z, r, states, params, noise=None):
            h = keras.ops.tanh(z + r)
            return h, [h]

    y = rk.RNN(MinimalCell())(np.zeros((2, 5, 3)))  # (2, 8)
    ```
    """

    @property
    def is_split(self) -> bool:
        """Whether the three parts are the complete step: `call` is not overridden."""
        return type(self).call is SplitCell.call

    def constants(self) -> SimpleNamespace:
        """Returns `params`: tensors that all steps and all rows of a batch share.

        The default is every weight and tensor that is an attribute of the cell, under
        the attribute's name, floats in the compute dtype.
        """
        return constants_of(self)

    def row_constants(self, batch_size, training=False) -> dict:
        """Returns tensors that all steps share but that differ by row of the batch.

        The loop adds them to `params`. Use `ops.stop_gradient` on tensors that need no
        gradient.

        Args:
            batch_size: int or scalar tensor, the number of rows.
            training: bool.

        Returns:
            Dict of tensors `(batch, ...)`, or of lists of them, such as dropout masks.
        """
        del batch_size, training
        return {}

    def draw_noise(self, shape, training=False):
        """Returns the random tensors of a step, which `pointwise` gets as `noise`.

        Args:
            shape: the leading axes, `(batch,)` for a step or `(time, batch)`.
            training: bool.

        Returns:
            List of tensors, or `None`.
        """
        del shape, training
        return

    def project(self, inputs, params):
        """Returns `z`, `(..., width)`, of inputs `(..., features)`.

        Args:
            inputs: the inputs of one step or of many.
            params: namespace of `constants` and `row_constants`.
        """
        raise NotImplementedError

    def recur(self, states, params):
        """Returns `r`, the matrix product with the previous states.

        Args:
            states: list of tensors `(batch, size)`.
            params: namespace of `constants` and `row_constants`.
        """
        raise NotImplementedError

    def pointwise(self, z, r, states, params, noise=None):
        """Returns the step's output and its new states, a list.

        Args:
            z: what `project` returned for the step's input.
            r: what `recur` returned.
            states: list of tensors `(batch, size)`, the previous states.
            params: namespace of `constants` and `row_constants`.
            noise: what `draw_noise` returned for the step, or `None`.
        """
        raise NotImplementedError

    def step(self, z, states, params, noise=None):
        """Returns the step's output and its new states from the projected input."""
        return self.pointwise(z, self.recur(states, params), states, params, noise)

    def call(self, inputs, states, training=False):
        nested = isinstance(states, (list, tuple))
        states = list(states) if nested else [states]
        params = self.step_constants(inputs, states, training)
        noise = self.draw_noise((ops.shape(inputs)[0],), training)
        output, states = self.step(self.project(inputs, params), states, params, noise)
        return output, states if nested else states[0]

    def step_constants(self, inputs, states, training):
        """Returns `params` for a single step, outside the loop."""
        del states
        params = self.constants()
        vars(params).update(self.row_constants(ops.shape(inputs)[0], training))
        return params

    def get_initial_state(self, batch_size=None):
        """Returns zeros, `(batch, size)` for each state."""
        sizes = self.state_size
        sizes = sizes if isinstance(sizes, (list, tuple)) else [sizes]
        return [ops.zeros((batch_size, size), self.compute_dtype) for size in sizes]


def constants_of(layer) -> SimpleNamespace:
    """Returns every weight and tensor that is an attribute of a layer, under its name.

    Floats are in the compute dtype.
    """

    def constant(value):
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
            value = ops.cast(value, layer.compute_dtype)
        return tf.convert_to_tensor(value)

    return SimpleNamespace(
        **{
            name: constant(value)
            for name, value in vars(layer).items()
            if isinstance(value, keras.Variable) or ops.is_tensor(value)
        }
    )
