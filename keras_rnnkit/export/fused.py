"""The loop of an LSTM as one operation of TFLite, `UNIDIRECTIONAL_SEQUENCE_LSTM`."""

import math
import uuid

import numpy as np
import tensorflow as tf

OPERATION = "UNIDIRECTIONAL_SEQUENCE_LSTM"
# How far below zero the sum of a closed gate lies: with 8 bits, TFLite cuts it at -8,
# and a gate of sigmoid(-8) lets so much of a large state through that one step is not
# enough.
SURE, CLOSED, STEPS = 100.0, {"dynamic": 20.0, "int8": 9.0}, 2
LEAST = 1e-3  # weight
MANY = 64  # rows; from there on the weights in them are larger than those of others
WORTH = 1024  # elements a matrix must have for TFLite to quantize it by itself


def fused_lstm(x, kernel, recurrent_kernel, bias, *, quantized=None, largest=1.0):
    """The outputs of a plain LSTM from states of zeros.

    The operation keeps its states from one call of the interpreter to the next. So
    steps go before the first one, with inputs of their own that close the input, forget
    and output gates: what they leave behind is zero. Where weights and inputs are
    quantized, a large one would cost all others their precision: there the weights of
    these inputs are as large as the largest of their gate, and the inputs no larger
    than others, but more of them.

    Args:
        x: `(batch, time, features)`, the batch known.
        kernel, recurrent_kernel, bias: arrays, as in `keras.layers.LSTM`.
        quantized: as in `TFLitePolicy`.
        largest: the largest absolute input that is to be expected.

    Returns:
        `(last_output, outputs)`.
    """
    rows, value = closing(kernel, recurrent_kernel, bias, quantized, largest)
    batch, _, features = x.shape
    flags = tf.fill([batch, STEPS, len(rows)], tf.cast(value, x.dtype))
    first = tf.concat([tf.zeros([batch, STEPS, features], x.dtype), flags], 2)
    x = tf.concat([first, tf.pad(x, [[0, 0], [0, 0], [0, len(rows)]])], 1)
    zeros = tf.zeros([batch, recurrent_kernel.shape[0]], x.dtype)
    kernel = tf.concat([kernel, rows], 0)
    last, outputs, *_ = _fusable()(x, zeros, zeros, kernel, recurrent_kernel, bias)
    last.set_shape(zeros.shape)
    return last, outputs[:, STEPS:]


def closing(kernel, recurrent_kernel, bias, quantized, largest):
    """The rows of the kernel that close the gates, and the value of their inputs."""
    w, r, b = (np.stack(np.split(v, 4, -1)) for v in (kernel, recurrent_kernel, bias))
    # How large the sum of each gate is at most, with outputs between -1 and 1
    against = (abs(r).sum(1) + abs(b)).max(1)
    closed = np.array([1, 1, 0, 1], bool)  # in the order i, f, g, o
    features, units = w.shape[1:]
    if quantized in (None, "float16"):
        count, value, weights = 1, 1.0, against + SURE
    else:
        weights = np.maximum(abs(w).max((1, 2)), max(abs(w).max() / 4, LEAST))
        needed = ((against + CLOSED[quantized]) / weights)[closed].max()
        count = max(1, math.ceil(WORTH / units) - features)
        if quantized == "int8":
            count = min(math.ceil(needed / largest), MANY)
            weights = weights * max(1, needed / largest / count)
            needed = min(needed, largest * count)
        value = needed / count
    row = np.repeat(-weights * closed, units)
    return np.tile(row, (count, 1)).astype("float32"), value


def _fusable():
    """A function that TFLite's converter replaces, by its attributes and arguments."""

    def lstm(x, h, c, kernel, recurrent_kernel, bias):
        steps = tf.shape(x)[1]
        z = tf.transpose(tf.tensordot(x, kernel, 1) + bias, [1, 0, 2])

        def step(t, h, c):
            a = tf.gather(z, t) + tf.matmul(h, recurrent_kernel)
            i, f, g, o = tf.split(a, 4, axis=1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            return t + 1, tf.sigmoid(o) * tf.tanh(c), c

        _, h, c = tf.while_loop(lambda t, *_: t < steps, step, (tf.constant(0), h, c))
        # Only the shape of the outputs counts: none of this is in the file.
        outputs = tf.tile(h[:, None], [1, steps, 1])
        outputs.set_shape([*x.shape[:2], h.shape[1]])
        return h, outputs, h, c, tf.constant(1.0)

    attributes = {
        "api_implements": f"lstm_{uuid.uuid4()}",
        "time_major": False,
        "go_backwards": False,
    }
    return tf.function(lstm, autograph=False, experimental_attributes=attributes)
