"""The gradient uses what a step saved, and does not compute it again."""

import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.recurrence import (
    LoopInputs,
    analyze_step,
    save_residual,
    specs_of_step,
)
from keras_rnnkit.recurrence.compiled import CompiledLoop

ROWS, STEPS, UNITS = 3, 5, 4
SETTINGS = ("reverse", "return_sequences", "zero_output_for_mask")


def cell_of(step):
    """h = step(z + r), z = x, r = h R."""

    class Cell(rk.SplitCell):
        state_size = output_size = UNITS

        def project(self, inputs, k):
            return inputs * 1

        def recur(self, states, k):
            return tf.matmul(states[0], k.recurrent_kernel)

        def pointwise(self, z, r, states, k, noise=None):
            h = step(z + r)
            return h, [h]

    return Cell()


def run_back(step, rng):
    """Gradients by inputs, states and weights, and the program that took them."""
    x = tf.constant(rng.standard_normal((ROWS, STEPS, UNITS)), tf.float32)
    h = tf.constant(rng.standard_normal((ROWS, UNITS)), tf.float32)
    k = {"recurrent_kernel": tf.constant(rng.standard_normal((UNITS, UNITS)), x.dtype)}
    cell = cell_of(step)
    inputs = LoopInputs(x, [h], k, {}, [], [])
    analysis = analyze_step(cell, specs_of_step(inputs))
    loop = CompiledLoop(cell, analysis, frozen=(), **dict.fromkeys(SETTINGS, False))
    forward, backward, _ = loop.compiled
    _, _, saved = forward(inputs, None, False, True)
    given = inputs, None, False, saved, h, [h]
    program = backward.experimental_get_compiler_ir(*given)(stage="optimized_hlo")
    return tf.nest.flatten(backward(*given)), program


def in_branch(value):
    """A value in the graph of a branch, where nothing can save it."""

    def sine():
        return save_residual(tf.sin(value))

    return tf.cond(tf.size(value) > 0, sine, lambda: value)


STEPS_THAT_SAVE = {
    "once": lambda a: tf.tanh(save_residual(tf.sin(a))),
    "twice": lambda a: tf.tanh(save_residual(tf.sin(save_residual(tf.sin(a)) * 2))),
    "two": lambda a: save_residual(tf.sin(a)) * save_residual(tf.sin(-3 * a)),
}


@pytest.mark.parametrize("name", STEPS_THAT_SAVE)
def test_what_is_saved_is_not_computed_again(name, rng, monkeypatch):
    state = rng.bit_generator.state
    ours, program = run_back(STEPS_THAT_SAVE[name], rng)
    rng.bit_generator.state = state
    monkeypatch.setitem(globals(), "save_residual", lambda value: value)
    theirs, plainly = run_back(STEPS_THAT_SAVE[name], rng)
    assert " sine(" in plainly
    assert " sine(" not in program
    assert " cosine(" in program
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_branch_saves_nothing(rng):
    state = rng.bit_generator.state
    ours, program = run_back(lambda a: tf.tanh(in_branch(a)), rng)
    assert " sine(" in program
    rng.bit_generator.state = state
    theirs, _ = run_back(lambda a: tf.tanh(tf.sin(a)), rng)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_outside_a_loop_it_does_nothing():
    value = tf.ones(3)
    assert save_residual(value) is value
    assert tf.function(lambda x: tf.constant(save_residual(x) is x))(value)
