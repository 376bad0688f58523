"""Small models of sequences, and what they are to say."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax

import keras_rnnkit as rk
from tests.helpers import randomize

PAD, START, END = 0, 1, 2
SOURCES, TOKENS, UNITS = 9, 8, 5  # the two vocabularies, and the size of a state
STATES = {"return_sequences": True, "return_state": True}
NEVER = -1e9  # as a logit
SLOW = pytest.mark.slow
ATTENTIONS = {
    "bahdanau": lambda size: rk.BahdanauAttention(4),
    "luong": lambda size: rk.LuongAttention(size, "general"),
    "local": lambda size: rk.LuongAttention(4, "concat", local_window=2),
    "none": lambda size: None,
}


def gru(cls=rk.GRU, units=UNITS, **more):
    return cls(units, **{"loop": "portable"} | STATES | more)


def make(
    attention="luong",
    *,
    rng=None,
    scale=1.2,
    encoder=None,
    cells=None,
    flags=None,
    **more,
):
    """A small model, with random weights where there is an `rng`.

    These give no token a greater share of all logits, so that what is said varies.

    Args:
        scale: of the weights.
        flags: dict, more arguments of the decoder.
        more: those of the model.
    """
    cells = cells or [rk.GRUCell(UNITS)]
    of_attention = ATTENTIONS[attention](cells[-1].output_size)
    flags = {"loop": "portable"} | (flags or {})
    given = {
        "encoder": encoder or gru(),
        "decoder": rk.AttentionDecoder(cells, of_attention, **flags),
        "source_embedding": keras.layers.Embedding(SOURCES, 4),
        "target_embedding": keras.layers.Embedding(TOKENS, 4),
        "output": keras.layers.Dense(TOKENS),
        "start_id": START,
        "end_id": END,
    }
    model = rk.Seq2Seq(**given | more)
    if rng is not None:
        randomize(model, rng, scale)
        x, fed = rng.integers(1, 8, (2, 40, 4))
        bias = bias_of(model)
        bias.assign(bias - np.mean(model((x, fed)), axis=(0, 1)))
    return model


def bias_of(model):
    """The weight that is added to the logits."""
    return model.output_bias if model.tie_embeddings else model.output_layer.weights[-1]


def stacked():
    layers = gru(rk.LSTM, 4), gru()
    return {
        "encoder": rk.StackedRNN(layers, **STATES),
        "cells": [rk.LSTMCell(4), rk.GRUCell(UNITS)],
        "bridge": "copy",
    }


def tied():
    embedding = keras.layers.Embedding(TOKENS, UNITS)
    return {"target_embedding": embedding, "output": None, "tie_embeddings": True}


KINDS = {
    "bahdanau": lambda: {"attention": "bahdanau"},
    "luong": lambda: {"flags": {"input_feeding": False}},
    "local": lambda: {"attention": "local", "flags": {"units": 3}},
    "none": lambda: {"attention": "none", "bridge": "copy"},
    "zeros": lambda: {"bridge": "zeros"},
    "stacked": stacked,
    "tied": tied,
    "bidirectional": lambda: {
        "encoder": rk.Bidirectional(gru(rk.LSTM, 3)),
        "cells": [rk.LSTMCell(4), rk.GRUCell(UNITS)],
        "output": keras.Sequential(
            [keras.layers.Dense(3, "tanh"), keras.layers.Dense(TOKENS)]
        ),
    },
    "backwards": lambda: {"encoder": gru(go_backwards=True), "attention": "local"},
    "cells": lambda: {
        "encoder": rk.RNN([rk.GRUCell(3), rk.LSTMCell(2)], **STATES),
        "flags": {"return_attention": True, "return_state": True},
    },
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def pairs(rng, rows=6, source=5, target=4, tokens=TOKENS):
    """Sources, the first of padding alone, and targets that end."""
    x = rng.integers(1, SOURCES, (rows, source))
    x[np.arange(source) > rng.integers(0, max(source, 1), (rows, 1))] = PAD
    x[:1] = PAD
    y = rng.integers(END + 1, tokens, (rows, target))
    last = rng.integers(0, target, (rows, 1))
    y[np.arange(target) == last] = END
    y[np.arange(target) > last] = PAD
    return x, y


def shifted(y):
    """What the decoder is fed."""
    return np.insert(y, 0, START, axis=1)[:, :-1]


def gains_of(model, x, y):
    """Log-probabilities of what may follow, `(batch, target, vocabulary)`."""
    return log_softmax(np.asarray(model((x, shifted(y))), float), axis=-1)


def may_be_said(model, x, y):
    """The same of answers, which hold no padding before their ends."""
    logits = np.array(model((x, shifted(y))), float)
    logits[..., PAD] = NEVER
    return log_softmax(logits, axis=-1)


def scores_of(model, x, words):
    """The log-probabilities of answers."""
    there = np.cumsum(words == END, axis=1) - (words == END) == 0
    return np.sum(told(may_be_said(model, x, words), words) * there, axis=1)


def told(gains, y):
    """The log-probabilities of the tokens."""
    return np.take_along_axis(gains, y[..., None], axis=-1)[..., 0]


def attention_of(model, x, y):
    """The weights while the decoder is fed `y`, by a decoder that returns them."""
    config = model.decoder.get_config() | {"return_attention": True}
    decoder = type(model.decoder).from_config(config)
    memory, mask, states = model.encode(tf.constant(x))
    fed = model.target_embedding(shifted(y))
    run = {"memory": memory, "memory_mask": mask, "initial_state": states}
    decoder(fed, **run)
    decoder.set_weights(model.decoder.get_weights())
    return np.asarray(decoder(fed, **run)[1])


def alike(logits, others, tolerance=1e-5):
    assert logits.shape == others.shape
    assert np.abs(np.asarray(logits) - others).max() <= tolerance * np.abs(others).max()


def reversal(rng, rows, longest=6, tokens=12):
    """Sequences, and the same turned round."""
    x, y = np.zeros((2, rows, longest + 1), int)
    for i, length in enumerate(rng.integers(1, longest + 1, rows)):
        x[i, :length] = rng.integers(END + 1, tokens, length)
        y[i, : length + 1] = [*x[i, :length][::-1], END]
    return x[:, :longest], y


@functools.cache
def trained_to_reverse(attention, units=48, tokens=12):
    """A model that knows how, and what it was trained on."""
    keras.utils.set_random_seed(0)
    x, y = reversal(np.random.default_rng(0), 1000, tokens=tokens)
    model = make(
        encoder=rk.Bidirectional(gru(units=units // 2)),
        cells=[rk.GRUCell(units)],
        attention=attention,
        flags={"input_feeding": False, "loop": "portable"},
        source_embedding=keras.layers.Embedding(tokens, 16),
        target_embedding=keras.layers.Embedding(tokens, 16),
        output=keras.layers.Dense(tokens),
    )
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, y, batch_size=20, epochs=4, verbose=0)
    return model, x, y
