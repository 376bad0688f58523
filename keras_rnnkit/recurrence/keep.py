"""What a step has its loop keep, so that the gradient need not compute it again."""

import threading
from contextlib import contextmanager

import tensorflow as tf

from keras_rnnkit.recurrence.gradient import Gradients

_local = threading.local()


def keep(value):
    """Returns a value that is dear to compute, as a product is.

    Called in a cell's `pointwise`, it has the compiled loop keep the value of every
    step for the gradient. Elsewhere it does nothing.

    Args:
        value: `(rows, ...)`, of sizes that the graph knows.
    """
    seen = getattr(_local, "seen", None)
    return value if seen is None else seen(value)


def with_kept(function):
    """What a function returns, and the list of what it keeps."""
    kept = []

    def seen(value):
        kept.append(value)
        return value

    with _seen_by(seen):
        return function(), kept


def from_kept(function, kept):
    """What a function returns, made of what it has kept before."""
    # Kept by the graph in which they are made.
    values, in_place_of = iter(kept), Gradients().custom(_in_place_of)
    with _seen_by(lambda value: in_place_of(value, next(values))[0]):
        return function()


def _in_place_of(value, kept):
    """`kept`, with the gradient of `value`, which XLA then has no need to compute."""
    return (kept,), lambda d_kept: [d_kept, None]


@contextmanager
def _seen_by(function):
    """Has `keep` inside call a function on what lies in the graph that is traced now,
    not in one within it, as of a branch."""
    before = getattr(_local, "seen", None)
    graph = tf.compat.v1.get_default_graph()
    _local.seen = lambda value: function(value) if value.graph is graph else value
    try:
        yield
    finally:
        _local.seen = before
