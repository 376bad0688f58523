"""The signatures of a streaming file: some steps of a sequence, and the states."""

import math
from contextlib import nullcontext
from functools import partial

import numpy as np
import tensorflow as tf

from keras_rnnkit.export.chunks import Chunks
from keras_rnnkit.export.runtime import StreamingModel
from keras_rnnkit.export.samples import random_calls, vocabulary_sizes
from keras_rnnkit.export.saved_model import (
    RESET,
    STEP,
    call_by_name,
    input_signature,
    is_stateful,
)
from keras_rnnkit.export.signatures import SequenceSignatures
from keras_rnnkit.export.stream_functions import StreamFunctions
from keras_rnnkit.export.stream_plan import (
    HINT,
    StreamPlan,
    input_dependencies,
    is_close,
)
from keras_rnnkit.export.time_axes import TimeAxisSearch, check_names
from keras_rnnkit.export.verification import traced_function
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import Policy

CHECKED_STEPS = 48  # minimum to compare layers on before the conversion


class StreamingSignatures(SequenceSignatures):
    """Signatures that take some steps and the states; see `SequenceSignatures`.

    Args:
        calibrated: bool; TFLite calibrates no signature without inputs, so that a
            calibrated file has no `reset` and its initial states must be zeros.
    """

    hint = HINT

    def __init__(self, model, batch_size, time_steps, calibrated):
        if batch_size is None:
            raise ValueError("`streaming=True` needs a `batch_size`; received None")
        self.model = model
        self.calibrated = calibrated
        inputs = input_signature(model, batch_size)
        names = [spec.name for spec in inputs]
        search = TimeAxisSearch(model, names)
        steps, streams = steps_of_a_call(time_steps, names)
        found = search.find_steps(streams, asked="`streaming=True`")
        self.axes = {name: axis for name, (axis, _) in found.items()}
        self.chunks = Chunks(names, self.axes, steps)
        self.unit = self.chunks.unit
        self.specs = [self.chunks.resize(spec, None) for spec in inputs]
        self.call_specs = [self.chunks.resize(spec, steps) for spec in inputs]
        self.plan = StreamPlan(
            search, [(names.index(n), axis) for n, axis in self.axes.items()]
        )
        self.functions = StreamFunctions(
            self.plan, self.call_specs, self.axes, self.unit, search.size
        )
        self._run = traced_function(self._run_sequence)
        self._find_inputs()
        self._check_layers()

    def _run_sequence(self, **inputs):
        """Runs the model on whole sequences, from the states of new ones."""
        policy = Policy(compiled=False)
        stateful = any(map(is_stateful, all_layers(self.model)))
        with policy.active(), policy.streaming() if stateful else nullcontext():
            return call_by_name(self.model, **inputs)

    def _find_inputs(self):
        """Finds the inputs of `reset` and of `step`.

        Inputs that only the initial states depend on go into `reset`.
        """
        dependencies, self.states = input_dependencies(
            self.functions.initial_states, self.call_specs
        )
        if not dependencies:
            self.plan.raise_without_states()
        self._check_initial_states()
        of_reset = set().union(*dependencies.values()) - {*self.axes}
        self.reset_specs = [s for s in self.call_specs if s.name in of_reset]
        step = partial(self.functions.step, Policy(compiled=False))
        dependencies, _ = input_dependencies(step, [*self.call_specs, *self.states])
        of_reset -= set().union(*dependencies.values())
        self.step_specs = [s for s in self.call_specs if s.name not in of_reset]
        if self.calibrated and (
            self.reset_specs
            or any(np.any(state) for state in self.functions.reset().values())
        ):
            raise ValueError(
                f"`{self.model.name}` must begin with states of zeros to stream "
                "quantized to integers"
            )

    def _check_initial_states(self):
        """Raises `ValueError` for initial states that depend on the sequence."""
        run = tf.function(self.functions.initial_states, autograph=False)
        inputs, others, *_ = random_calls(self.call_specs)
        others = inputs | {name: others[name] for name in self.axes}
        for (name, state), other in zip(
            run(**inputs).items(), run(**others).values(), strict=True
        ):
            if not is_close(other.numpy(), state.numpy()):
                layer, source = self.plan.initial_state_source(name)
                raise ValueError(
                    f"`{layer}` cannot stream: it takes its first state from the model,"
                    f" where `{source}` computes it from the sequence"
                )

    def _check_layers(self):
        """Raises `ValueError` for the first layer whose outputs for a sequence in
        chunks differ from those for the whole sequence."""
        least = max(CHECKED_STEPS, 2 * self.plan.memory)
        steps = self.unit * max(3, math.ceil(least / self.unit))
        specs = [
            self.chunks.resize(spec, steps) if spec.name in self.axes else spec
            for spec in self.call_specs
        ]
        inputs = random_calls(specs)[0]

        def run(states, inputs):
            policy, outputs = Policy(compiled=False), []
            with policy.streaming(self.functions.reserved, states) as stream:
                self.functions.run(
                    inputs, policy, is_complete=states is None, layer_outputs=outputs
                )
            return outputs, stream.last

        def arrays(outputs):
            return tf.nest.map_structure(lambda y: y.numpy(), outputs)

        run = tf.function(run, autograph=False)
        expected, _ = run(None, inputs)
        run = run.get_concrete_function(
            *({s.name: s for s in specs} for specs in (self.states, self.call_specs))
        )
        states = self.functions.reset(**select(self.reset_specs, inputs))
        received = []
        for chunk in self.chunks.split(inputs):
            outputs, states = run(states, chunk)
            received.append(arrays(outputs))
        self.plan.check(arrays(expected), received)

    def random_calls(self):
        """Returns inputs to compare on, longer than the memory of the layers."""
        times = math.ceil((self.plan.memory + 16) / (16 * self.unit))
        return random_calls(self.specs, self.unit * times, vocabulary_sizes(self.model))

    def endpoints(self, policy):
        step = partial(self.functions.step, policy)
        endpoints = {STEP: (step, [*self.step_specs, *self.states])}
        if not self.calibrated:
            endpoints[RESET] = self.functions.reset, self.reset_specs
        return endpoints

    def run_model(self, calls):
        return super().run_model(map(self.chunks.trim, calls))

    def run_file(self, flatbuffer, calls):
        file = StreamingModel(flatbuffer)

        def run(inputs):
            file.reset(**select(self.reset_specs, inputs))
            parts = [
                file.run_step(**select(self.step_specs, chunk))
                for chunk in self.chunks.split(inputs)
            ]
            return {
                name: parts[-1][name]
                if axis is None
                else np.concatenate([part[name] for part in parts], axis)
                for name, axis in self.functions.sequences.items()
            }

        return file, map(run, calls)

    def median_latency(self, file, inputs, calls):
        file.reset(**select(self.reset_specs, inputs))
        first = select(self.step_specs, self.chunks.split(inputs)[0])
        return file.median_latency(STEP, calls, **first, **file.states)

    def calibration_calls(self, calls, policy):
        del policy  # no form of a streaming loop needs the ranges of layers
        step = partial(self.functions.step, Policy(compiled=False))
        step = tf.function(step, autograph=False)
        initial, step_calls = self.functions.reset(), []
        for inputs in calls:
            states = initial
            for chunk in self.chunks.split(inputs):
                step_calls.append(chunk | states)
                outputs = step(**step_calls[-1])
                states = {name: outputs[name] for name in states}
        return step_calls


def select(specs, inputs) -> dict:
    """Returns the inputs that are named by specs."""
    return {spec.name: inputs[spec.name] for spec in specs}


def steps_of_a_call(time_steps, names):
    """Returns the steps that a call takes, and a dict of the inputs to stream or None.

    Args:
        time_steps: as in `export_tflite`.
        names: list of str, of the model's inputs.
    """
    if not isinstance(time_steps, dict):
        return 1 if time_steps == "model" else time_steps, None
    check_names(time_steps, names)
    sizes = {1 if steps == "model" else steps for steps in time_steps.values()}
    if len(sizes) != 1:
        raise ValueError(
            "`time_steps` of a stream must be the same for all inputs that it names; "
            f"received {time_steps}"
        )
    return sizes.pop(), dict.fromkeys(time_steps)
