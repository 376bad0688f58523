"""Recurrent cells: the equations of a single step."""

from keras_rnnkit.cells.esn import ESNCell
from keras_rnnkit.cells.gru import GRUCell
from keras_rnnkit.cells.lstm import LSTMCell
from keras_rnnkit.cells.simple_rnn import SimpleRNNCell
from keras_rnnkit.cells.split_cell import SplitCell

__all__ = ["ESNCell", "GRUCell", "LSTMCell", "SimpleRNNCell", "SplitCell"]
