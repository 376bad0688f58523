"""The signatures of a TFLite file: whole sequences, forecasts or answers."""

import numpy as np
import tensorflow as tf

from keras_rnnkit.export.block_loop import run_in_blocks
from keras_rnnkit.export.policy import RangeRecorder
from keras_rnnkit.export.runtime import TFLiteModel
from keras_rnnkit.export.samples import random_calls, vocabulary_sizes
from keras_rnnkit.export.saved_model import (
    FORECAST,
    GENERATE,
    SIGNATURE,
    call_by_name,
    forecast_endpoint,
    generate_function,
    input_signature,
    is_stateful,
    source_spec,
    source_vocabulary_size,
)
from keras_rnnkit.export.time_axes import steps_of_input
from keras_rnnkit.export.verification import traced_function
from keras_rnnkit.internals import all_layers


class SequenceSignatures:
    """A signature that takes whole sequences, with the data to verify it on.

    Args:
        model: a model, prepared by `with_prepared_model`.
        batch_size, time_steps: as in `export_tflite`.
        calibrated: bool, whether values are quantized to integers.

    Attributes:
        name: str, the default signature.
        specs: list of `tf.TensorSpec`, the inputs to verify on.
        unit: int, the number of steps is a multiple of it.
        hint: str, a possible reason if file and model disagree.
    """

    name = SIGNATURE
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
        self.model = model
        self._run = traced_function(lambda **inputs: call_by_name(model, **inputs))
        self.specs = input_signature(model, batch_size, time_steps)

    def random_calls(self):
        """Returns inputs to compare on."""
        return random_calls(self.specs, self.unit, vocabulary_sizes(self.model))

    def endpoints(self, policy):
        """Returns the signatures, `(function, specs)` by name, the default first."""

        def run(**inputs):
            policy.begin()
            return call_by_name(self.model, **inputs)

        return {self.name: (run, self.specs)}

    def run_model(self, calls):
        """Yields the outputs of the model, call by call."""
        for inputs in calls:
            tensors = {name: tf.constant(x) for name, x in inputs.items()}
            yield {name: y.numpy() for name, y in self._run(tensors).items()}

    def run_file(self, flatbuffer, calls):
        """Returns the loaded file, and an iterator of its outputs, call by call."""
        file = TFLiteModel(flatbuffer)
        return file, (file(**inputs) for inputs in calls)

    def median_latency(self, file, inputs, calls):
        """Returns the median seconds of a call."""
        return file.median_latency(self.name, calls, **inputs)

    def calibration_calls(self, calls, policy):
        """Returns inputs of the default signature to calibrate on, call by call, and
        records the ranges of the layers in `policy`."""
        rows = {name: np.concatenate([c[name] for c in calls]) for name in calls[0]}
        with RangeRecorder(policy.ranges).active():
            call_by_name(self.model, **rows)
        return calls


class ForecastSignatures(SequenceSignatures):
    """A signature that continues sequences; see `SequenceSignatures`.

    Args:
        steps: int, number of steps to forecast.
    """

    name = FORECAST
    hint = " (a closed loop may let differences grow: forecast fewer steps)"

    def __init__(self, model, batch_size, time_steps, calibrated, steps):
        if calibrated:
            raise ValueError(
                "`forecast` needs a loop, which TFLite cannot quantize to integers: "
                "use 'dynamic' or 'float16'"
            )
        self.model = model
        self._arguments = model, steps, batch_size
        steps = steps_of_input(time_steps, "warmup")
        self._warmup = None if steps == "model" else steps
        endpoint = forecast_endpoint(*self._arguments, self._warmup)
        ((run, self.specs),) = endpoint.values()
        self._run = traced_function(run)

    def endpoints(self, policy):
        endpoint = forecast_endpoint(
            *self._arguments, self._warmup, write=run_in_blocks
        )
        ((name, (run, specs)),) = endpoint.items()
        layers = {layer.name for layer in all_layers(self.model)}

        def begin_and_run(**inputs):
            policy.begin()
            outputs = run(**inputs)
            # Reports each layer once, as in the warm-up; the loop calls it again.
            for repeated in set(policy.layers) - layers:
                del policy.layers[repeated]
            return outputs

        return {name: (begin_and_run, specs)}


class GenerateSignatures(SequenceSignatures):
    """A signature that answers sources by greedy search; see `SequenceSignatures`.

    Args:
        max_length: int, the maximum number of tokens of an answer.
    """

    name = GENERATE
    hint = " (two answers may be equally good: try other data in `check`)"

    def __init__(self, model, batch_size, time_steps, calibrated, max_length):
        if calibrated:
            raise ValueError(
                f"`{model.name}` needs a loop, which TFLite cannot quantize to "
                "integers: use 'dynamic' or 'float16'"
            )
        self.model = model
        self.specs = [source_spec(batch_size, time_steps)]
        self._generate = generate_function(model, max_length)
        self._run = traced_function(self._generate)

    def random_calls(self):
        return random_calls(self.specs, tokens=source_vocabulary_size(self.model))

    def endpoints(self, policy):
        def run(source):
            policy.begin()
            return self._generate(source)

        return {self.name: (run, self.specs)}
