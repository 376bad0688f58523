"""The functions of a streaming file: the initial states, and some steps at a time."""

import tensorflow as tf

from keras_rnnkit.export.names import named_outputs
from keras_rnnkit.recurrence import Policy


class StreamFunctions:
    """The functions of a streaming file, on tensors by name.

    Args:
        plan: `StreamPlan`, of the model.
        specs: list of `tf.TensorSpec`, the model's inputs in a call.
        axes: dict of the axis of the steps by name, for the inputs that are streamed.
        unit: int, the number of steps in a call is a multiple of it.
        size: int, replaces unknown sizes of inputs that are not given.

    Attributes:
        sequences: dict of the axis of the steps of each output by name, or None.
        reserved: set of names that states cannot have.
    """

    def __init__(self, plan, specs, axes, unit, size):
        self.plan = plan
        self.specs = specs
        self.sequences = named_outputs(plan.output_axes)
        self.reserved = {*(spec.name for spec in specs), *self.sequences}
        self._axes = axes
        self._unit = unit
        self._size = size

    def run(self, inputs, policy, **options):
        """Runs the model; see `StreamPlan.run`. Inputs that are not given are zeros."""
        flat = [
            inputs[spec.name]
            if spec.name in inputs
            else tf.zeros([n or self._size for n in spec.shape], spec.dtype)
            for spec in self.specs
        ]
        with policy.active():
            return named_outputs(self.plan.run(flat, policy, **options))

    def initial_states(self, **inputs):
        """Returns the states that layers begin with."""
        policy = Policy(compiled=False)
        with policy.streaming(self.reserved) as stream:
            self.run(inputs, policy)
        if policy.refusals:
            raise ValueError("; ".join(dict.fromkeys(policy.refusals)))
        return stream.first

    def reset(self, **inputs):
        """Returns the initial states, without any steps."""
        # Enough steps for every layer:
        zeros = {
            spec.name: tf.zeros([n or self._unit for n in spec.shape], spec.dtype)
            for spec in self.specs
            if spec.name in self._axes
        }
        return self.initial_states(**zeros, **inputs)

    def step(self, policy, **given):
        """Returns the outputs for some steps, and the states after them.

        Args:
            policy: `recurrence.Policy`.
            given: tensors, the inputs and states by name.
        """
        policy.begin()
        names = [spec.name for spec in self.specs if spec.name in given]
        inputs = {name: given.pop(name) for name in names}
        with policy.streaming(self.reserved, given) as stream:
            return self.run(inputs, policy) | stream.last
