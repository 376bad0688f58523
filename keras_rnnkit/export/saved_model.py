"""Exports SavedModels: for TensorFlow Serving, and as the source of TFLite files."""

import os
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.export.atomic_writes import atomic_write, check_target
from keras_rnnkit.export.checks import check_seq2seq, tracked_resources
from keras_rnnkit.export.graph import call_model
from keras_rnnkit.export.names import (
    by_signature,
    input_names,
    named_outputs,
    signature_names,
)
from keras_rnnkit.export.prepare import with_prepared_model
from keras_rnnkit.export.samples import (
    known_words,
    random_calls,
    samples,
    split_into_calls,
    vocabulary_sizes,
)
from keras_rnnkit.export.time_axes import TimeAxisSearch, steps_of_input
from keras_rnnkit.export.verification import FORECAST, verify_saved_model
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import Policy
from keras_rnnkit.reservoir.forecast import closed_loop, external_feature_count
from keras_rnnkit.seq2seq import Seq2Seq

SIGNATURE = "serving_default"
STEP, RESET = "step", "reset"
GENERATE, BEAM = "generate", "generate_beam"


@with_prepared_model(for_tflite=False)
def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    time_steps: str | int | dict[str, int | None] | None = "model",
    forecast: int | None = None,
    max_length: int | None = None,
    beam_width: int = 5,
    length_penalty: float = 0.0,
    check=True,
) -> Path:
    """Exports the inference of a model as a SavedModel, and verifies it.

    Before the folder appears under `path`, it is loaded, run in several sizes and
    compared with the model.

    The signature `serving_default` takes the model's inputs by name and runs in any
    process with TensorFlow; it needs neither Keras nor this package. A model with
    stateful layers has two signatures instead: `step`, which continues from the states
    of the previous call, and `reset`, which sets them to zero and returns them.

    Args:
        model: a built model, as in `export_tflite`. A `Seq2Seq` gets the signatures
            `generate`, for greedy search, and `generate_beam`, which take `source`.
        path: str or path-like, the folder to write. An existing SavedModel is replaced
            once the new one is complete.
        batch_size: int, or None for any; ignored for a stateful model, whose batch size
            is fixed. Default: None.
        time_steps: as in `export_tflite`. Default: "model".
        forecast: int or None; if given, adds a signature `forecast` of that many steps,
            which takes `warmup` and, if there are any, `inputs`; see `rk.forecast`.
            Default: None.
        max_length: int, the maximum number of tokens of an answer; required for a
            `Seq2Seq`. Default: None.
        beam_width: int, of `generate_beam`; see `Seq2Seq.generate`. Default: 5.
        length_penalty: float, of `generate_beam`; see `Seq2Seq.generate`. Default: 0.0.
        check: data to compare on, as in `export_tflite`; True for random data; False
            to skip the comparison, for a model that draws at random. Default: True.

    Returns:
        `path`, as a `Path`.

    Raises:
        ValueError: an argument is invalid, the model has not been built or does not
            support the number of steps, or the outputs differ.
        OSError: `path` cannot be written; see `check_target`.

    Example:

    ```python
    import keras
    import tensorflow as tf
    import keras_rnnkit as rk

    model = keras.Sequential([keras.Input((None, 3), name="x"), rk.GRU(4)])
    rk.export_saved_model(model, "saved_model")
    run = tf.saved_model.load("saved_model").signatures["serving_default"]
    print(run(x=tf.zeros((2, 5, 3)))["output_0"].shape)  # (2, 4)
    ```
    """
    check_target(path, folder=True)
    check_seq2seq(model, max_length, forecast=forecast)
    if isinstance(model, Seq2Seq):
        spec = source_spec(batch_size, time_steps)
        beam = {"beam_width": beam_width, "length_penalty": length_penalty}
        endpoints = {
            GENERATE: (generate_function(model, max_length), [spec]),
            BEAM: (generate_function(model, max_length, "beam", **beam), [spec]),
        }
        calls = random_calls([spec], tokens=source_vocabulary_size(model))
        return write_and_verify(
            path, model, endpoints, dict.fromkeys(endpoints, calls), check
        )
    stateful = [layer for layer in all_layers(model) if is_stateful(layer)]
    if stateful:
        batch_size = model.inputs[0].shape[0]
    specs = input_signature(model, batch_size, time_steps)

    def step(**inputs):
        return call_by_name(model, **inputs)

    def reset():
        for layer in stateful:
            layer.reset_state()
        return {
            f"{layer.name}_{number}": tf.identity(state)
            for layer in stateful
            for number, state in enumerate(layer.states)
        }

    endpoints = {STEP: (step, specs), RESET: (reset, [])}
    if not stateful:
        endpoints = {SIGNATURE: (step, specs)}
    if forecast is not None:
        endpoints |= forecast_endpoint(model, forecast, batch_size)
    tokens, words = vocabulary_sizes(model), known_words(all_layers(model))
    calls = {
        name: random_calls(specs, tokens=tokens, words=words)
        for name, (_, specs) in endpoints.items()
    }
    if stateful:
        calls = {RESET: [{}], STEP: calls[STEP]}
    with preserve_states(stateful):
        return write_and_verify(path, model, endpoints, calls, check)


