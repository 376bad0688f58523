"""Docstrings of layers and cells document every argument."""

import re

import pytest

import keras_rnnkit as rk
from keras_rnnkit.argument_docs import arguments_of

CELLS = rk.SimpleRNNCell, rk.LSTMCell, rk.GRUCell, rk.ESNCell
LAYERS = rk.RNN, rk.SimpleRNN, rk.LSTM, rk.GRU, rk.ESN


@pytest.mark.parametrize("cls", [*CELLS, *LAYERS])
def test_every_argument_is_documented_with_its_default(cls):
    documented = arguments_of(cls.__doc__)
    assert "**kwargs" in documented
    for name, parameter in cls.signature.parameters.items():
        if name in ("self", "kwargs"):
            continue
        text = " ".join(documented[name].split())
        if parameter.default is not parameter.empty:
            default = parameter.default
            default = f"{default:g}" if type(default) is float else str(default)
            assert re.search(rf'default "?{re.escape(default)}\b', text), text


@pytest.mark.parametrize("cls", LAYERS)
def test_what_layers_pass_on_to_rnn_is_documented(cls):
    of_rnn = arguments_of(rk.RNN.__doc__).keys() - {"cell"}
    assert of_rnn <= arguments_of(cls.__doc__).keys()


@pytest.mark.parametrize("cls", [*CELLS, *LAYERS])
def test_docstrings_keep_the_line_length(cls):
    assert all(len(line) <= 88 for line in cls.__doc__.splitlines())
