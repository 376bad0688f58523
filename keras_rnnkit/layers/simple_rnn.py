"""The simple recurrent layer."""

import keras

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells import SimpleRNNCell
from keras_rnnkit.layers.cell_layer import CellLayer, from_cell
from keras_rnnkit.layers.rnn import RNN


@extends(keras.layers.SimpleRNN, SimpleRNNCell, RNN)
class SimpleRNN(CellLayer, keras.layers.SimpleRNN):
    """The fully connected recurrent layer (Elman 1990): `SimpleRNNCell` on the loop.

    Takes the place of `keras.layers.SimpleRNN`: the same arguments, defaults, weights
    and outputs. `activity_regularizer` and `seed`, which Keras 3.15 drops here, count.

    Args:
        units: positive int, the size of the state and of the output.
        layer_norm: bool, default False; see `SimpleRNNCell`.

    Call arguments, shapes and errors are those of `RNN`.
    """

    cell_class = SimpleRNNCell
    cell_name = "simple_rnn_cell"
    layer_norm = from_cell("layer_norm")
