"""Turns any model into one with inputs of known names, shapes and dtypes."""

import inspect

import keras
import tensorflow as tf

from keras_rnnkit.convert import Functional
from keras_rnnkit.export.names import input_names

LEGACY = "tf_keras", "keras.src.legacy", "tensorflow.python.keras"


def as_functional(model, dtypes=()) -> keras.Model:
    """Returns the model, or a functional model that wraps it.

    Args:
        model: a model; a subclassed one is wrapped.
        dtypes: dtypes of inputs to replace by float32.

    Raises:
        ValueError: it is not a model of Keras 3, or has not been built.
    """
    check_kind(model)
    if not model.built:
        raise ValueError(
            f"the model must be built; received `{model.name}` without an input shape: "
            "add a `keras.Input` or call the model once"
        )
    if isinstance(model, (keras.Sequential, Functional)):
        if not any(x.dtype in dtypes for x in model.inputs):
            return model
        inputs, by_name = float32_inputs(model, dtypes), False
    else:
        inputs, by_name = new_inputs(model), True
    return keras.Model(inputs, WrappedModel(model, by_name)(inputs), name=model.name)


def float32_inputs(model, dtypes):
    """Returns new inputs like those of a model, with `dtypes` replaced by float32."""
    names = iter(input_names(model))

    def like(x):
        dtype = "float32" if x.dtype in dtypes else x.dtype
        return keras.Input(batch_shape=x.shape, dtype=dtype, name=next(names))

    flat = [like(x) for x in model.inputs]
    sequential = isinstance(model, keras.Sequential)
    structure = model.inputs[0] if sequential else model.input
    return keras.tree.pack_sequence_as(structure, flat)


def check_kind(model):
    """Raises `ValueError` unless it is a model of Keras 3."""
    if isinstance(model, keras.Model):
        return
    modules = [kind.__module__ for kind in type(model).__mro__]
    if any(module.startswith(LEGACY) for module in modules):
        raise ValueError(
            f"the model must be one of Keras 3; received `{model.name}` of Keras 2 "
            "(`tf_keras`, or `tf.keras` with TF_USE_LEGACY_KERAS): save it as an .h5 "
            "file, and load that by `rk.load_model`"
        )
    raise ValueError(
        f"the model must be a `keras.Model`; received {type(model).__name__}"
    )


class WrappedModel(keras.layers.Layer):
    """Wraps a model as a layer of a functional model.

    Args:
        model: a model.
        by_name: bool, whether to pass the inputs as keyword arguments.
    """

    def __init__(self, model, by_name):
        super().__init__(dtype=model.dtype_policy, autocast=False)
        self.model = model
        self.by_name = by_name
        self.built = True

    def call(self, inputs):
        return self.model(**inputs) if self.by_name else self.model(inputs)


def new_inputs(model) -> dict:
    """Returns new inputs, in the structure with which a subclassed model was called."""
    config = model.get_build_config() or {}
    shapes = config.get("shapes_dict")
    if shapes is None and config.get("input_shape") is not None:
        first = next(iter(inspect.signature(model.call).parameters))
        shapes = {first: config["input_shape"]}
    if not shapes:
        raise ValueError(
            f"the shapes of the inputs of `{model.name}` must be known; received a "
            "subclassed model that was not called: call it once"
        )
    shapes = {name.removesuffix("_shape"): shape for name, shape in shapes.items()}
    dtypes = iter(infer_dtypes(model, shapes))
    return {
        name: map_shapes(
            lambda shape, path: keras.Input(
                tuple(shape[1:]), dtype=next(dtypes), name="_".join(map(str, path))
            ),
            shape,
            (name,),
        )
        for name, shape in shapes.items()
    }


def map_shapes(function, shapes, path):
    """Applies a function of shape and path to each shape of a nested structure."""
    if isinstance(shapes, dict):
        return {k: map_shapes(function, v, (*path, k)) for k, v in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return function(shapes, path)
    return [map_shapes(function, v, (*path, i)) for i, v in enumerate(shapes)]


def infer_dtypes(model, shapes) -> list[str]:
    """Infers the dtypes of the inputs, which Keras does not keep: int32 if a model only
    casts an input to integers, as an `Embedding` does."""
    dtypes = []

    def run(*inputs):
        left = iter(inputs)
        return model(
            **{n: map_shapes(lambda *_: next(left), s, ()) for n, s in shapes.items()}
        )

    specs = []
    for shape in shapes.values():
        map_shapes(lambda s, _: specs.append(tf.TensorSpec(s, "float32")), shape, ())
    graph = tf.function(run, autograph=False).get_concrete_function(*specs).graph
    for tensor in graph.inputs[: len(specs)]:
        casts = [op for op in tensor.consumers() if op.type == "Cast"]
        integer = casts and all(op.get_attr("DstT").is_integer for op in casts)
        dtypes.append("int32" if integer else keras.config.floatx())
    return dtypes
