"""Models and data as a user of `fit` has them."""

from typing import NamedTuple

import keras
import numpy as np
from contestants import KERAS, OURS, XLA

import keras_rnnkit as rk

CONTESTANTS = [OURS, KERAS, XLA]
LAYERS = ["LSTM", "GRU", "BiLSTM"]
UNITS = 64


class Task(NamedTuple):
    """What `fit` is given; `x` is the sequences, and their mask if they have one."""

    x: list[np.ndarray]
    y: np.ndarray
    batch_size: int


def vowels(batch_size: int) -> Task:
    """270 utterances of at most 29 frames, with a mask."""
    train = rk.datasets.japanese_vowels("train")
    mask = np.arange(train.x.shape[1]) < train.lengths[:, None]
    return Task([train.x, mask], train.y, batch_size)


def synthetic(batch_size: int) -> Task:
    """2048 random sequences of 100 steps, of which the mean tells the class."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2048, 100, 16), np.float32)
    y = np.argmax(x[:, :, :9].mean(axis=1), axis=1).astype(np.int32)
    return Task([x], y, batch_size)


TASKS = {
    "vowels, batch 8": lambda: vowels(8),
    "vowels, batch 32": lambda: vowels(32),
    "synthetic, batch 32": lambda: synthetic(32),
}


def make_model(contestant: str, layer: str, task: Task) -> keras.Model:
    """A compiled classifier: one recurrent layer, its last output, one dense layer."""
    library = rk if contestant == OURS else keras.layers
    recurrent = getattr(library, layer.removeprefix("Bi"))(UNITS)
    if layer.startswith("Bi"):
        recurrent = library.Bidirectional(recurrent)
    inputs = [keras.Input(part.shape[1:], dtype=part.dtype) for part in task.x]
    sequences, *mask = inputs
    summary = recurrent(sequences, mask=mask[0]) if mask else recurrent(sequences)
    classes = int(task.y.max()) + 1
    output = keras.layers.Dense(classes, activation="softmax")(summary)
    model = keras.Model(inputs, output)
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        jit_compile=True if contestant == XLA else "auto",
    )
    return model


def fit(model: keras.Model, task: Task, callbacks=()):
    """One epoch, in order, so that models can be compared by their losses."""
    return model.fit(
        task.x,
        task.y,
        batch_size=task.batch_size,
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
    )
