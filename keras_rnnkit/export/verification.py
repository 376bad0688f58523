"""Verifies that an exported file returns the outputs of its model."""

import tensorflow as tf

from keras_rnnkit.export.checks import CALIBRATED
from keras_rnnkit.export.difference import Differences
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import Policy

TIMED_CALLS = 30
TOLERANCE = 1e-5  # of a SavedModel
HALF_TOLERANCE = 2e-2  # of one that computes in 16 bits
FORECAST = "forecast"  # the name of that signature
COMPARED_STEPS = 8  # of a forecast: rounding errors grow in later ones
CALIBRATION_HINT = (
    " (ranges are measured on `representative_data`, which must have values as large "
    "and sequences as long as any input later)"
)
RANDOM_HINT = (
    " (a model that draws at random returns other outputs in each call: pass "
    "`check=False`)"
)


def verify_tflite(signatures, flatbuffer, calls, tolerance, quantize) -> dict:
    """Compares a TFLite file with its model, over several calls of one interpreter.

    Args:
        signatures: `SequenceSignatures` or a subclass.
        flatbuffer: bytes, the file.
        calls: list of dicts, the inputs by name.
        tolerance, quantize: as in `export_tflite`.

    Returns:
        dict of attributes of `ExportReport`: `calls`, `latency` and the differences.

    Raises:
        ValueError: a difference exceeds its bound.
    """
    file, results = signatures.run_file(flatbuffer, calls)
    differences = Differences(signatures.model.name, calls, file.output_scales)
    try:
        model_outputs = signatures.run_model(calls)
        for received, expected in zip(results, model_outputs, strict=True):
            differences.add(received, expected)
        differences.check(tolerance, quantized=quantize is not None)
    except ValueError as error:
        hint = CALIBRATION_HINT if quantize in CALIBRATED else ""
        hint += signatures.hint
        raise ValueError(f"{error}: nothing was written{hint}") from error
    return {
        "calls": len(calls),
        **differences.summary(),
        "latency": signatures.median_latency(file, calls[-1], TIMED_CALLS),
    }


def verify_saved_model(folder, model, endpoints, calls):
    """Loads a SavedModel and compares it with its model, in several sizes.

    Args:
        folder: the SavedModel.
        model: the model.
        endpoints: dict of `(function, specs)` by signature name.
        calls: dict of lists of inputs by signature name, in calling order.

    Raises:
        ValueError: a difference exceeds its bound.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    dtypes = {layer.compute_dtype for layer in all_layers(model)}
    tolerance = HALF_TOLERANCE if dtypes & {"float16", "bfloat16"} else TOLERANCE
    for name, inputs in calls.items():
        run = traced_function(endpoints[name][0])
        differences = Differences(model.name, inputs, {})
        try:
            for each in inputs:
                given = {key: tf.constant(x) for key, x in each.items()}
                received, expected = signatures[name](**given), run(given)
                if name == FORECAST:
                    received, expected = map(_first_steps, (received, expected))
                differences.add(_arrays(received), _arrays(expected))
            differences.check(tolerance, quantized=False)
        except ValueError as error:
            raise ValueError(
                f"signature `{name}`: {error}: nothing was written{RANDOM_HINT}"
            ) from error


def traced_function(function):
    """Returns a function in ordinary ops that takes a dict of tensors; it is traced for
    every combination of shapes."""
    run = tf.function(function, autograph=False)

    def call(given):
        specs = {key: tf.TensorSpec(x.shape, x.dtype) for key, x in given.items()}
        with Policy(compiled=False).active():  # XLA compiles for seconds
            return run.get_concrete_function(**specs)(**given)

    return call


def _first_steps(outputs):
    return {name: y[:, :COMPARED_STEPS] for name, y in outputs.items()}


def _arrays(outputs):
    return {name: y.numpy() for name, y in outputs.items()}
