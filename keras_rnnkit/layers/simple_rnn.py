"""The simple recurrent layer."""

import keras

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells import SimpleRNNCell
from keras_rnnkit.layers.cell_layer import CellLayer, from_cell
from keras_rnnkit.layers.rnn import RNN


@extends(keras.layers.SimpleRNN, SimpleRNNCell, RNN)
class SimpleRNN(CellLayer, keras.layers.SimpleRNN):
    """The simple recurrent layer (Elman 1990): a `SimpleRNNCell` run over a sequence.

    Replaces `keras.layers.SimpleRNN`, with the same arguments, defaults, weights and
    outputs. `activity_regularizer` and `seed`, which Keras 3.15 ignores, take effect.
    `SimpleRNNCell` has the equations.

    Args:
        units: positive int, the size of the state and of the output.

    Call arguments, shapes and errors are those of `RNN`.

    Example:

    ```python
    layer = rk.SimpleRNN(8, activation="relu")
    y = layer(np.zeros((2, 5, 3)))  # (2, 8)
    ```
    """

    cell_class = SimpleRNNCell
    cell_name = "simple_rnn_cell"
    layer_norm = from_cell("layer_norm")
