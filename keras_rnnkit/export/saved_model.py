"""SavedModel: for TensorFlow Serving, and the source of the TFLite file."""

from pathlib import Path

import keras
import tensorflow as tf

from keras_rnnkit.export.files import whole
from keras_rnnkit.recurrence import only_portable

SIGNATURE = "serving_default"


def export_saved_model(model: keras.Model, path, *, batch_size=None) -> Path:
    """Writes the model's inference as a SavedModel.

    Its signature `serving_default` takes the model's inputs by name and runs in any
    process that has TensorFlow, without Keras and without this package.

    Args:
        model: a built functional or sequential model.
        path: the folder to write; an earlier one is replaced once the new one is whole.
        batch_size: int, or None for any.

    Returns:
        `path`.

    Raises:
        ValueError: the model has not been built.
    """
    signature = input_signature(model, batch_size)

    def run(*inputs):
        names = [spec.name for spec in signature]
        return serve(model, **dict(zip(names, inputs, strict=True)))

    with whole(path) as folder, only_portable():
        archive = keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint(SIGNATURE, run, input_signature=signature)
        archive.write_out(str(folder), verbose=False)
    return Path(path)


def serve(model, **inputs) -> dict:
    """Runs the model's inference on inputs by name; returns its outputs by name."""
    flat = [inputs[spec.name] for spec in input_signature(model)]
    sequential = isinstance(model, keras.Sequential)
    structure = model.inputs[0] if sequential else model.input
    outputs = model(keras.tree.pack_sequence_as(structure, flat), training=False)
    if isinstance(outputs, dict):
        return outputs
    flat = keras.tree.flatten(outputs)
    return {f"output_{number}": output for number, output in enumerate(flat)}


def input_signature(model, batch_size=None) -> list[tf.TensorSpec]:
    """The model's inputs, flat, with the names of its input layers."""
    if not model.built:
        raise ValueError(
            f"`model` must be built to be exported; received `{model.name}` without an "
            "input shape: add a `keras.Input` or call the model once"
        )
    return [
        tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype, name=name)
        for x, name in zip(model.inputs, input_names(model), strict=True)
    ]


def input_names(model) -> list[str]:
    """The names of the input layers, in the order of `model.inputs`."""
    if isinstance(model, keras.Sequential):
        return [model.get_config()["layers"][0]["config"]["name"]]
    layers = [x for x in model.layers if isinstance(x, keras.layers.InputLayer)]
    names = {id(layer.output): layer.name for layer in layers}
    return [names[id(x)] for x in model.inputs]
