"""The GRU layer."""

import keras

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells import GRUCell
from keras_rnnkit.layers.cell_layer import CellLayer, from_cell
from keras_rnnkit.layers.rnn import RNN


@extends(keras.layers.GRU, GRUCell, RNN)
class GRU(CellLayer, keras.layers.GRU):
    """Gated recurrent units: a `GRUCell` run over a sequence.

    Replaces `keras.layers.GRU`, with the same arguments, defaults, weights, state and
    outputs. `GRUCell` has the equations.

    Args:
        units: positive int, the size of the state and of the output.

    Call arguments, shapes and errors are those of `RNN`.

    Example:

    ```python
    layer = rk.GRU(8, return_sequences=True, zoneout=0.1)
    y = layer(np.zeros((2, 5, 3)), lengths=[5, 2])  # (2, 5, 8)
    ```
    """

    cell_class = GRUCell
    cell_name = "gru_cell"
    layer_norm = from_cell("layer_norm")
    zoneout = from_cell("zoneout")
