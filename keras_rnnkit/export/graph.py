"""Runs a model layer by layer, and traces the shapes of its layers."""

import inspect
from dataclasses import dataclass, field

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import takes
from keras_rnnkit.convert import has_compatible_inputs
from keras_rnnkit.internals import all_layers, run_operations, set_masks
from keras_rnnkit.recurrence import Policy


def call_layer(layer, *args, **kwargs):
    """Calls a layer, or an operation of `keras.ops`, for inference."""
    if isinstance(layer, keras.layers.Layer) and takes(layer, "training"):
        kwargs["training"] = False
    return layer(*args, **kwargs)


def call_model(model, inputs):
    """Calls a model for inference; other sizes than those of its inputs are allowed."""
    if has_compatible_inputs(model, inputs):
        return model(inputs, training=False)
    return run_graph(model, inputs, call_layer)  # `__call__` would reject them


def run_graph(model, inputs, call):
    """Runs a model and its nested models, calling each of their layers through `call`.

    Args:
        inputs: tensors, in the structure of the model's inputs or flat.
        call: callable `(layer, *args, **kwargs)` that returns the layer's outputs. A
            model with a `call` of its own is treated as a layer.
    """
    graph = _as_functional(model)
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


def _as_functional(model):
    """Returns the model as a functional one; `None` if it has a `call` of its own."""
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
        depth: int, the number of `TimeDistributed` wrappers around it.
        inputs, outputs: lists of symbolic tensors.
        initial_state: list of the tensors passed as `initial_state`.
    """

    layer: keras.layers.Layer
    depth: int
    inputs: list
    outputs: list = field(default_factory=list)
    initial_state: list = field(default_factory=list)

    @property
    def is_recurrent(self) -> bool:
        """Whether the layer is or contains a recurrent one; the layer in a
        `TimeDistributed` has calls of its own."""
        wraps = isinstance(self.layer, keras.layers.TimeDistributed)
        return not wraps and any(map(is_recurrent, layers_of(self.layer)))


class LayerCallError(Exception):
    """A layer rejects the shapes of its inputs.

    Attributes:
        calls: list of `Call`, up to the one that failed.
    """

    def __init__(self, calls, error):
        super().__init__(str(error))
        self.calls = calls


def layers_of(layer) -> list:
    """Returns a layer and all layers in it; none for an operation of `keras.ops`."""
    return all_layers(layer) if isinstance(layer, keras.layers.Layer) else []


def is_recurrent(layer) -> bool:
    """Returns whether a layer itself loops over the steps of a sequence."""
    return hasattr(layer, "return_sequences")


def trace_calls(model, shapes):
    """Calls the layers of a model on symbolic tensors.

    Args:
        shapes: list of the shapes of the model's inputs, fully defined.

    Returns:
        List of `Call`, in order, and the model's outputs.

    Raises:
        LayerCallError: a layer rejects its inputs.
    """
    calls, outputs, depth = [], None, 0

    def call(layer, *args, **kwargs):
        nonlocal depth
        traced = Call(layer, depth, _tensors((args, kwargs)))
        traced.initial_state = _tensors(_argument(layer, "initial_state", args, kwargs))
        calls.append(traced)
        try:
            if isinstance(layer, keras.layers.TimeDistributed):
                depth += 1
                outputs = _at_one_step(layer, args[0], call)
                depth -= 1
            elif is_recurrent(layer):  # its loop would take long to trace
                outputs = _zeros_like_outputs(layer, args, kwargs)
            else:
                outputs = call_layer(layer, *args, **kwargs)
        except LayerCallError:
            raise
        except Exception as error:
            raise LayerCallError(calls, error) from error
        traced.outputs = _tensors(outputs)
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
    """Returns an argument of a call, or `None`."""
    try:
        given = inspect.signature(layer.call).bind(*args, **kwargs)
    except TypeError:
        return None
    return given.arguments.get(name)


def _at_one_step(wrapper, x, call):
    """Returns zeros in the shape of a `TimeDistributed`'s outputs; calls its layer for
    one step."""
    one = tf.zeros([x.shape[0], *x.shape[2:]], x.dtype)
    outputs = run_graph(wrapper.layer, one, call)
    return tree.map_structure(
        lambda y: tf.zeros([*x.shape[:2], *y.shape[1:]], y.dtype), outputs
    )


def _zeros_like_outputs(layer, args, kwargs):
    """Returns zeros in the shapes of a recurrent layer's outputs."""
    args, kwargs = tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, x.dtype.name) if tf.is_tensor(x) else x,
        (args, kwargs),
    )
    return tree.map_structure(
        lambda spec: tf.zeros(spec.shape, spec.dtype),
        layer.compute_output_spec(*args, **kwargs),
    )
