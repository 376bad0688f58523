"""What a step saves for its gradient, which then need not compute it again."""

from contextlib import contextmanager

import tensorflow as tf

from keras_rnnkit.recurrence.gradient import Gradients
from keras_rnnkit.recurrence.scope import Scoped

_on_save = Scoped(None)


def save_residual(value):
    """Saves an expensive value, such as a product, for the gradient; returns it.

    Call it in a cell's `pointwise`: the compiled loop then saves the value of every
    step, and the gradient does not compute it again. Elsewhere it does nothing.

    Args:
        value: `(rows, ...)`, with known sizes.
    """
    on_save = _on_save.value
    return value if on_save is None else on_save(value)


def with_residuals(function):
    """Returns `function()`, and the list of what it saves."""
    residuals = []

    def on_save(value):
        residuals.append(value)
        return value

    with _calling(on_save):
        return function(), residuals


def from_residuals(function, residuals):
    """Returns `function()`, computed from what it saved before."""
    # The gradients live as long as the graph in which they are made.
    values, substitute = iter(residuals), Gradients().custom(_substitute)
    with _calling(lambda value: substitute(value, next(values))[0]):
        return function()


def _substitute(value, saved):
    """Returns `saved`, with the gradient of `value`, which XLA then leaves out."""
    return (saved,), lambda d_saved: [d_saved, None]


@contextmanager
def _calling(function):
    """Calls a function on values saved in the current graph, not in nested ones, such
    as those of a branch."""
    graph = tf.compat.v1.get_default_graph()
    with _on_save.set(lambda v: function(v) if v.graph is graph else v):
        yield
