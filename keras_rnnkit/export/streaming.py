"""A TFLite file that takes some steps of a sequence at a time, and the states."""

import itertools
import math
from contextlib import nullcontext
from functools import partial

import numpy as np
import tensorflow as tf

from keras_rnnkit.export.names import named_outputs
from keras_rnnkit.export.samples import random_calls, vocabulary_sizes
from keras_rnnkit.export.saved_model import (
    RESET,
    STEP,
    call_by_name,
    input_signature,
    is_stateful,
)
from keras_rnnkit.export.signatures import Whole
from keras_rnnkit.export.stream_plan import (
    HINT,
    StreamPlan,
    input_dependencies,
    is_close,
)
from keras_rnnkit.export.tflite_models import StreamingModel
from keras_rnnkit.export.time_axes import TimeAxisSearch, check_names
from keras_rnnkit.export.verification import traced_function
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import Policy

CHECKED = 48  # steps, or more, that the layers are compared on before the conversion


class StreamingSignatures(Whole):
    """A call takes some steps, and the states; see `Whole`.

    Args:
        calibrated: bool; TFLite calibrates no signature without inputs, so that there
            is none for the states to begin with, which have to be zeros.
    """

    hint = HINT

    def __init__(self, model, batch_size, time_steps, calibrated):
        if batch_size is None:
            raise ValueError("`streaming=True` needs a `batch_size`; received None")
        self.model = model
        self.calibrated = calibrated
        whole = input_signature(model, batch_size)
        self.names = [spec.name for spec in whole]
        search = TimeAxisSearch(model, self.names)
        steps, streams = steps_of_a_call(time_steps, self.names)
        found = search.steps_of(streams, asked="`streaming=True`")
        self.axes = {name: axis for name, (axis, _) in found.items()}
        self.unit = steps or 1
        self.specs = [self._with_steps(spec, None) for spec in whole]
        self.of_a_call = [self._with_steps(spec, steps) for spec in whole]
        self.plan = StreamPlan(
            search, [(self.names.index(n), a) for n, a in self.axes.items()]
        )
        self._size = search.size
        self._run = traced_function(self._whole)
        self.sequences = named_outputs(self.plan.output_axes)
        self.taken = {*self.names, *self.sequences}
        self._find_inputs()
        self._check_layers()

    def _with_steps(self, spec, steps):
        shape = spec.shape.as_list()
        if spec.name in self.axes:
            shape[self.axes[spec.name]] = steps
        return tf.TensorSpec(shape, spec.dtype, spec.name)

    def _whole(self, **inputs):
        """What the model returns for whole sequences, from the states of new ones."""
        policy = Policy(compiled=False)
        stateful = any(map(is_stateful, all_layers(self.model)))
        with policy.active(), policy.streaming() if stateful else nullcontext():
            return call_by_name(self.model, **inputs)

    def _find_inputs(self):
        """Finds which inputs the first states are computed from, and which the steps.

        Those that the first states alone need go into `reset` and not into `step`.
        """
        sources, self.states = input_dependencies(self._first, self.of_a_call)
        if not sources:
            self.plan.refuse()
        self._check_first_states()
        of_first = set().union(*sources.values()) - {*self.axes}
        self.of_reset = [s for s in self.of_a_call if s.name in of_first]
        step = partial(self._step, Policy(compiled=False))
        sources, _ = input_dependencies(step, [*self.of_a_call, *self.states])
        of_first -= set().union(*sources.values())
        self.of_step = [s for s in self.of_a_call if s.name not in of_first]
        if self.calibrated and (
            self.of_reset or any(np.any(state) for state in self._reset().values())
        ):
            raise ValueError(
                f"`{self.model.name}` must begin with states of zeros to stream "
                "quantized to integers"
            )

    def _check_first_states(self):
        """Raises `ValueError` for first states that other sequences change."""
        first = tf.function(self._first, autograph=False)
        inputs, others, *_ = random_calls(self.of_a_call)
        others = inputs | {name: others[name] for name in self.axes}
        for (name, state), other in zip(
            first(**inputs).items(), first(**others).values(), strict=True
        ):
            if not is_close(other.numpy(), state.numpy()):
                layer, source = self.plan.initial_state_source(name)
                raise ValueError(
                    f"`{layer}` cannot stream: it takes its first state from the model,"
                    f" where `{source}` computes it from the sequence"
                )

    def _check_layers(self):
        """Raises `ValueError` for the first layer that returns something else for parts
        of a sequence than for the whole."""
        least = max(CHECKED, 2 * self.plan.memory)
        steps = self.unit * max(3, math.ceil(least / self.unit))
        specs = [
            self._with_steps(spec, steps) if spec.name in self.axes else spec
            for spec in self.of_a_call
        ]
        inputs = random_calls(specs)[0]

        def run(given, inputs):
            policy, seen = Policy(compiled=False), []
            with policy.streaming(self.taken, given) as stream:
                self._call(inputs, policy, whole=given is None, seen=seen)
            return seen, stream.last

        def arrays(seen):
            return tf.nest.map_structure(lambda y: y.numpy(), seen)

        run = tf.function(run, autograph=False)
        whole, _ = run(None, inputs)
        run = run.get_concrete_function(
            *({s.name: s for s in specs} for specs in (self.states, self.of_a_call))
        )
        states, parts = self._reset(**self._of(self.of_reset, inputs)), []
        for chunk in self._chunks(inputs):
            seen, states = run(states, chunk)
            parts.append(arrays(seen))
        self.plan.check(arrays(whole), parts)

    @staticmethod
    def _of(specs, inputs):
        return {spec.name: inputs[spec.name] for spec in specs}

    def _call(self, inputs, policy, **options):
        """Runs the model; inputs that are not given do not matter."""
        flat = [
            inputs[spec.name]
            if spec.name in inputs
            else tf.zeros([n or self._size for n in spec.shape], spec.dtype)
            for spec in self.of_a_call
        ]
        with policy.active():
            return named_outputs(self.plan.run(flat, policy, **options))

    def _first(self, **inputs):
        """The states that layers begin with."""
        policy = Policy(compiled=False)
        with policy.streaming(self.taken) as stream:
            self._call(inputs, policy)
        if policy.refusals:
            raise ValueError("; ".join(dict.fromkeys(policy.refusals)))
        return stream.first

    def _reset(self, **inputs):
        # So many steps that no layer finds them too few:
        zeros = {
            spec.name: tf.zeros([n or self.unit for n in spec.shape], spec.dtype)
            for spec in self.of_a_call
            if spec.name in self.axes
        }
        return self._first(**zeros, **inputs)

    def _step(self, policy, **given):
        policy.begin()
        inputs = {name: given.pop(name) for name in self.names if name in given}
        with policy.streaming(self.taken, given) as stream:
            return self._call(inputs, policy) | stream.last

    def random_calls(self):
        """Inputs to compare on, of more steps than the layers look back."""
        times = math.ceil((self.plan.memory + 16) / (16 * self.unit))
        return random_calls(self.specs, self.unit * times, vocabulary_sizes(self.model))

    def endpoints(self, policy):
        step = partial(self._step, policy)
        endpoints = {STEP: (step, [*self.of_step, *self.states])}
        return endpoints | (
            {} if self.calibrated else {RESET: (self._reset, self.of_reset)}
        )

    def expected(self, calls):
        return super().expected(map(self._whole_calls, calls))

    def received(self, content, calls):
        file = StreamingModel(content)

        def run(inputs):
            file.reset(**self._of(self.of_reset, inputs))
            parts = [
                file.run_step(**self._of(self.of_step, chunk))
                for chunk in self._chunks(inputs)
            ]
            return {
                name: parts[-1][name]
                if axis is None
                else np.concatenate([part[name] for part in parts], axis)
                for name, axis in self.sequences.items()
            }

        return file, map(run, calls)

    def seconds(self, file, inputs, calls):
        file.reset(**self._of(self.of_reset, inputs))
        first = self._of(self.of_step, self._chunks(inputs)[0])
        return file.seconds(STEP, calls, **first, **file.states)

    def calibration(self, calls, policy):
        del policy  # no form of a stream needs ranges of layers
        arrays = Policy(compiled=False)
        step = tf.function(partial(self._step, arrays), autograph=False)
        first, taken = self._reset(), []
        for inputs in calls:
            states = first
            for chunk in self._chunks(inputs):
                taken.append(chunk | states)
                outputs = step(**taken[-1])
                states = {name: outputs[name] for name in states}
        return taken

    def _whole_calls(self, inputs):
        """The inputs without the last steps, if these are too few for a call."""
        steps = self._steps(inputs)
        if steps < self.unit:
            raise ValueError(
                f"sequences to compare on must have at least {self.unit} steps, as "
                f"many as a call takes; received {steps}"
            )
        return self._cut(inputs, 0, steps // self.unit * self.unit)

    def _steps(self, inputs):
        return min(inputs[name].shape[axis] for name, axis in self.axes.items())

    def _chunks(self, inputs):
        """What the calls for a sequence take, one after the other: of several sizes
        where a call takes any."""
        inputs = self._whole_calls(inputs)
        steps, start, chunks = self._steps(inputs), 0, []
        sizes = itertools.repeat(self.unit)
        if self.of_a_call == self.specs:
            sizes = itertools.chain([max(1, steps // 2)], itertools.cycle([1, 3]))
        while start < steps:
            stop = min(start + next(sizes), steps)
            chunks.append(self._cut(inputs, start, stop))
            start = stop
        return chunks

    def _cut(self, inputs, start, stop):
        def cut(name, x):
            if name not in self.axes:
                return x
            index = [slice(None)] * self.axes[name]
            return x[(*index, slice(start, stop))]

        return {name: cut(name, inputs[name]) for name in self.names}


def steps_of_a_call(time_steps, names):
    """The steps that a call takes, and the inputs that they are of by name, or None.

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
