"""Loads models from files of Keras 3 and Keras 2."""

from keras_rnnkit.saved.activations import keras2_hard_sigmoid
from keras_rnnkit.saved.load import load_model

__all__ = ["keras2_hard_sigmoid", "load_model"]
