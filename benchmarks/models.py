"""Models and data for the benchmarks of `fit`."""

from typing import NamedTuple

import keras
import numpy as np
from peers import KERAS, OURS, XLA

import keras_rnnkit as rk

PEERS = [OURS, KERAS, XLA]
LAYERS = ["LSTM", "GRU", "BiLSTM"]
UNITS = 64


class FitData(NamedTuple):
    """Arguments of `fit`; `x` holds the sequences, and their mask if there is one."""

    x: list[np.ndarray]
    y: np.ndarray
    batch_size: int


def vowels(batch_size: int) -> FitData:
    """270 utterances of at most 29 frames, with a mask."""
    train = rk.datasets.japanese_vowels("train")
    mask = np.arange(train.x.shape[1]) < train.lengths[:, None]
    return FitData([train.x, mask], train.y, batch_size)


def synthetic(batch_size: int) -> FitData:
    """2048 random sequences of 100 steps; the class is the feature of largest mean."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2048, 100, 16), np.float32)
    y = np.argmax(x[:, :, :9].mean(axis=1), axis=1).astype(np.int32)
    return FitData([x], y, batch_size)


DATA = {
    "vowels, batch 8": lambda: vowels(8),
    "vowels, batch 32": lambda: vowels(32),
    "synthetic, batch 32": lambda: synthetic(32),
}


def make_model(peer: str, layer: str, data: FitData) -> keras.Model:
    """Returns a compiled classifier, a recurrent and a dense layer."""
    library = rk if peer == OURS else keras.layers
    recurrent = getattr(library, layer.removeprefix("Bi"))(UNITS)
    if layer.startswith("Bi"):
        recurrent = library.Bidirectional(recurrent)
    inputs = [keras.Input(part.shape[1:], dtype=part.dtype) for part in data.x]
    sequences, *mask = inputs
    last = recurrent(sequences, mask=mask[0]) if mask else recurrent(sequences)
    classes = int(data.y.max()) + 1
    output = keras.layers.Dense(classes, activation="softmax")(last)
    model = keras.Model(inputs, output)
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        jit_compile=True if peer == XLA else "auto",
    )
    return model


def fit(model: keras.Model, data: FitData, callbacks=()):
    """Trains for one epoch without shuffling, so that losses are comparable."""
    return model.fit(
        data.x,
        data.y,
        batch_size=data.batch_size,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
