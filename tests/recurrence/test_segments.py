"""Long sequences in segments side by side give what one step after the other does."""

import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.recurrence import fast
from tests.helpers import assert_close

UNITS, STEPS = 160, 701
LOOPS = "fast", "portable"


def make(loop, **arguments):
    arguments = {"spectral_radius": 0.5, "seed": 1, "bias_scaling": 0.1} | arguments
    return rk.ESN(UNITS, loop=loop, return_state=True, **arguments)


@pytest.fixture
def seen(monkeypatch):
    """Whether the segments met, for each sequence that was run in some."""
    met = []

    def watched(*arguments):
        result = original(*arguments)
        tf.py_function(lambda value: met.append(bool(value)), [result[0]], [])
        return result

    original = fast.in_segments
    monkeypatch.setattr(fast, "in_segments", watched)
    return met


@pytest.mark.one_in(3)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_segments_equal_the_portable_loop(rows, return_sequences, dtype, rng, seen):
    arguments = {"return_sequences": return_sequences, "dtype": dtype}
    x = rng.normal(size=(rows, STEPS, 2)).astype(dtype)
    first = rng.uniform(-1, 1, size=(rows, UNITS)).astype(dtype)
    ours, theirs = (make(loop, **arguments) for loop in LOOPS)
    assert_close(
        ours(x, initial_state=[first]), theirs(x, initial_state=[first]), dtype
    )
    assert seen == [True]


def test_a_reservoir_that_does_not_forget_runs_step_by_step(rng, seen):
    x = 0.01 * rng.normal(size=(1, STEPS, 2)).astype("float32")
    layers = [make(loop) for loop in LOOPS]
    for layer in layers:
        layer.build(x.shape)
        kernel, recurrent, bias = layer.get_weights()
        layer.set_weights([kernel, 1.98 * recurrent, 0 * bias])
    assert_close(*(layer(x) for layer in layers))
    assert seen == [False]


def test_gradients_are_those_of_all_steps(rng, seen):
    x = tf.constant(rng.normal(size=(1, STEPS, 2)), tf.float32)

    def gradient(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x)[0][:, -1] ** 2)
        return tape.gradient(loss, x)

    assert_close(*(gradient(make(loop)) for loop in LOOPS))
    assert seen == [True]


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"spectral_radius": 1.2}, (1, STEPS, 2)),
        ({"topology": np.eye(UNITS), "spectral_radius": None}, (1, STEPS, 2)),
        ({"sparse": True}, (1, STEPS, 2)),
        ({"go_backwards": True}, (1, STEPS, 2)),
        ({}, (30, STEPS, 2)),
        ({}, (1, 100, 2)),
    ],
)
def test_other_sequences_are_run_as_they_are(arguments, shape, rng, seen):
    x = rng.normal(size=shape).astype("float32")
    layers = [make(loop, activation="softsign", **arguments) for loop in LOOPS]
    assert_close(*(layer(x)[0][:, :50] for layer in layers))
    assert seen == []
