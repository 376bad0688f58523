"""The LSTM layer."""

import keras

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells import LSTMCell
from keras_rnnkit.layers.cell_layer import CellLayer, from_cell
from keras_rnnkit.layers.rnn import RNN


@extends(keras.layers.LSTM, LSTMCell, RNN)
class LSTM(CellLayer, keras.layers.LSTM):
    """Long short-term memory: `LSTMCell` on the loop.

    Takes the place of `keras.layers.LSTM`: the same arguments, defaults, weights,
    states [h, c] and outputs.

    Args:
        units: positive int, the size of the cell state, and of h and the output unless
            `projection_units` gives another.
        peephole: bool, default False; see `LSTMCell`, as for the next three.
        projection_units: int or None, default None.
        layer_norm: bool, default False.
        zoneout: float in [0, 1) or a pair of them for [h, c], default 0.

    Call arguments, shapes and errors are those of `RNN`.
    """

    cell_class = LSTMCell
    cell_name = "lstm_cell"
    peephole = from_cell("peephole")
    projection_units = from_cell("projection_units")
    layer_norm = from_cell("layer_norm")
    zoneout = from_cell("zoneout")
