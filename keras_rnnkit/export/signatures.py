"""What a TFLite file serves: whole sequences, forecasts or answers."""

import numpy as np
import tensorflow as tf

from keras_rnnkit.export.block_loop import run_in_blocks
from keras_rnnkit.export.policy import RangeRecorder
from keras_rnnkit.export.samples import random_calls, vocabulary_sizes
from keras_rnnkit.export.saved_model import (
    FORECAST,
    GENERATE,
    SIGNATURE,
    answer,
    call_by_name,
    forecast_endpoint,
    input_signature,
    is_stateful,
    source_spec,
    source_tokens,
)
from keras_rnnkit.export.tflite_models import TFLiteModel
from keras_rnnkit.export.time_axes import steps_of_input
from keras_rnnkit.export.verification import traced_function
from keras_rnnkit.internals import all_layers


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
        self.model = model
        self._run = traced_function(lambda **inputs: call_by_name(model, **inputs))
        self.specs = input_signature(model, batch_size, time_steps)

    def random_calls(self):
        """Inputs to compare on."""
        return random_calls(self.specs, self.unit, vocabulary_sizes(self.model))

    def endpoints(self, policy):
        """The signatures, `(function, specs)` by name, the first the one that runs."""

        def run(**inputs):
            policy.begin()
            return call_by_name(self.model, **inputs)

        return {SIGNATURE: (run, self.specs)}

    def expected(self, calls):
        """What the model returns, call by call."""
        for inputs in calls:
            tensors = {name: tf.constant(x) for name, x in inputs.items()}
            yield {name: y.numpy() for name, y in self._run(tensors).items()}

    def received(self, content, calls):
        """The file as it runs, and what it returns, call by call."""
        file = TFLiteModel(content)
        return file, (file(**inputs) for inputs in calls)

    def seconds(self, file, inputs, calls):
        """The median time of a call."""
        return file.seconds(SIGNATURE, calls, **inputs)

    def calibration(self, calls, policy):
        """The inputs of the first signature to calibrate on, call by call; `policy`
        gets the ranges of the layers."""
        rows = {name: np.concatenate([c[name] for c in calls]) for name in calls[0]}
        with RangeRecorder(policy.ranges).active():
            call_by_name(self.model, **rows)
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
            # Each layer once, as the warm-up has it: the loop repeats it step by step.
            for again in set(policy.layers) - layers:
                del policy.layers[again]
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
        self._run = traced_function(self._answer)

    def random_calls(self):
        return random_calls(self.specs, tokens=source_tokens(self.model))

    def endpoints(self, policy):
        def run(source):
            policy.begin()
            return self._answer(source)

        return {GENERATE: (run, self.specs)}

    def seconds(self, file, inputs, calls):
        return file.seconds(GENERATE, calls, **inputs)
