"""Splits sequences into the chunks that a streaming file takes."""

import itertools

import tensorflow as tf


class Chunks:
    """Splits the inputs of a model along their steps.

    Args:
        names: list of str, of the model's inputs.
        axes: dict of the axis of the steps by name, for the inputs that are streamed.
        steps: int, the steps of each chunk, or None for any number.
    """

    def __init__(self, names, axes, steps):
        self.names = names
        self.axes = axes
        self.unit = steps or 1
        self._any_size = steps is None

    def resize(self, spec, steps):
        """Returns a `tf.TensorSpec` with another number of steps, if it has any."""
        shape = spec.shape.as_list()
        if spec.name in self.axes:
            shape[self.axes[spec.name]] = steps
        return tf.TensorSpec(shape, spec.dtype, spec.name)

    def split(self, inputs) -> list[dict]:
        """Returns the chunks of a sequence, of several sizes if any size is allowed."""
        inputs = self.trim(inputs)
        steps, start, chunks = self._steps(inputs), 0, []
        sizes = itertools.repeat(self.unit)
        if self._any_size:
            sizes = itertools.chain([max(1, steps // 2)], itertools.cycle([1, 3]))
        while start < steps:
            stop = min(start + next(sizes), steps)
            chunks.append(self._slice(inputs, start, stop))
            start = stop
        return chunks

    def trim(self, inputs) -> dict:
        """Drops the last steps if they do not fill a chunk."""
        steps = self._steps(inputs)
        if steps < self.unit:
            raise ValueError(
                f"sequences to compare on must have at least {self.unit} steps, as "
                f"many as a call takes; received {steps}"
            )
        return self._slice(inputs, 0, steps // self.unit * self.unit)

    def _steps(self, inputs):
        return min(inputs[name].shape[axis] for name, axis in self.axes.items())

    def _slice(self, inputs, start, stop):
        def slice_one(name, x):
            if name not in self.axes:
                return x
            index = [slice(None)] * self.axes[name]
            return x[(*index, slice(start, stop))]

        return {name: slice_one(name, inputs[name]) for name in self.names}
