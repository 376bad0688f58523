"""The GRU layer."""

import keras

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells import GRUCell
from keras_rnnkit.layers.cell_layer import CellLayer, from_cell
from keras_rnnkit.layers.rnn import RNN


@extends(keras.layers.GRU, GRUCell, RNN)
class GRU(CellLayer, keras.layers.GRU):
    """Gated recurrent units: `GRUCell` on the loop.

    Takes the place of `keras.layers.GRU`: the same arguments, defaults, weights, state
    and outputs.

    Args:
        units: positive int, the size of the state and of the output.
        layer_norm: bool, default False; see `GRUCell`, as for the next.
        zoneout: float in [0, 1), default 0.

    Call arguments, shapes and errors are those of `RNN`.
    """

    cell_class = GRUCell
    cell_name = "gru_cell"
    layer_norm = from_cell("layer_norm")
    zoneout = from_cell("zoneout")
