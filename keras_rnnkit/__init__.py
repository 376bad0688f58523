"""Recurrent layers for Keras 3 that drop in, tune, and export to TFLite."""

import keras as _keras

if _keras.backend.backend() != "tensorflow":
    raise ImportError(
        "`keras_rnnkit` needs Keras's TensorFlow backend; received "
        f"{_keras.backend.backend()!r}: set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported"
    )

from keras_rnnkit import (
    cells,
    datasets,
    export,
    initializers,
    layers,
    plots,
    reservoir,
    seq2seq,
    tuning,
)
from keras_rnnkit.cells import ESNCell, GRUCell, LSTMCell, SimpleRNNCell, SplitCell
from keras_rnnkit.convert import from_keras, to_keras
from keras_rnnkit.export import (
    ExportReport,
    StreamingModel,
    TFLiteModel,
    export_saved_model,
    export_tflite,
    inspect_tflite,
)
from keras_rnnkit.layers import (
    ESN,
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    SimpleRNN,
    StackedRNN,
)
from keras_rnnkit.recurrence import padded
from keras_rnnkit.reservoir import RLS, Readout, fit_readout, forecast
from keras_rnnkit.seq2seq import (
    AttentionDecoder,
    BahdanauAttention,
    LuongAttention,
    Seq2Seq,
)

__version__ = "0.1.0"

__all__ = [
    "ESN",
    "GRU",
    "LSTM",
    "RLS",
    "RNN",
    "AttentionDecoder",
    "BahdanauAttention",
    "Bidirectional",
    "ESNCell",
    "ExportReport",
    "GRUCell",
    "LSTMCell",
    "LuongAttention",
    "Readout",
    "Seq2Seq",
    "SimpleRNN",
    "SimpleRNNCell",
    "SplitCell",
    "StackedRNN",
    "StreamingModel",
    "TFLiteModel",
    "cells",
    "datasets",
    "export",
    "export_saved_model",
    "export_tflite",
    "fit_readout",
    "forecast",
    "from_keras",
    "initializers",
    "inspect_tflite",
    "layers",
    "padded",
    "plots",
    "reservoir",
    "seq2seq",
    "to_keras",
    "tuning",
]
