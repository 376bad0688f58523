"""SavedModel: for TensorFlow Serving, and the source of the TFLite file."""

from pathlib import Path

import keras
import tensorflow as tf

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.convert import all_layers, call_any_steps
from keras_rnnkit.export.checks import check_answers, resources_of
from keras_rnnkit.export.files import whole
from keras_rnnkit.export.names import named_outputs, signature_names
from keras_rnnkit.export.prepared import prepared
from keras_rnnkit.recurrence import Export
from keras_rnnkit.reservoir.forecast import check_closed, closed_loop

SIGNATURE = "serving_default"
STEP, RESET = "step", "reset"
FORECAST = "forecast"
GENERATE, BEAM = "generate", "generate_beam"


@prepared(for_tflite=False)
def export_saved_model(
    model: keras.Model,
    path,
    *,
    batch_size=None,
    time_steps="model",
    forecast: int | None = None,
    max_length: int | None = None,
    beam_width: int = 5,
    length_penalty: float = 0.0,
) -> Path:
    """Writes the model's inference as a SavedModel.

    Its signature `serving_default` takes the model's inputs by name and runs in any
    process that has TensorFlow, without Keras and without this package. With stateful
    layers it goes on from the states that the call before left and is named `step` too;
    `reset` sets them to zero and returns them.

    Args:
        model: a built functional or sequential model, or a `Seq2Seq`, whose signatures
            `generate`, greedy, and `generate_beam` take `source`.
        path: the folder to write; an earlier one is replaced once the new one is whole.
        batch_size: int, or None for any; a stateful model has its own.
        time_steps: "model" for what the model's inputs say, int, or None for any: the
            second axis of those inputs that are sequences.
        forecast: int, write a signature `forecast` beside: it takes `warmup` and, if
            there are any, `inputs` as `rk.forecast` does and returns as many steps.
        max_length: int, of a `Seq2Seq`, the most tokens of an answer.
        beam_width, length_penalty: of `generate_beam`; see `Seq2Seq.generate`.

    Returns:
        `path`.

    Raises:
        ValueError: the model has not been built, or cannot take that many steps; a
            wrong argument.
    """
    if check_answers(model, max_length, forecast=forecast):
        spec = source_spec(batch_size, time_steps)
        beam = {"beam_width": beam_width, "length_penalty": length_penalty}
        endpoints = {
            GENERATE: (answer(model, max_length), [spec]),
            BEAM: (answer(model, max_length, "beam", **beam), [spec]),
        }
        return write_whole(path, endpoints, model)
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
    return write_whole(path, endpoints, model)


def write_whole(path, endpoints, model) -> Path:
    """Writes a SavedModel in ordinary ops, which appears once it is whole."""
    with whole(path) as folder:
        write(folder, endpoints, Export("arrays"), resources_of(model))
    return Path(path)


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
    steps = None if time_steps == "model" else time_steps
    return tf.TensorSpec((batch_size, steps), tf.int32, "source")


def forecast_endpoint(model, steps, batch_size, warmup=None, form="arrays") -> dict:
    """The signature of a closed loop, `(function, specs)` by its name.

    Args:
        steps: int, how many are forecast.
        batch_size, warmup: int, the rows and steps that it takes, or None for any.
        form: of the loop; see `recurrence.run`.
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
        return {"output_0": closed_loop(model, warmup, steps, inputs, form)}

    return {FORECAST: (run, specs)}


def is_stateful(layer) -> bool:
    """Whether a layer, no wrapper of one, keeps states from call to call."""
    return bool(getattr(layer, "stateful", False) and getattr(layer, "cell", None))


def write(folder, endpoints, export, resources=()):
    """Writes a SavedModel whose loops have the forms that an `Export` chooses.

    Args:
        folder: where to.
        endpoints: dict of `(function, [tf.TensorSpec])` by the name of the signature;
            functions take and return tensors by name.
        export: `Export`.
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
    with export.tracing():
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
    return named_outputs(call_any_steps(model, packed))


def input_signature(model, batch_size=None, time_steps="model") -> list[tf.TensorSpec]:
    """The model's inputs, flat, by the names that they have in signatures."""
    shapes = [(batch_size, *x.shape[1:]) for x in model.inputs]
    if time_steps != "model":
        shapes = with_steps(shapes, time_steps, [x.dtype for x in model.inputs])
    return [
        tf.TensorSpec(shape, x.dtype, name=name)
        for shape, x, name in zip(
            shapes, model.inputs, signature_names(model), strict=True
        )
    ]


def with_steps(shapes, steps, dtypes):
    """Shapes with another number of steps: of inputs whose second axis is not known,
    or if there are none of `(batch, time, features)` and of tokens `(batch, time)`."""
    takes = [len(shape) > 1 and shape[1] is None for shape in shapes]
    if not any(takes):
        tokens = ["int" in dtype for dtype in dtypes]
        takes = [
            len(shape) == 3 or (len(shape) == 2 and token)
            for shape, token in zip(shapes, tokens, strict=True)
        ]
    return [
        (shape[0], steps, *shape[2:]) if take else shape
        for shape, take in zip(shapes, takes, strict=True)
    ]
