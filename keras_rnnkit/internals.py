"""Private names of Keras and TensorFlow that have no public equivalent.

`tests/test_internals.py` fails when one of them changes.
"""

import keras
import tensorflow as tf
from keras import tree

# Keras


def mask_of(tensor):
    """Returns the mask that a tensor carries to the next layer, or `None`.

    Keras passes it to a layer only for the first argument; for other arguments a layer
    reads it from the tensor.
    """
    return getattr(tensor, "_keras_mask", None)


def set_masks(tensors, masks):
    """Attaches masks to tensors, where `compute_mask` cannot know them.

    Args:
        tensors: nest of tensors.
        masks: nest of masks; `None` leaves its tensor unchanged.
    """
    pairs = zip(tree.flatten(tensors), tree.flatten(masks), strict=False)
    for tensor, mask in pairs:
        if mask is not None:
            tensor._keras_mask = mask


def all_layers(layer) -> list:
    """Returns a layer and all layers nested in it, in any attribute.

    `Model.layers` lists only the outermost layers, and only of models.
    """
    return layer._flatten_layers()


def run_operations(function: keras.Function, inputs: list, call):
    """Runs a graph of Keras operations, each as the function `call(operation)`.

    `keras.models.clone_model` can replace layers, but makes new weights and rejects
    some structures of arguments.
    """
    return function._run_through_graph(inputs, operation_fn=call)


# TensorFlow


def in_xla() -> bool:
    """Whether a function is being traced for XLA."""
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return control_flow_util.GraphOrParentsInXlaContext(graph)


def in_vectorized_map() -> bool:
    """Whether a function is being traced for `tf.vectorized_map`.

    So it is in derivatives that use it, such as `tf.GradientTape.jacobian`. There the
    loop's index is a placeholder in the name scope of the body.
    """
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
    """Whether XLA supports all operations of a `tf.function` with `jit_compile=True`.

    A call would show the same, but compiles and runs the function.

    Args:
        function: the `tf.function`.
        tensors: the tensors or specs of its arguments.
    """
    with tf.init_scope():
        try:
            function.experimental_get_compiler_ir(*tensors)(stage="hlo")
        except (ValueError, tf.errors.OpError):
            return False
    return True


def take_gradient(operation, replacement_of):
    """Removes the gradient of a `tf.custom_gradient` from TensorFlow's registry.

    The registry would keep it for the life of the process.

    Args:
        operation: the graph operation of a result of the function.
        replacement_of: callable that returns the gradient function to register instead,
            from the registered name.

    Returns:
        `(name, gradient)`: the registered name and the removed gradient function.
    """
    from tensorflow.python.framework import ops

    name = operation.get_attr("_gradient_op_type").decode()
    entry = ops.gradient_registry._registry[name]
    gradient, entry["type"] = entry["type"], replacement_of(name)
    return name, gradient


def write_at(tensor, update, start):
    """Returns a tensor with `update` written into it, from index `start` on.

    TensorFlow has no public name for this operation; in TFLite it is builtin.
    """
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    return gen_xla_ops.xla_dynamic_update_slice(tensor, update, start)
