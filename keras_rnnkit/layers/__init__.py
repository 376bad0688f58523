"""Recurrent layers and their wrappers, and the cells, as in `keras.layers`."""

from keras_rnnkit.cells import ESNCell, GRUCell, LSTMCell, SimpleRNNCell
from keras_rnnkit.layers.bidirectional import Bidirectional
from keras_rnnkit.layers.esn import ESN
from keras_rnnkit.layers.gru import GRU
from keras_rnnkit.layers.lstm import LSTM
from keras_rnnkit.layers.rnn import RNN
from keras_rnnkit.layers.simple_rnn import SimpleRNN
from keras_rnnkit.layers.stacked_rnn import StackedRNN

__all__ = [
    "ESN",
    "GRU",
    "LSTM",
    "RNN",
    "Bidirectional",
    "ESNCell",
    "GRUCell",
    "LSTMCell",
    "SimpleRNN",
    "SimpleRNNCell",
    "StackedRNN",
]
