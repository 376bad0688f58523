"""A TFLite file that takes some steps of a sequence at a time, and the states."""

from functools import partial

import numpy as np
import tensorflow as tf

from keras_rnnkit.convert import all_layers
from keras_rnnkit.export.runtime import StreamingModel
from keras_rnnkit.export.saved_model import (
    RESET,
    STEP,
    input_signature,
    is_stateful,
    serve,
)
from keras_rnnkit.export.served import Whole
from keras_rnnkit.recurrence import Export


class Streamed(Whole):
    """A call takes some steps, and the states; see `Whole`.

    Args:
        calibrated: bool; TFLite calibrates no signature without inputs, so that there
            is none for the states to begin with, which have to be zeros.
    """

    hint = " (a layer that looks at several steps at once cannot stream)"

    def __init__(self, model, batch_size, time_steps, calibrated):
        if batch_size is None:
            raise ValueError("`streaming=True` needs a `batch_size`; received None")
        for layer in all_layers(model):
            if hasattr(layer, "backward_layer") or getattr(layer, "go_backwards", 0):
                raise ValueError(
                    f"`{layer.name}` cannot stream: it begins with the last step, so "
                    "it needs the whole sequence"
                )
        self._take(model)
        steps = 1 if time_steps == "model" else time_steps
        self.unit = steps or 1
        self.specs = input_signature(model, batch_size, None)
        self.of_a_call = input_signature(model, batch_size, steps)
        self.names = [spec.name for spec in self.specs]
        self.sequences = self._sequences()
        self.taken = {*self.names, *self.sequences}
        self.calibrated = calibrated

    def _sequences(self) -> dict[str, bool]:
        """Which outputs are sequences: those that grow with the inputs."""
        shapes = [
            self._run.get_concrete_function(
                **{
                    spec.name: tf.TensorSpec(
                        [steps if n is None else n for n in spec.shape], spec.dtype
                    )
                    for spec in self.specs
                }
            ).structured_outputs
            for steps in (16 * self.unit, 17 * self.unit)
        ]
        return {name: shapes[1][name].shape != y.shape for name, y in shapes[0].items()}

    def endpoints(self, export):
        first = tf.function(self._reset).get_concrete_function().structured_outputs
        if not first:
            raise ValueError(f"`{self.model.name}` has no recurrent layer to stream")
        states = [tf.TensorSpec(s.shape, s.dtype, name) for name, s in first.items()]
        endpoints = {STEP: (partial(self._step, export), [*self.of_a_call, *states])}
        if not self.calibrated:
            return endpoints | {RESET: (self._reset, [])}
        if any(np.any(state) for state in self._reset().values()):
            raise ValueError(
                f"`{self.model.name}` must begin with states of zeros to stream "
                "quantized to integers"
            )
        return endpoints

    def _reset(self):
        inputs = {
            spec.name: tf.zeros([n or 1 for n in spec.shape], spec.dtype)
            for spec in self.of_a_call
        }
        export = Export("arrays")
        with export.tracing(), export.streaming(self.taken) as stream:
            self._serve(inputs)
        return stream.first

    def _step(self, export, **given):
        export.begin()
        inputs = {name: given.pop(name) for name in self.names}
        with export.streaming(self.taken, given) as stream:
            return self._serve(inputs) | stream.last

    def _serve(self, inputs):
        """Runs some steps, which a layer may find too few."""
        try:
            return serve(self.model, **inputs)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"`{self.model.name}` cannot take {self.unit} steps at a time"
                f"{self.hint}: {error}"
            ) from error

    def expected(self, calls):
        stateful = [layer for layer in all_layers(self.model) if is_stateful(layer)]
        kept = [[state.numpy() for state in layer.states] for layer in stateful]

        def from_zeros(inputs):
            for layer in stateful:
                layer.reset_state()
            return self._whole_calls(inputs)

        try:
            yield from super().expected(map(from_zeros, calls))
        finally:
            for layer, values in zip(stateful, kept, strict=True):
                for state, value in zip(layer.states, values, strict=True):
                    state.assign(value)

    def received(self, content, calls):
        file = StreamingModel(content)

        def run(inputs):
            file.reset()
            parts = [file.run_step(**chunk) for chunk in self._chunks(inputs)]
            return {
                name: np.concatenate([part[name] for part in parts], axis=1)
                if grows
                else parts[-1][name]
                for name, grows in self.sequences.items()
            }

        return file, map(run, calls)

    def seconds(self, file, inputs, calls):
        file.reset()
        first = self._chunks(inputs)[0]
        return file.seconds(STEP, calls, **first, **file.states)

    def calibration(self, calls, export):
        del export  # no form of a stream needs ranges of layers
        arrays = Export("arrays")
        step = tf.function(partial(self._step, arrays))
        first, taken = self._reset(), []
        with arrays.tracing():
            for inputs in calls:
                states = first
                for chunk in self._chunks(inputs):
                    taken.append(chunk | states)
                    outputs = step(**taken[-1])
                    states = {name: outputs[name] for name in states}
        return taken

    def _whole_calls(self, inputs):
        """The inputs without the last steps, if these are too few for a call."""
        steps = [inputs[s.name].shape[1] for s in self.specs if has_steps(s)]
        if min(steps, default=0) < self.unit:
            raise ValueError(
                f"sequences to compare on must have at least {self.unit} steps, as "
                f"many as a call takes; received {steps}"
            )
        return self._cut(inputs, 0, min(steps) // self.unit * self.unit)

    def _chunks(self, inputs):
        """What the calls for a sequence take, one after the other."""
        inputs = self._whole_calls(inputs)
        steps = next(inputs[s.name].shape[1] for s in self.specs if has_steps(s))
        any_size = any(map(has_steps, self.of_a_call))
        size = max(1, steps // 2) if any_size else self.unit
        return [self._cut(inputs, i, i + size) for i in range(0, steps, size)]

    def _cut(self, inputs, start, stop):
        return {
            spec.name: x[:, start:stop] if has_steps(spec) else x
            for spec, x in ((spec, inputs[spec.name]) for spec in self.specs)
        }


def has_steps(spec) -> bool:
    """Whether the second axis, the steps, may have any size."""
    return len(spec.shape) > 1 and spec.shape[1] is None
