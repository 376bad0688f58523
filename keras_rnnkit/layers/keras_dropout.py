"""The dropout masks of Keras's cells, which are drawn once per sequence."""

from contextlib import contextmanager

import keras
import tensorflow as tf
from keras import tree


@contextmanager
def dropout_masks(cell, inputs, states):
    """A context in which Keras's cells keep dropout masks drawn before the loop.

    Args:
        cell: a cell, or `keras.layers.StackedRNNCells`.
        inputs: `(time, batch, features)`.
        states: the states of the cell.
    """
    stacked = isinstance(cell, keras.layers.StackedRNNCells)
    cells, states = (cell.cells, states) if stacked else ([cell], [states])
    ones = tf.ones(tf.shape(inputs)[1:], inputs.dtype)
    try:
        for each, state in zip(cells, states, strict=True):
            if hasattr(each, "get_dropout_mask"):
                each.get_dropout_mask(ones)
                each.get_recurrent_dropout_mask(tree.flatten(state)[0])
            if stacked:
                width = getattr(each, "output_size", None)
                width = width or tree.flatten(each.state_size)[0]
                ones = tf.ones([tf.shape(inputs)[1], width], inputs.dtype)
        yield
    finally:
        for each in cells:
            if hasattr(each, "reset_dropout_mask"):
                each.reset_dropout_mask()
                each.reset_recurrent_dropout_mask()
