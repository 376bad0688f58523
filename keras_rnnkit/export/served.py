"""What a TFLite file serves: whole sequences, or some steps of them at a time."""

from functools import partial

import numpy as np
import tensorflow as tf

from keras_rnnkit.convert import all_layers
from keras_rnnkit.export.runtime import StreamingModel, TFLiteModel
from keras_rnnkit.export.samples import random_calls
from keras_rnnkit.export.saved_model import (
    FORECAST,
    GENERATE,
    RESET,
    SIGNATURE,
    STEP,
    answer,
    forecast_endpoint,
    input_signature,
    is_stateful,
    serve,
    source_spec,
)
from keras_rnnkit.recurrence import Export


class Whole:
    """A call takes whole sequences.

    Args:
        model: a model of layers of this package.
        batch_size, time_steps: as in `export_tflite`.
        calibrated: bool, whether all values will be quantized.

    Attributes:
        specs: list of `tf.TensorSpec`, the samples that it takes.
        unit: int, of which the number of steps has to be a multiple.
        hint: what may be the reason if file and model disagree.
    """

    unit = 1
    hint = ""

    def __init__(self, model, batch_size, time_steps, calibrated):
        del calibrated
        for layer in all_layers(model):
            if is_stateful(layer):
                raise ValueError(
                    f"`{layer.name}` must not be stateful in a file without states; "
                    "received `stateful=True`: pass `streaming=True`"
                )
        self._take(model)
        self.specs = input_signature(model, batch_size, time_steps)

    def _take(self, model):
        def run(**inputs):
            with Export("arrays").tracing():  # XLA would compile for seconds
                return serve(model, **inputs)

        self.model = model
        self._run = tf.function(run, autograph=False)

    def random_calls(self):
        """Inputs to compare on."""
        return random_calls(self.specs, self.unit)

    def endpoints(self, export):
        """The signatures, `(function, specs)` by name, the first the one that runs."""

        def run(**inputs):
            export.begin()
            return serve(self.model, **inputs)

        return {SIGNATURE: (run, self.specs)}

    def expected(self, calls):
        """What the model returns, call by call."""
        for inputs in calls:
            specs = {n: tf.TensorSpec(x.shape, x.dtype) for n, x in inputs.items()}
            run = self._run.get_concrete_function(**specs)
            tensors = {name: tf.constant(x) for name, x in inputs.items()}
            yield {name: y.numpy() for name, y in run(**tensors).items()}

    def received(self, content, calls):
        """The file as it runs, and what it returns, call by call."""
        file = TFLiteModel(content)
        return file, (file(**inputs) for inputs in calls)

    def seconds(self, file, inputs, calls):
        """The median time of a call."""
        return file.seconds(SIGNATURE, calls, **inputs)

    def calibration(self, calls, export):
        """The inputs of the first signature to calibrate on, call by call; `export`
        gets the ranges of the layers."""
        rows = {name: np.concatenate([c[name] for c in calls]) for name in calls[0]}
        with Export("arrays", ranges=export.ranges).tracing():
            serve(self.model, **rows)
        return calls


class Forecast(Whole):
    """A call takes sequences so far, and returns the steps that a model forecasts.

    Args:
        steps: int, how many.
    """

    hint = " (a closed loop may let differences grow: forecast fewer steps)"

    def __init__(self, model, batch_size, time_steps, calibrated, steps):
        if calibrated:
            raise ValueError(
                "`forecast` needs a loop, which TFLite cannot quantize to integers: "
                "take 'dynamic' or 'float16'"
            )
        self.model = model
        self._arguments = model, steps, batch_size
        self._warmup = None if time_steps == "model" else time_steps
        endpoint = forecast_endpoint(*self._arguments, self._warmup)
        ((run, self.specs),) = endpoint.values()

        def run_here(**inputs):
            with Export("arrays").tracing():
                return run(**inputs)

        self._run = tf.function(run_here, autograph=False)

    def endpoints(self, export):
        endpoint = forecast_endpoint(*self._arguments, self._warmup, form="loop")
        ((name, (run, specs)),) = endpoint.items()
        layers = {layer.name for layer in all_layers(self.model)}

        def begin_and_run(**inputs):
            export.begin()
            outputs = run(**inputs)
            # Each layer once, as the warm-up has it: the loop repeats it step by step.
            for again in set(export.layers) - layers:
                del export.layers[again]
            return outputs

        return {name: (begin_and_run, specs)}

    def seconds(self, file, inputs, calls):
        return file.seconds(FORECAST, calls, **inputs)


class Answers(Whole):
    """A call takes sources, and returns what a `Seq2Seq` says, greedily.

    Args:
        max_length: int, of an answer.
    """

    hint = " (two answers may be equally good: try other data in `check`)"

    def __init__(self, model, batch_size, time_steps, calibrated, max_length):
        if calibrated:
            raise ValueError(
                f"`{model.name}` needs a loop, which TFLite cannot quantize to "
                "integers: take 'dynamic' or 'float16'"
            )
        self.model = model
        self.specs = [source_spec(batch_size, time_steps)]
        self._answer = answer(model, max_length)

        def run(source):
            with Export("arrays").tracing():
                return self._answer(source)

        self._run = tf.function(run, autograph=False)

    def random_calls(self):
        """Tokens, and padding behind them."""
        rng = np.random.default_rng(0)
        vocabulary = self.model.source_embedding.input_dim

        def draw(x):
            lengths = rng.integers(1, x.shape[1] + 1, (len(x), 1))
            tokens = rng.integers(1, vocabulary, x.shape, x.dtype)
            return np.where(np.arange(x.shape[1]) < lengths, tokens, 0)

        calls = super().random_calls()
        return [{name: draw(x) for name, x in call.items()} for call in calls]

    def endpoints(self, export):
        def run(source):
            export.begin()
            return self._answer(source)

        return {GENERATE: (run, self.specs)}

    def seconds(self, file, inputs, calls):
        return file.seconds(GENERATE, calls, **inputs)


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
        first = tf.function(self._reset, autograph=False).get_concrete_function().structured_outputs
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
        step = tf.function(partial(self._step, arrays), autograph=False)
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
