"""The LSTM layer."""

import keras

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells import LSTMCell
from keras_rnnkit.layers.cell_layer import CellLayer, from_cell
from keras_rnnkit.layers.rnn import RNN


@extends(keras.layers.LSTM, LSTMCell, RNN)
class LSTM(CellLayer, keras.layers.LSTM):
    """Long short-term memory: an `LSTMCell` run over a sequence.

    Replaces `keras.layers.LSTM`, with the same arguments, defaults, weights, states
    [h, c] and outputs. `LSTMCell` has the equations.

    Args:
        units: positive int, the size of the cell state, and of h and the output unless
            `projection_units` is given.

    Call arguments, shapes and errors are those of `RNN`.

    Example:

    ```python
    layer = rk.LSTM(8, return_state=True, layer_norm=True)
    y, h, c = layer(np.zeros((2, 5, 3)))  # (2, 8) each
    ```
    """

    cell_class = LSTMCell
    cell_name = "lstm_cell"
    peephole = from_cell("peephole")
    projection_units = from_cell("projection_units")
    layer_norm = from_cell("layer_norm")
    zoneout = from_cell("zoneout")
