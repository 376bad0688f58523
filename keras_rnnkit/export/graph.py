"""A model's layers called one after the other, and the shapes that they see."""

import inspect
from dataclasses import dataclass, field

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import takes
from keras_rnnkit.internals import all_layers, run_operations, set_masks
from keras_rnnkit.recurrence import Policy


def call_layer(layer, *args, **kwargs):
    """Calls a layer, or an operation of `keras.ops`, for inference."""
    if isinstance(layer, keras.layers.Layer) and takes(layer, "training"):
        kwargs["training"] = False
    return layer(*args, **kwargs)


def call_model(model, inputs):
    """Calls a model for inference, with other sizes than its inputs say too."""
    fits = all(
        tf.TensorShape(x.shape).is_compatible_with(given.shape)
        for x, given in zip(model.inputs, tree.flatten(inputs), strict=True)
    )
    if fits:
        return model(inputs, training=False)
    return run_graph(model, inputs, call_layer)  # `__call__` would refuse them


def run_graph(model, inputs, call):
    """Runs a model, and the models in it, with each of their layers called by `call`.

    Args:
        inputs: tensors, in the structure of the model's inputs or flat.
        call: callable `(layer, *args, **kwargs)`, which returns what the layer would.
            A model with a `call` of its own counts as a layer, as does a layer.
    """
    graph = _graph_of(model)
    if graph is None:
        return call(model, inputs)

    def function_of(layer):
        def run(*args, **kwargs):
            is_model = isinstance(layer, keras.Model)
            if is_model and len(args) == 1 and not {*kwargs} - {"training", "mask"}:
                masks = tree.flatten(kwargs.get("mask"))
                set_masks(args[0], masks)
                return run_graph(layer, args[0], call)
            return call(layer, *args, **kwargs)

        return run

    flat = [
        x if x is None or x.dtype == wanted.dtype else ops.cast(x, wanted.dtype)
        for x, wanted in zip(tree.flatten(inputs), graph.inputs, strict=True)
    ]
    outputs = run_operations(graph, flat, function_of)
    if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
        return outputs[0]
    return outputs


def _graph_of(model):
    """The model as a functional one; `None` if its code does more than run a graph."""
    is_model = isinstance(model, keras.Model) and model.built
    if not is_model or not getattr(model, "inputs", None):
        return None
    functional = model
    if isinstance(model, keras.Sequential):
        functional = keras.Model(model.inputs, model.outputs)
    plain = keras.Sequential.call, type(keras.Model(model.inputs, model.outputs)).call
    return functional if type(model).call in plain else None


@dataclass
class Call:
    """One call of a layer in a model.

    Attributes:
        layer: the layer, or an operation of `keras.ops`.
        level: int, of how many `TimeDistributed` it is inside.
        inputs, outputs: lists of symbolic tensors.
        first: list of those that `initial_state` holds.
    """

    layer: keras.layers.Layer
    level: int
    inputs: list
    outputs: list = field(default_factory=list)
    first: list = field(default_factory=list)

    @property
    def is_recurrent(self) -> bool:
        """Whether the layer is recurrent, or has one that is; what `TimeDistributed`
        wraps has calls of its own."""
        wraps = isinstance(self.layer, keras.layers.TimeDistributed)
        return not wraps and any(map(is_recurrent, layers_of(self.layer)))


class StoppedError(Exception):
    """A layer cannot take inputs of a size.

    Attributes:
        calls: list of `Call`, up to the one that failed.
    """

    def __init__(self, calls, error):
        super().__init__(str(error))
        self.calls = calls


def layers_of(layer) -> list:
    """A layer and all within it; none of an operation of `keras.ops`."""
    return all_layers(layer) if isinstance(layer, keras.layers.Layer) else []


def is_recurrent(layer) -> bool:
    """Whether a layer itself runs along the steps of a sequence."""
    return hasattr(layer, "return_sequences")


def trace_calls(model, shapes):
    """Calls the layers of a model on symbolic tensors; see `Call`.

    Args:
        shapes: list of the shapes of the model's inputs, of known sizes.

    Returns:
        The calls, in order, and the model's outputs.

    Raises:
        StoppedError: a layer that cannot take them.
    """
    calls, outputs, level = [], None, 0

    def call(layer, *args, **kwargs):
        nonlocal level
        seen = Call(layer, level, _tensors((args, kwargs)))
        seen.first = _tensors(_argument(layer, "initial_state", args, kwargs))
        calls.append(seen)
        try:
            if isinstance(layer, keras.layers.TimeDistributed):
                level += 1
                outputs = _at_one_step(layer, args[0], call)
                level -= 1
            elif is_recurrent(layer):  # without its loop, which takes long to trace
                outputs = _zeros_of(layer, args, kwargs)
            else:
                outputs = call_layer(layer, *args, **kwargs)
        except StoppedError:
            raise
        except Exception as error:
            raise StoppedError(calls, error) from error
        seen.outputs = _tensors(outputs)
        return outputs

    def run(*inputs):
        nonlocal outputs
        with Policy(compiled=False).active():
            outputs = run_graph(model, list(inputs), call)

    specs = [
        tf.TensorSpec(shape, x.dtype)
        for shape, x in zip(shapes, model.inputs, strict=True)
    ]
    tf.function(run, autograph=False).get_concrete_function(*specs)
    return calls, outputs


def _tensors(structure) -> list:
    return [x for x in tree.flatten(structure) if tf.is_tensor(x)]


def _argument(layer, name, args, kwargs):
    """An argument of a call, or `None`."""
    try:
        given = inspect.signature(layer.call).bind(*args, **kwargs)
    except TypeError:
        return None
    return given.arguments.get(name)


def _at_one_step(wrapper, x, call):
    """What a `TimeDistributed` returns, in shapes: its layer is called for one step."""
    one = tf.zeros([x.shape[0], *x.shape[2:]], x.dtype)
    outputs = run_graph(wrapper.layer, one, call)
    return tree.map_structure(
        lambda y: tf.zeros([*x.shape[:2], *y.shape[1:]], y.dtype), outputs
    )


def _zeros_of(layer, args, kwargs):
    """Zeros in the shapes of what a recurrent layer returns."""
    args, kwargs = tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, x.dtype.name) if tf.is_tensor(x) else x,
        (args, kwargs),
    )
    return tree.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype),
        layer.compute_output_spec(*args, **kwargs),
    )
