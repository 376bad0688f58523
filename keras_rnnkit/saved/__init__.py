"""Models from files, those of Keras 2 too."""

from keras_rnnkit.saved.activations import keras2_hard_sigmoid
from keras_rnnkit.saved.load import load_model

__all__ = ["keras2_hard_sigmoid", "load_model"]
