"""A model of any kind as one with inputs of known names, shapes and types."""

import inspect

import keras
import tensorflow as tf

from keras_rnnkit.convert import Functional
from keras_rnnkit.export.names import input_names

LEGACY = "tf_keras", "keras.src.legacy", "tensorflow.python.keras"


def with_inputs(model, others=()) -> keras.Model:
    """Returns the model, or a functional one around it.

    Args:
        model: a model; around a subclassed one there has to be another.
        others: types of inputs, in place of which float32 is to be taken.

    Raises:
        ValueError: it is no model of Keras 3, or has not been built.
    """
    check_kind(model)
    if not model.built:
        raise ValueError(
            f"the model must be built; received `{model.name}` without an input shape: "
            "add a `keras.Input` or call the model once"
        )
    if isinstance(model, (keras.Sequential, Functional)):
        if not any(x.dtype in others for x in model.inputs):
            return model
        inputs, by_name = with_float32(model, others), False
    else:
        inputs, by_name = inputs_of(model), True
    return keras.Model(inputs, Called(model, by_name)(inputs), name=model.name)


def with_float32(model, others):
    """New inputs like those of a model, of float32 in place of other types."""
    names = iter(input_names(model))

    def like(x):
        dtype = "float32" if x.dtype in others else x.dtype
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


class Called(keras.layers.Layer):
    """A model as a layer of a functional one.

    Args:
        model: a model.
        by_name: bool, whether it takes its arguments by name, or all in one.
    """

    def __init__(self, model, by_name):
        super().__init__(dtype=model.dtype_policy, autocast=False)
        self.model = model
        self.by_name = by_name
        self.built = True

    def call(self, inputs):
        return self.model(**inputs) if self.by_name else self.model(inputs)


def inputs_of(model) -> dict:
    """New inputs, in the structure that a subclassed model was called with."""
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
    dtypes = iter(dtypes_of(model, shapes))
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
    """Applies a function of shape and path to each shape of a nest of them."""
    if isinstance(shapes, dict):
        return {k: map_shapes(function, v, (*path, k)) for k, v in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return function(shapes, path)
    return [map_shapes(function, v, (*path, i)) for i, v in enumerate(shapes)]


def dtypes_of(model, shapes) -> list[str]:
    """The types of the inputs, which Keras does not keep: of integers if all that the
    model does with an input is to make integers of it, as an `Embedding` does."""
    found = []

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
        found.append("int32" if integer else keras.config.floatx())
    return found
