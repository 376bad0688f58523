"""What a loop runs over, as one value."""

from typing import Any, NamedTuple

import tensorflow as tf

nest = tf.nest


class LoopInputs(NamedTuple):
    """The tensors of a loop over time.

    Attributes:
        x: `(batch, time, ...)`, the sequences.
        states: list of `(batch, ...)`, before the first step.
        params: dict by name, the parameters of the cell, the same for all rows.
        row_params: dict by name of `(batch, ...)`, parameters that each row has its
            own values of, such as dropout masks or a memory.
        noise: list of `(batch, time, ...)`, random numbers of each step.
        mask: list of one bool tensor `(batch, time)`, or empty.
    """

    x: tf.Tensor
    states: list
    params: dict[str, Any]
    row_params: dict[str, Any]
    noise: list
    mask: list

    @property
    def all_params(self) -> dict:
        return self.params | self.row_params

    def map_sequences(self, function) -> "LoopInputs":
        """Applies a function of a nest to all that has a time axis."""
        x, noise, mask = function([self.x, self.noise, self.mask])
        return self._replace(x=x, noise=noise, mask=mask)

    def map_rows(self, function) -> "LoopInputs":
        """Applies a function of a nest to all that has rows but no time axis."""
        states, row_params = function([self.states, self.row_params])
        return self._replace(states=states, row_params=row_params)

    def without_params(self) -> "LoopInputs":
        """All that has rows."""
        return self._replace(params={})


def reverse_time(tensors):
    """Reverses a nest of `(batch, time, ...)` along time."""
    return nest.map_structure(lambda tensor: tf.reverse(tensor, [1]), tensors)
