"""Recurrent layers for Keras 3 that drop in, tune, and export to TFLite."""

import os as _os
import sys as _sys
import typing as _typing

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
    "explain",
    "export",
    "export_saved_model",
    "export_tflite",
    "fit_readout",
    "forecast",
    "from_keras",
    "initializers",
    "inspect_tflite",
    "layers",
    "load_model",
    "padded",
    "plots",
    "reservoir",
    "saved",
    "seq2seq",
    "to_keras",
    "tuning",
]


def _is_command() -> bool:
    """Whether the package is imported by the command `rnnkit` or `python -m
    keras_rnnkit`.

    While Python looks for the module of `-m`, `sys.argv[0]` is "-m".
    """
    name = _os.path.basename(_sys.argv[0]) if getattr(_sys, "argv", None) else ""
    if name in ("rnnkit", "rnnkit.exe"):
        return "_is_loaded" not in globals()  # set by the reload below
    if name != "-m":
        return False
    return _sys.orig_argv[-len(_sys.argv)].removeprefix("-m") == __name__


if not _typing.TYPE_CHECKING and _is_command():
    # TensorFlow takes seconds to import. The command imports the rest of the package
    # only after it has parsed its arguments. Any other import loads all of it, so that
    # the layers are registered when Keras loads a file.
    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        globals()["_is_loaded"] = globals().pop("__getattr__")
        return getattr(importlib.reload(_sys.modules[__name__]), name)

else:
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
        saved,
        seq2seq,
        tuning,
    )
    from keras_rnnkit.cells import ESNCell, GRUCell, LSTMCell, SimpleRNNCell, SplitCell
    from keras_rnnkit.convert import from_keras, to_keras
    from keras_rnnkit.explanation import explain
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
    from keras_rnnkit.reservoir import RLS, Readout, fit_readout
    from keras_rnnkit.reservoir.forecast import forecast
    from keras_rnnkit.saved import load_model
    from keras_rnnkit.seq2seq import (
        AttentionDecoder,
        BahdanauAttention,
        LuongAttention,
        Seq2Seq,
    )
