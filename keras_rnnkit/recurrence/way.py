"""Which way the loop runs."""

import functools
import threading
from contextlib import contextmanager

import tensorflow as tf

from keras_rnnkit.internals import in_vectorized_map
from keras_rnnkit.recurrence.exported import current_export

WAYS = "auto", "portable", "fast"
FEW_STEPS = 4

_local = threading.local()


@contextmanager
def switched_on(name: str):
    """Has `is_on(name)` be True inside, in this thread."""
    before = is_on(name)
    setattr(_local, name, True)
    try:
        yield
    finally:
        setattr(_local, name, before)


def is_on(name: str) -> bool:
    return getattr(_local, name, False)


def ordinary_ops():
    """Has loops inside run in ordinary ops, but those that are asked to be fast."""
    return switched_on("ordinary_ops")


def is_fast(loop: str, *, unroll: bool, steps: int | None, batch: int | None) -> bool:
    """Whether a split cell is to run on the compiled loop, in this place and now.

    Not if ordinary ops are asked for: by `loop="portable"`, for an export, by `unroll`;
    nor for no steps or rows, nor inside `tf.vectorized_map`, which loses gradients that
    are a function's own. With `loop="auto"` neither where compiling would not pay,
    for a few steps, in eager calls, which are mostly single, beside a GPU or a TPU; nor
    in a TensorFlow that was built without XLA, nor inside `ordinary_ops`.

    Args:
        loop: "auto", "portable" or "fast".
        steps, batch: `None` if they are not known yet.
    """
    export = current_export()
    if loop == "portable" or unroll or not (export is None or export.is_run_here):
        return False
    if steps == 0 or batch == 0 or in_vectorized_map():
        return False
    if loop == "fast":
        return True
    accelerators = [
        device
        for device in tf.config.list_logical_devices()
        if device.device_type != "CPU"
    ]
    return (
        not is_on("ordinary_ops")
        and not tf.executing_eagerly()
        and not accelerators
        and (steps is None or steps > FEW_STEPS)
        and has_xla()
    )


@functools.cache
def has_xla() -> bool:
    """Whether this TensorFlow compiles for the CPU."""
    with tf.init_scope():
        try:
            compile_one(tf.constant(1.0))
        except (tf.errors.OpError, ValueError):
            return False
    return True


@tf.function(jit_compile=True, autograph=False)
def compile_one(x):
    return x + 1
