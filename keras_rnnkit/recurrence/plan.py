"""The plan of a loop: whether it runs compiled, and why. One function decides."""

import functools
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import tensorflow as tf

from keras_rnnkit.internals import in_vectorized_map
from keras_rnnkit.recurrence.policy import current_policy

LOOPS = "auto", "portable", "fast"
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


@dataclass(frozen=True)
class Place:
    """Where a loop is to run.

    Attributes:
        compiles: the policy lets loops be compiled.
        at_once: the policy has them compile at the first call.
        ordinary: whether it is inside `ordinary_ops`.
        eager: the call is eager.
        accelerated: there is a GPU or a TPU.
        vectorized: it is inside `tf.vectorized_map`.
        has_xla: callable, whether TensorFlow compiles for the CPU.
    """

    compiles: bool = True
    at_once: bool = False
    ordinary: bool = False
    eager: bool = False
    accelerated: bool = False
    vectorized: bool = False
    has_xla: Callable[[], bool] = has_xla


def here() -> Place:
    """The place of a call, in this thread and now."""
    devices = tf.config.list_logical_devices()
    return Place(
        compiles=current_policy().compiled,
        at_once=current_policy().at_once,
        ordinary=is_on("ordinary_ops"),
        eager=tf.executing_eagerly(),
        accelerated=any(device.device_type != "CPU" for device in devices),
        vectorized=in_vectorized_map(),
    )


@dataclass(frozen=True)
class Plan:
    """How a loop runs.

    Attributes:
        compiled: whether it is compiled, or runs in ordinary ops.
        why: the reason, or for a loop that is compiled, when it is.
        at_once: whether it compiles at the first call; else see `is_often`.
    """

    compiled: bool
    why: str
    at_once: bool = False


def make_plan(
    loop: str,
    *,
    unroll: bool,
    steps: int | None,
    batch: int | None,
    place: Place | None = None,
) -> Plan:
    """Decides whether the loop over a split cell is to run compiled.

    With `loop="auto"` it is not where compiling would not pay: in eager calls, which
    are mostly single, for a few steps, beside an accelerator.

    Args:
        loop: "auto", "portable" or "fast".
        unroll: whether the steps are to be written out.
        steps, batch: `None` if they are not known yet.
        place: default: `here()`.
    """
    place = here() if place is None else place
    obstacles = {
        "`loop='portable'`": loop == "portable",
        "`unroll=True`": unroll,
        "an export writes it": not place.compiles,
        "there are no steps": steps == 0,
        "there are no rows": batch == 0,
        "`tf.vectorized_map` would lose its gradient": place.vectorized,
    }
    if loop == "auto":
        obstacles |= {
            "the call is eager": place.eager,
            "there is a GPU or a TPU": place.accelerated,
            f"{FEW_STEPS} steps or fewer": steps is not None and steps <= FEW_STEPS,
            "its shape has not been met often": place.ordinary,
        }
    for why, holds in obstacles.items():
        if holds:
            return Plan(False, why)
    if loop == "auto" and not place.has_xla():
        return Plan(False, "TensorFlow was built without XLA")
    if loop == "fast" or place.at_once:
        return Plan(True, "at the first call, as asked for", at_once=True)
    return Plan(True, "at its first call or a later one, once that pays")
