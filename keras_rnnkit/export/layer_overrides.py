"""Overrides `call` of Keras layers while a model is traced for an export.

The model is not rebuilt: during an export its layers have another `call`, which takes
effect in the trace of the export only. This also reaches layers within a user's own
layers and models, which cannot be rebuilt from outside.
"""

import threading
from contextlib import contextmanager
from functools import partial, wraps

import keras
import tensorflow as tf

from keras_rnnkit.arguments import takes
from keras_rnnkit.convert import as_portable_layer, is_stock
from keras_rnnkit.export.flatten import with_static_shape
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import DEFAULT, current_policy

_lock = threading.RLock()  # only one export at a time overrides layers


@contextmanager
def override_layer_calls(model, recurrent):
    """Overrides `call` of layers of Keras within the context.

    Args:
        model: a model, which has its own `call`s again afterwards.
        recurrent: bool, whether to override recurrent layers too.
    """
    with _lock:
        calls = {}
        for layer in all_layers(model):
            if call := override_of(layer, recurrent):
                calls[layer] = during_export(call, layer.call)
        try:
            for layer, call in calls.items():
                vars(layer)["call"] = call
            yield
        finally:
            for layer in calls:
                vars(layer).pop("call", None)


def override_of(layer, recurrent):
    """Returns what replaces `call` of a layer, or None to keep it."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return partial(call_all_steps_at_once, layer)
    if recurrent and is_stock(layer):
        portable = as_portable_layer(layer)
        # Looked up in the class, as the attribute may be overridden.
        return partial(type(portable).call, portable)
    return None


def during_export(call, otherwise):
    """Returns a function that runs `call` in an export, and else `otherwise`."""

    @wraps(otherwise)
    def run(*args, **kwargs):
        chosen = otherwise if current_policy() is DEFAULT else call
        return chosen(*args, **kwargs)

    return run


def call_all_steps_at_once(layer, inputs, training=None, mask=None):
    """Calls the layer in a `TimeDistributed` once, for the steps of all rows.

    Keras loops over the steps if their number is known; if not, Keras 3.15 loops over
    the rows of the batch instead.
    """
    if inputs.shape[1] is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    inner, sizes = layer.layer, tf.shape(inputs)[:2]

    def fold(x):
        shape = tf.concat([tf.reduce_prod(sizes, keepdims=True), tf.shape(x)[2:]], 0)
        if 0 not in x.shape[2:] and None not in x.shape[2:]:
            shape = [-1, *x.shape[2:]]  # a static shape for the converter
        return with_static_shape(tf.reshape(x, shape), [None, *x.shape[2:]])

    kwargs = {"mask": fold(mask)} if mask is not None and takes(inner, "mask") else {}
    if takes(inner, "training"):
        kwargs["training"] = training
    with tf.name_scope(inner.name):
        y = inner.call(fold(inputs), **kwargs)
    outputs = tf.reshape(y, tf.concat([sizes, tf.shape(y)[1:]], 0))
    return with_static_shape(outputs, [*inputs.shape[:2], *y.shape[1:]])
