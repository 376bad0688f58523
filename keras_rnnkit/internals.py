"""Private names of Keras and TensorFlow, and why each is needed: for none of these is
there a public one. `tests/test_internals.py` fails when one of them changes."""

import keras
import tensorflow as tf
from keras import tree

# Keras


def mask_of(tensor):
    """The mask that a tensor carries to the next layer, or `None`.

    Keras hands it to layers that are called with the tensor as their first argument; a
    layer reads that of another argument from the tensor itself.
    """
    return getattr(tensor, "_keras_mask", None)


def set_masks(tensors, masks):
    """Has tensors carry masks, where `compute_mask` cannot know them: nests in which a
    mask of `None` leaves its tensor as it is."""
    pairs = zip(tree.flatten(tensors), tree.flatten(masks), strict=False)
    for tensor, mask in pairs:
        if mask is not None:
            tensor._keras_mask = mask


def all_layers(layer) -> list:
    """A layer and all layers within it, of whatever attribute; `Model.layers` lists the
    outermost ones of models alone."""
    return layer._flatten_layers()


def run_operations(function: keras.Function, inputs: list, call):
    """Runs a graph of Keras's operations, each as `call(operation)` runs it.

    `keras.models.clone_model` can replace layers, but makes new weights, and refuses
    some structures of arguments.
    """
    return function._run_through_graph(inputs, operation_fn=call)


# TensorFlow


def in_xla() -> bool:
    """Whether a function is being traced for XLA, which TensorFlow tells to its own
    control flow alone."""
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)


def in_vectorized_map() -> bool:
    """Whether a function is being traced for `tf.vectorized_map`, or for a derivative
    that uses it, as `tf.GradientTape.jacobian` does: there the loop's index is a
    placeholder in the name scope of the body."""
    graph = tf.compat.v1.get_default_graph()
    scopes = tf.get_current_name_scope().split("/")
    for depth, scope in enumerate(scopes, 1):
        if scope.startswith("loop_body"):
            name = "/".join([*scopes[:depth], "PlaceholderWithDefault"])
            try:
                index = graph.get_operation_by_name(name).outputs[0]
            except KeyError:
                continue
            return index.dtype == tf.int32 and index.shape.rank == 0
    return False


def compiles(function, tensors) -> bool:
    """Whether XLA knows all operations of a `tf.function` of `jit_compile=True`, at
    these specs. The same is found by a call, which has to compile and run."""
    with tf.init_scope():
        try:
            function.experimental_get_compiler_ir(*tensors)(stage="hlo")
        except (ValueError, tf.errors.OpError):
            return False
    return True


def take_gradient(operation, put_in_its_place):
    """Takes the gradient that `tf.custom_gradient` made for an operation of a graph out
    of TensorFlow's registry, which would hold it for the life of the process.

    Args:
        operation: of a result of the function.
        put_in_its_place: callable `(*arguments)`.

    Returns:
        `(name, gradient)`.
    """
    from tensorflow.python.framework import ops

    name = operation.get_attr("_gradient_op_type").decode()
    entry = ops.gradient_registry._registry[name]
    gradient, entry["type"] = entry["type"], put_in_its_place(name)
    return name, gradient
