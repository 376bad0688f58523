"""The contract between a cell and the loop: a step split into its parts."""

from types import SimpleNamespace

import keras
import tensorflow as tf
from keras import ops


class SplitCell(keras.layers.Layer):
    """A recurrent cell that splits its step into three parts.

    The loop reads `k = cell.constants()` once for a sequence and then runs, for every
    step t,

        z_t = project(x_t, k)                     needs no earlier state
        r_t = recur(s_{t-1}, k)                   the matrix product with the state
        y_t, s_t = pointwise(z_t, r_t, s_{t-1}, k)

    so that it can compute all `z_t` in one product. States are lists, even a single
    one. A cell of your own subclasses this class and writes the three methods, `build`,
    `state_size` and `output_size`; it then runs on the loop and in `keras.layers.RNN`.

    On the fast loop the parts compute from their arguments alone, with weights from
    `k`; a cell whose parts do not, runs on the portable loop. Parts that use z and r in
    the sum `z + r` alone are faster still.
    """

    @property
    def is_split(self) -> bool:
        """Whether the three parts are the whole step: `call` is not overridden."""
        return type(self).call is SplitCell.call

    def constants(self) -> SimpleNamespace:
        """Returns what stays the same through a sequence and for all rows of a batch.

        Here: what `constants_of` finds.
        """
        return constants_of(self)

    def row_constants(self, batch_size, training=False) -> dict:
        """Returns what stays the same through a sequence but differs by row.

        Tensors `(batch, ...)` by name, or lists of them, such as dropout masks. They
        are attributes of `k` beside `constants`. Where no gradient is to flow, use
        `ops.stop_gradient`.

        Args:
            batch_size: int or scalar tensor, the number of rows.
            training: bool.
        """
        del batch_size, training
        return {}

    def draw_noise(self, shape, training=False):
        """Returns the random tensors of a step: a list of them, or `None`.

        Args:
            shape: the leading axes, `(batch,)` for a step or `(time, batch)`.
            training: bool.
        """
        del shape, training
        return

    def project(self, inputs, k):
        """Maps inputs `(..., features)` to `z` `(..., width)`."""
        raise NotImplementedError

    def recur(self, states, k):
        """Returns `r`, the matrix product with the states before the step."""
        raise NotImplementedError

    def pointwise(self, z, r, states, k, noise=None):
        """Returns the step's output and its new states."""
        raise NotImplementedError

    def step(self, z, states, k, noise=None):
        """Returns the step's output and its new states from the projected input."""
        return self.pointwise(z, self.recur(states, k), states, k, noise)

    def call(self, inputs, states, training=False):
        nested = isinstance(states, (list, tuple))
        states = list(states) if nested else [states]
        k = self.step_constants(inputs, states, training)
        noise = self.draw_noise((ops.shape(inputs)[0],), training)
        output, states = self.step(self.project(inputs, k), states, k, noise)
        return output, states if nested else states[0]

    def step_constants(self, inputs, states, training):
        """What `k` is for a single step, outside the loop."""
        del states
        k = self.constants()
        vars(k).update(self.row_constants(ops.shape(inputs)[0], training))
        return k

    def get_initial_state(self, batch_size=None):
        """Returns zeros, `(batch, size)` for each state."""
        sizes = self.state_size
        sizes = sizes if isinstance(sizes, (list, tuple)) else [sizes]
        return [ops.zeros((batch_size, size), self.compute_dtype) for size in sizes]


def constants_of(layer) -> SimpleNamespace:
    """Every weight or tensor that is an attribute of a layer, by its name, floats in
    the compute dtype."""

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
