"""An LSTM as one operation of TFLite, `UNIDIRECTIONAL_SEQUENCE_LSTM`."""

import math
import uuid

import numpy as np
import tensorflow as tf

OPERATION = "UNIDIRECTIONAL_SEQUENCE_LSTM"
# How far below zero the preactivation of a closed gate lies. In 8 bits TFLite clips it
# at -8; as sigmoid(-8) lets some of a large state through, one step is not enough.
CLOSED_FLOAT, CLOSED_QUANTIZED = 100.0, {"dynamic": 20.0, "int8": 9.0}
RESET_STEPS = 2
MIN_WEIGHT = 1e-3
MAX_ROWS = 64  # if more are needed, their weights grow instead
MIN_QUANTIZED_SIZE = 1024  # elements a matrix must have for TFLite to quantize it


def fused_lstm(x, kernel, recurrent_kernel, bias, *, quantized=None, largest=1.0):
    """Runs a plain LSTM from states of zeros.

    The operation keeps its states from one call of the interpreter to the next. So
    reset steps are put before the first one. Their additional inputs close the input,
    forget and output gates, which leaves states of zeros. In a quantized file one large
    weight or input would cost all others precision: there the additional weights are no
    larger than the largest of their gate, the additional inputs no larger than the
    others, and there are more of them.

    Args:
        x: `(batch, time, features)`, the batch known.
        kernel, recurrent_kernel, bias: arrays, as in `keras.layers.LSTM`.
        quantized: as in `TFLitePolicy`.
        largest: the largest absolute input to expect.

    Returns:
        `(last_output, outputs)`.
    """
    rows, value = gate_closing_inputs(
        kernel, recurrent_kernel, bias, quantized, largest
    )
    batch, _, features = x.shape
    flags = tf.fill([batch, RESET_STEPS, len(rows)], tf.cast(value, x.dtype))
    first = tf.concat([tf.zeros([batch, RESET_STEPS, features], x.dtype), flags], 2)
    x = tf.concat([first, tf.pad(x, [[0, 0], [0, 0], [0, len(rows)]])], 1)
    zeros = tf.zeros([batch, recurrent_kernel.shape[0]], x.dtype)
    kernel = tf.concat([kernel, rows], 0)
    last, outputs, *_ = _composite_lstm()(
        x, zeros, zeros, kernel, recurrent_kernel, bias
    )
    last.set_shape(zeros.shape)
    return last, outputs[:, RESET_STEPS:]


def gate_closing_inputs(kernel, recurrent_kernel, bias, quantized, largest):
    """Returns the kernel rows that close the gates, and the value of their inputs."""
    w, r, b = (np.stack(np.split(v, 4, -1)) for v in (kernel, recurrent_kernel, bias))
    # Bound on each gate's preactivation without inputs, for outputs in [-1, 1]
    bound = (abs(r).sum(1) + abs(b)).max(1)
    closed = np.array([1, 1, 0, 1], bool)  # in the order i, f, g, o
    features, units = w.shape[1:]
    if quantized in (None, "float16"):
        count, value, weights = 1, 1.0, bound + CLOSED_FLOAT
    else:
        weights = np.maximum(abs(w).max((1, 2)), max(abs(w).max() / 4, MIN_WEIGHT))
        needed = ((bound + CLOSED_QUANTIZED[quantized]) / weights)[closed].max()
        count = max(1, math.ceil(MIN_QUANTIZED_SIZE / units) - features)
        if quantized == "int8":
            count = min(math.ceil(needed / largest), MAX_ROWS)
            weights = weights * max(1, needed / largest / count)
            needed = min(needed, largest * count)
        value = needed / count
    row = np.repeat(-weights * closed, units)
    return np.tile(row, (count, 1)).astype("float32"), value


def _composite_lstm():
    """Returns a function that TFLite's converter recognizes by its attributes and
    replaces by the operation."""

    def lstm(x, h, c, kernel, recurrent_kernel, bias):
        steps = tf.shape(x)[1]
        z = tf.transpose(tf.tensordot(x, kernel, 1) + bias, [1, 0, 2])

        def step(t, h, c):
            a = tf.gather(z, t) + tf.matmul(h, recurrent_kernel)
            i, f, g, o = tf.split(a, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            return t + 1, tf.sigmoid(o) * tf.tanh(c), c

        _, h, c = tf.while_loop(lambda t, *_: t < steps, step, (tf.constant(0), h, c))
        # Only the shape of the outputs counts: the converter drops this code.
        outputs = tf.tile(h[:, None], [1, steps, 1])
        outputs.set_shape([*x.shape[:2], h.shape[1]])
        return h, outputs, h, c, tf.constant(1.0)

    attributes = {
        "api_implements": f"lstm_{uuid.uuid4()}",
        "time_major": False,
        "go_backwards": False,
    }
    return tf.function(lstm, autograph=False, experimental_attributes=attributes)
