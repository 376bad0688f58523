"""What several tests need."""

import numpy as np
import tensorflow as tf

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def randomize(layer, rng, scale=0.6):
    """Sets every weight to normal draws, and returns them."""
    weights = [scale * rng.normal(size=w.shape) for w in layer.weights]
    layer.set_weights(weights)
    return weights


def assert_close(got, expected, dtype="float32"):
    """Each tensor of `got` equals its peer, relative to the peer's largest entry."""
    got, expected = tf.nest.flatten(got), tf.nest.flatten(expected)
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        assert ours.shape == theirs.shape
        difference = np.abs(ours - theirs).max(initial=0)
        assert difference <= TOLERANCE[dtype] * max(np.abs(theirs).max(initial=0), 1e-3)


def outputs_and_gradients(layer, x, weighting, **call):
    """The outputs, and the gradients of their weighted sum by inputs and weights.

    Args:
        weighting: int, seed of the weights of the sum.
    """
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = tf.nest.flatten(layer(x, **call))
        rng = np.random.default_rng(weighting)
        loss = sum(tf.reduce_sum(y * rng.normal(size=y.shape)) for y in outputs)
    sources = [x, *(w.value for w in layer.trainable_variables)]
    gradients = tape.gradient(loss, sources, unconnected_gradients="zero")
    return outputs, gradients
