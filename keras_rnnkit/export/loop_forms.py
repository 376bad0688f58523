"""The forms that the loop of a layer can take in an exported file."""

import math

import numpy as np
import tensorflow as tf
from keras import tree

from keras_rnnkit.cells import LSTMCell
from keras_rnnkit.export.block_loop import STEPS_PER_ITERATION
from keras_rnnkit.export.fused import fused_lstm
from keras_rnnkit.recurrence import is_known_zero

CALIBRATED = "int8", "int16x8"
# Bytes of weights that fit into a core's cache: TFLite copies them for each unrolled
# step.
CACHE_BYTES = 2**20


def preferred_forms(quantized, cell, steps) -> dict[str, str]:
    """Returns the forms, best first, with the reason for each."""
    if quantized in CALIBRATED:
        return {"fused": "the smallest", "unrolled": "a loop cannot be calibrated"}
    if quantized and (steps is None or steps > STEPS_PER_ITERATION):
        return dict.fromkeys(("loop", "unrolled", "fused"), "small, and fast here")
    fast, kernel = "the fastest here", getattr(cell, "kernel", None)
    weights = [w for w in getattr(cell, "weights", ()) if w is not kernel]
    size = sum(4 * math.prod(w.shape) for w in weights)
    if steps is not None and steps * size <= CACHE_BYTES:
        return dict.fromkeys(("unrolled", "loop", "fused"), fast)
    return dict.fromkeys(("loop", "unrolled", "fused"), fast)


def obstacles(policy, layer, sequences, states, mask) -> dict[str, str]:
    """Returns why forms are unavailable: a dict of reasons by form."""
    reasons_against = {}
    batch, steps = sequences.shape[:2]
    cell = layer.cell
    fused = {
        f"`{type(cell).__name__}` has no fused operation": type(cell) is not LSTMCell,
        "it is not a plain LSTM": type(cell) is LSTMCell and not cell.is_plain,
        "it has a mask": mask is not None,
        "its states are inputs and outputs": policy.stream is not None,
        "it returns its states": layer.return_state,
        "its initial states are not zeros": not all(
            map(is_known_zero, tree.flatten(states))
        ),
        "the batch size is not known": batch is None,
        "TFLite has no 16-bit kernel for it": policy.quantized == "int16x8",
    }
    if reasons := [reason for reason, holds in fused.items() if holds]:
        reasons_against["fused"] = ", ".join(reasons)
    if layer.unroll:
        reasons_against["loop"] = "`unroll=True`"
    if policy.quantized in CALIBRATED:
        reasons_against["loop"] = "TFLite cannot measure ranges within a loop"
    if steps is None:
        reasons_against["unrolled"] = "the number of steps is not known"
    return reasons_against


def run_fused(layer, sequences, quantized, largest):
    """Runs a plain LSTM as one operation; returns the last output and all outputs."""
    cell = layer.cell
    with tf.init_scope():
        weights = cell.kernel, cell.recurrent_kernel, cell.bias
        weights = [np.asarray(w) for w in weights]
    x = tf.reverse(sequences, [1]) if layer.go_backwards else sequences
    return fused_lstm(x, *weights, quantized=quantized, largest=largest)