def write_and_verify(path, model, endpoints, calls, check) -> Path:
    """Writes a SavedModel in ordinary ops, which appears once it is verified.

    Args:
        calls: dict of random calls by signature name, to compare on; `check`, if it is
            data, replaces those of the first signature.
        check: as in `export_saved_model`.
    """
    if check is not True and check is not False:
        name, (_, specs) = next(iter(endpoints.items()))
        given = samples("check", by_signature(model, check), specs)
        calls = calls | {name: split_into_calls(given, specs)}
    with atomic_write(path, folder=True) as folder:
        write_saved_model(
            folder, endpoints, Policy(compiled=False), tracked_resources(model)
        )
        if check is not False:
            verify_saved_model(folder, model, endpoints, calls)
    return Path(path)


@contextmanager
def preserve_states(layers):
    """Restores the states of stateful layers when the context exits."""
    saved = [[state.numpy() for state in layer.states] for layer in layers]
    try:
        yield
    finally:
        for layer, values in zip(layers, saved, strict=True):
            for state, value in zip(layer.states, values, strict=True):
                state.assign(value)


def generate_function(model, max_length, method="greedy", **options):
    """Returns a function from `source` to a `Seq2Seq`'s best answers by name."""
    options["max_length"] = max_length

    def run(source):
        found = model.search(source, method, **options)
        best = {
            "tokens": found.tokens,
            "lengths": found.lengths,
            "scores": found.scores,
            "attention": found.records,
        }
        return {name: y[:, 0] for name, y in best.items() if y is not None}

    return run


def source_spec(batch_size, time_steps):
    """Returns the spec of a `Seq2Seq`'s source, of any number of steps by default."""
    steps = steps_of_input(time_steps, "source")
    steps = None if steps == "model" else steps
    return tf.TensorSpec((batch_size, steps), tf.int32, "source")


def source_vocabulary_size(model) -> dict[str, int]:
    """Returns the vocabulary size of a `Seq2Seq`'s source, by input name."""
    return {"source": model.source_embedding.input_dim}


def forecast_endpoint(model, steps, batch_size, warmup=None, write=None) -> dict:
    """Returns the signature of a closed loop, `(function, specs)` by name.

    Args:
        steps: int, number of steps to forecast.
        batch_size: int, number of rows, or None for any.
        warmup: int, number of steps of the warm-up, or None for any.
        write: the form of the loop; see `recurrence.run`.
    """
    check_positive_integer("forecast", steps)
    outside = external_feature_count(model)
    of_model = model.inputs[0]
    sizes = {"warmup": (warmup, of_model.shape[-1])}
    if outside and steps > 1:
        sizes["inputs"] = (steps - 1, outside)
    specs = [
        tf.TensorSpec((batch_size, *size), of_model.dtype, name)
        for name, size in sizes.items()
    ]

    def run(warmup, inputs=None):
        return {"output_0": closed_loop(model, warmup, steps, inputs, write=write)}

    return {FORECAST: (run, specs)}


def is_stateful(layer) -> bool:
    """Returns whether a layer itself, not one in it, keeps states between calls."""
    return bool(getattr(layer, "stateful", False) and getattr(layer, "cell", None))


def write_saved_model(folder, endpoints, policy, resources=()):
    """Writes a SavedModel whose loops have the form that a policy chooses.

    Args:
        folder: the folder to write.
        endpoints: dict of `(function, [tf.TensorSpec])` by signature name; functions
            take and return tensors by name.
        policy: `recurrence.Policy`.
        resources: list of resources that the functions use besides variables.
    """

    def by_position(function, specs):
        names = [spec.name for spec in specs]
        return lambda *inputs: function(**dict(zip(names, inputs, strict=True)))

    # Variables that the endpoints use are tracked automatically. Tracking the model
    # would trace it again, for a signature of its own.
    archive = keras.export.ExportArchive()
    for resource in resources:
        archive.track(resource)
    with policy.active():
        for name, (function, specs) in endpoints.items():
            function = by_position(function, specs)
            archive.add_endpoint(name, function, input_signature=specs)
        archive.write_out(str(folder), verbose=False)


def call_by_name(model, /, **inputs) -> dict:
    """Runs a model's inference on inputs by name; returns its outputs by name."""
    flat = [inputs[name] for name in signature_names(model)]
    sequential = isinstance(model, keras.Sequential)
    structure = model.inputs[0] if sequential else model.input
    packed = keras.tree.pack_sequence_as(structure, flat)
    return named_outputs(call_model(model, packed))


def input_signature(model, batch_size=None, time_steps="model") -> list[tf.TensorSpec]:
    """Returns the specs of a model's inputs, with their names in signatures."""
    names = input_names(model)
    shapes = [[batch_size, *x.shape[1:]] for x in model.inputs]
    if time_steps != "model":
        found = TimeAxisSearch(model, names).find_steps(time_steps)
        for name, (axis, steps) in found.items():
            shapes[names.index(name)][axis] = steps
    return [
        tf.TensorSpec(shape, x.dtype, name=name)
        for shape, x, name in zip(
            shapes, model.inputs, signature_names(model), strict=True
        )
    ]
