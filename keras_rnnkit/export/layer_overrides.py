"""What stands in for layers of Keras while a model is traced for a file.

The model itself stays as it is: for as long as an export lasts, its layers have another
`call`, which steps in where an export is traced and nowhere else. So layers are found
within a user's own layers and models too, which cannot be rebuilt from outside.
"""

import threading
from contextlib import contextmanager
from functools import partial, wraps

import keras
import tensorflow as tf

from keras_rnnkit.arguments import takes
from keras_rnnkit.convert import is_stock, stand_in
from keras_rnnkit.export.flatten import shaped
from keras_rnnkit.internals import all_layers
from keras_rnnkit.recurrence import DEFAULT, current_policy

_turn = threading.RLock()  # one export at a time has its stand-ins in a model


@contextmanager
def stand_ins(model, recurrent):
    """Has stand-ins called in place of layers of Keras.

    Args:
        recurrent: bool, whether for recurrent layers too.
    """
    with _turn:
        calls = {}
        for layer in all_layers(model):
            if call := call_of_stand_in(layer, recurrent):
                calls[layer] = while_exported(call, layer.call)
        try:
            for layer, call in calls.items():
                vars(layer)["call"] = call
            yield
        finally:
            for layer in calls:
                vars(layer).pop("call", None)


def call_of_stand_in(layer, recurrent):
    """What is to be called in place of a layer, or None for the layer itself."""
    if isinstance(layer, keras.layers.TimeDistributed):
        return partial(call_at_once, layer)
    if recurrent and is_stock(layer):
        new = stand_in(layer)
        # Of its class: as an attribute it may be the one that stands in.
        return partial(type(new).call, new)
    return None


def while_exported(call, otherwise):
    @wraps(otherwise)
    def run(*args, **kwargs):
        chosen = otherwise if current_policy() is DEFAULT else call
        return chosen(*args, **kwargs)

    return run


def call_at_once(layer, inputs, training=None, mask=None):
    """Calls what `TimeDistributed` wraps, once for the steps of all rows.

    Keras goes over steps whose number is known, one after the other; where it is not,
    Keras 3.15 goes over the rows of a graph instead.
    """
    if inputs.shape[1] is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    inner, sizes = layer.layer, tf.shape(inputs)[:2]

    def fold(x):
        shape = tf.concat([tf.reduce_prod(sizes, keepdims=True), tf.shape(x)[2:]], 0)
        if 0 not in x.shape[2:] and None not in x.shape[2:]:
            shape = [-1, *x.shape[2:]]  # of which the converter knows the sizes
        return shaped(tf.reshape(x, shape), [None, *x.shape[2:]])

    kwargs = {"mask": fold(mask)} if mask is not None and takes(inner, "mask") else {}
    if takes(inner, "training"):
        kwargs["training"] = training
    with tf.name_scope(inner.name):
        y = inner.call(fold(inputs), **kwargs)
    outputs = tf.reshape(y, tf.concat([sizes, tf.shape(y)[1:]], 0))
    return shaped(outputs, [*inputs.shape[:2], *y.shape[1:]])
