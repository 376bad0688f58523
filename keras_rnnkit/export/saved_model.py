"""SavedModel: for TensorFlow Serving, and the source of the TFLite file."""

import os
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.export.checks import check_answers, resources_of
from keras_rnnkit.export.files import check_target, whole
from keras_rnnkit.export.graph import call_model
from keras_rnnkit.export.names import (
    by_signature,
    input_names,
    named_outputs,
    signature_names,
)
from keras_rnnkit.export.prepared import prepared
from keras_rnnkit.export.proof import FORECAST, prove_saved_model
from keras_rnnkit.export.samples import (
    calls_of,
    random_calls,
    samples,
    tokens_of,
    words_of,
)
from keras_rnnkit.export.steps import Search, of_one_input
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import Policy
from keras_rnnkit.reservoir.forecast import check_closed, closed_loop

SIGNATURE = "serving_default"
STEP, RESET = "step", "reset"
GENERATE, BEAM = "generate", "generate_beam"


@prepared(for_tflite=False)
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
    """Writes the model's inference as a SavedModel, and proves that it is right.

    What was written is loaded, run in several sizes, and compared with the model before
    it appears under `path`.

    Its signature `serving_default` takes the model's inputs by name and runs in any
    process that has TensorFlow, without Keras and without this package. With stateful
    layers it goes on from the states that the call before left and is named `step` too;
    `reset` sets them to zero and returns them.

    Args:
        model: a built model, as in `export_tflite`; of a `Seq2Seq` the signatures
            `generate`, greedy, and `generate_beam` take `source`.
        path: the folder to write; an earlier one is replaced once the new one is whole.
        batch_size: int, or None for any; a stateful model has its own.
        time_steps: as in `export_tflite`.
        forecast: int, write a signature `forecast` beside: it takes `warmup` and, if
            there are any, `inputs` as `rk.forecast` does and returns as many steps.
        max_length: int, of a `Seq2Seq`, the most tokens of an answer.
        beam_width, length_penalty: of `generate_beam`; see `Seq2Seq.generate`.
        check: the data to compare on, as in `export_tflite`; True for random data;
            False to compare nothing, for a model that draws at random.

    Returns:
        `path`.

    Raises:
        ValueError: the model has not been built, or cannot take that many steps; a
            wrong argument; a difference.
    """
    check_target(path, folder=True)
    if check_answers(model, max_length, forecast=forecast):
        spec = source_spec(batch_size, time_steps)
        beam = {"beam_width": beam_width, "length_penalty": length_penalty}
        endpoints = {
            GENERATE: (answer(model, max_length), [spec]),
            BEAM: (answer(model, max_length, "beam", **beam), [spec]),
        }
        drawn = random_calls([spec], tokens=source_tokens(model))
        return write_whole(
            path, model, endpoints, dict.fromkeys(endpoints, drawn), check
        )
    stateful = [layer for layer in all_layers(model) if is_stateful(layer)]
    if stateful:
        batch_size = model.inputs[0].shape[0]
    specs = input_signature(model, batch_size, time_steps)

    def step(**inputs):
        return serve(model, **inputs)

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
    tokens, words = tokens_of(model), words_of(all_layers(model))
    drawn = {
        name: random_calls(specs, tokens=tokens, words=words)
        for name, (_, specs) in endpoints.items()
    }
    if stateful:
        drawn = {RESET: [{}], STEP: drawn[STEP]}
    with kept_states(stateful):
        return write_whole(path, model, endpoints, drawn, check)


def write_whole(path, model, endpoints, drawn, check) -> Path:
    """Writes a SavedModel in ordinary ops, which appears once it is whole, and right.

    Args:
        drawn: dict of calls by the name of the signature, to compare on; those of the
            first one give way to `check`, if that is data.
        check: as in `export_saved_model`.
    """
    if check is not True and check is not False:
        name, (_, specs) = next(iter(endpoints.items()))
        given = samples("check", by_signature(model, check), specs)
        drawn = drawn | {name: calls_of(given, specs)}
    with whole(path, folder=True) as folder:
        write(folder, endpoints, Policy(compiled=False), resources_of(model))
        if check is not False:
            prove_saved_model(folder, model, endpoints, drawn)
    return Path(path)


@contextmanager
def kept_states(layers):
    """Gives stateful layers the states back that they had before."""
    kept = [[state.numpy() for state in layer.states] for layer in layers]
    try:
        yield
    finally:
        for layer, values in zip(layers, kept, strict=True):
            for state, value in zip(layer.states, values, strict=True):
                state.assign(value)


def answer(model, max_length, method="greedy", **options):
    """A function of `source` that returns a `Seq2Seq`'s best answers, by name."""
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
    """What a `Seq2Seq` answers, of any number of steps unless one is given."""
    steps = of_one_input(time_steps, "source")
    steps = None if steps == "model" else steps
    return tf.TensorSpec((batch_size, steps), tf.int32, "source")


def source_tokens(model) -> dict[str, int]:
    """How many tokens a `Seq2Seq` reads."""
    return {"source": model.source_embedding.input_dim}


def forecast_endpoint(model, steps, batch_size, warmup=None, write=None) -> dict:
    """The signature of a closed loop, `(function, specs)` by its name.

    Args:
        steps: int, how many are forecast.
        batch_size, warmup: int, the rows and steps that it takes, or None for any.
        write: how the loop is written; see `recurrence.run`.
    """
    check_positive_integer("forecast", steps)
    outside = check_closed(model)
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
    """Whether a layer, no wrapper of one, keeps states from call to call."""
    return bool(getattr(layer, "stateful", False) and getattr(layer, "cell", None))


def write(folder, endpoints, policy, resources=()):
    """Writes a SavedModel whose loops are as a policy has them.

    Args:
        folder: where to.
        endpoints: dict of `(function, [tf.TensorSpec])` by the name of the signature;
            functions take and return tensors by name.
        policy: `recurrence.Policy`.
        resources: list, what the functions use beside variables.
    """

    def by_position(function, specs):
        names = [spec.name for spec in specs]
        return lambda *inputs: function(**dict(zip(names, inputs, strict=True)))

    # What the endpoints use is tracked by itself. Tracking the model would trace it
    # once more, for a signature of its own.
    archive = keras.export.ExportArchive()
    for resource in resources:
        archive.track(resource)
    with policy.active():
        for name, (function, specs) in endpoints.items():
            function = by_position(function, specs)
            archive.add_endpoint(name, function, input_signature=specs)
        archive.write_out(str(folder), verbose=False)


def serve(model, /, **inputs) -> dict:
    """Runs the model's inference on inputs by name; returns its outputs by name."""
    flat = [inputs[name] for name in signature_names(model)]
    sequential = isinstance(model, keras.Sequential)
    structure = model.inputs[0] if sequential else model.input
    packed = keras.tree.pack_sequence_as(structure, flat)
    return named_outputs(call_model(model, packed))


def input_signature(model, batch_size=None, time_steps="model") -> list[tf.TensorSpec]:
    """The model's inputs, flat, by the names that they have in signatures."""
    names = input_names(model)
    shapes = [[batch_size, *x.shape[1:]] for x in model.inputs]
    if time_steps != "model":
        found = Search(model, names).steps_of(time_steps)
        for name, (axis, steps) in found.items():
            shapes[names.index(name)][axis] = steps
    return [
        tf.TensorSpec(shape, x.dtype, name=name)
        for shape, x, name in zip(
            shapes, model.inputs, signature_names(model), strict=True
        )
    ]
