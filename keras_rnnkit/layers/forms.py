"""Which forms the loop of a layer can have in an exported file."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
from keras import tree

from keras_rnnkit.cells import LSTMCell
from keras_rnnkit.recurrence import (
    STATES,
    TURN,
    current_export,
    current_stream,
    fused_lstm,
    is_known_zero,
)

EPSILON = 2.0**-22
# Bytes of weights that a core keeps near: TFLite copies them for each step written out.
CACHE = 2**20


def form_of(layer, sequences, states, mask) -> str:
    """The form of a layer's loop, here and now; see `recurrence.run`, and "fused"."""
    export = current_export()
    if export is None or export.is_run_here:
        one = export is not None and sequences.shape[1] == 1
        return "unrolled" if layer.unroll or one else "arrays"
    export.see(layer.name, sequences)
    return export.form_of(
        layer.name,
        order(export, layer.cell, sequences.shape[1]),
        obstacles(export, layer, sequences, states, mask),
    )


def order(export, cell, steps) -> dict[str, str]:
    """The forms, the best first, and why each is taken."""
    if export.calibrated:
        return {"fused": "the smallest", "unrolled": "a loop cannot be calibrated"}
    if export.quantized and (steps is None or steps > TURN):
        return dict.fromkeys(("loop", "unrolled", "fused"), "small, and fast here")
    fast, kernel = "the fastest here", getattr(cell, "kernel", None)
    weights = [w for w in getattr(cell, "weights", ()) if w is not kernel]
    size = sum(4 * math.prod(w.shape) for w in weights)
    if steps is not None and steps * size <= CACHE:
        return dict.fromkeys(("unrolled", "loop", "fused"), fast)
    return dict.fromkeys(("loop", "unrolled", "fused"), fast)


def check_stream(layer, lengths):
    """Has an export refuse a layer whose steps end before the stream does."""
    if current_stream() and lengths is not None:
        current_export().refusals.append(
            f"`{layer.name}` cannot stream: it takes `lengths`"
        )


def obstacles(export, layer, sequences, states, mask) -> dict[str, str]:
    """What stands against a form: the reason by the form's name."""
    against = {}
    batch, steps = sequences.shape[:2]
    cell = layer.cell
    fused = {
        f"`{type(cell).__name__}` has no fused operation": type(cell) is not LSTMCell,
        "it is not a plain LSTM": type(cell) is LSTMCell and not cell.is_plain,
        "it has a mask": mask is not None,
        "its states go in and out": export.stream is not None,
        "it returns its states": layer.return_state,
        "it does not begin with zeros": not all(
            map(is_known_zero, tree.flatten(states))
        ),
        "the batch is not known": batch is None,
        "TFLite has none for 16-bit values": export.quantized == "int16x8",
    }
    if reasons := [reason for reason, holds in fused.items() if holds]:
        against["fused"] = ", ".join(reasons)
    if layer.unroll:
        against["loop"] = "`unroll=True`"
    if export.calibrated:
        against["loop"] = "TFLite cannot measure ranges within a loop"
    if steps is None:
        against["unrolled"] = "the number of steps is not known"
    return against


def exported_step(step, k):
    """The step of a cell, `(z, states, k, noise)`, as an export wants it.

    - Where ranges are measured, it shows its states.
    - The quantizer for 16 bits gives a bias that several products share the scale of
      the first of them. So there each step has a bias of its own, which differs in the
      last bits, or the converter would see that it is the same.
    """
    export = current_export()
    if export is None:
        return lambda z, states, noise: step(z, states, k, noise)
    number = itertools.count()

    def run(z, states, noise):
        own = k
        if export.quantized == "int16x8" and hasattr(k, "bias"):
            bias = k.bias * (1 + next(number) * EPSILON)
            own = SimpleNamespace(**vars(k) | {"bias": bias})
        output, states = step(z, states, own, noise)
        for state in states:
            export.see(STATES, state)
        return output, states

    return run


def run_fused(layer, sequences):
    """Runs a plain LSTM as one operation: `(last_output, outputs)`."""
    export, cell = current_export(), layer.cell
    weights = cell.kernel, cell.recurrent_kernel, cell.bias
    with tf.init_scope():
        weights = [np.asarray(w) for w in weights]
    x = tf.reverse(sequences, [1]) if layer.go_backwards else sequences
    largest = export.ranges.get(layer.name) or 1.0
    return fused_lstm(x, *weights, quantized=export.quantized, largest=largest)
