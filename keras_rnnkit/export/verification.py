"""The proof that a file gives the answers of its model."""

import tensorflow as tf

from keras_rnnkit.export.checks import CALIBRATED
from keras_rnnkit.export.difference import Differences
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import Policy

TIMED = 30
TOLERANCE = 1e-5  # of a SavedModel
OF_HALF = 2e-2  # of one that computes in 16 bits
FORECAST = "forecast"  # the name of that signature
FIRST = 8  # steps of a forecast that are compared: later ones may differ by chance
MEASURED = (
    " (ranges are those of `representative_data`: it has to hold values as large, and "
    "sequences as long, as any that will come)"
)
RANDOM = (
    " (a model that draws at random answers otherwise in each call: pass `check=False`)"
)


def prove(served, content, calls, tolerance, quantize) -> dict:
    """Runs a file against its model, call by call, on one interpreter.

    Args:
        served: `Whole` or `Streamed`.
        content: the file, bytes.
        calls: list of dicts, the inputs by name.
        tolerance, quantize: as in `export_tflite`.

    Returns:
        `calls`, `latency`, and the difference, as in the report.

    Raises:
        ValueError: a larger difference.
    """
    file, results = served.received(content, calls)
    differences = Differences(served.model.name, calls, file.output_steps)
    try:
        for received, expected in zip(results, served.expected(calls), strict=True):
            differences.add(received, expected)
        differences.check(tolerance, quantized=quantize is not None)
    except ValueError as error:
        hint = MEASURED if quantize in CALIBRATED else ""
        raise ValueError(f"{error}: nothing was written{hint}{served.hint}") from error
    return {
        "calls": len(calls),
        **differences.figures(),
        "latency": served.seconds(file, calls[-1], TIMED),
    }


def prove_saved_model(folder, model, endpoints, calls):
    """Loads a SavedModel and runs it against its model, in several sizes.

    Args:
        folder: the SavedModel.
        model: the model.
        endpoints: dict of `(function, specs)` by the name of the signature.
        calls: dict of lists of inputs by the name of the signature, in the order in
            which they are called.

    Raises:
        ValueError: a difference.
    """
    signatures = tf.saved_model.load(str(folder)).signatures
    halves = {layer.compute_dtype for layer in all_layers(model)}
    tolerance = OF_HALF if halves & {"float16", "bfloat16"} else TOLERANCE
    for name, inputs in calls.items():
        run = as_traced(endpoints[name][0])
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
                f"signature `{name}`: {error}: nothing was written{RANDOM}"
            ) from error


def as_traced(function):
    """A function in ordinary ops, called with a dict of tensors; it is traced for each
    of their shapes."""
    run = tf.function(function, autograph=False)

    def call(given):
        specs = {key: tf.TensorSpec(x.shape, x.dtype) for key, x in given.items()}
        with Policy(compiled=False).active():  # XLA would compile for seconds
            return run.get_concrete_function(**specs)(**given)

    return call


def _first_steps(outputs):
    return {name: y[:, :FIRST] for name, y in outputs.items()}


def _arrays(outputs):
    return {name: y.numpy() for name, y in outputs.items()}
