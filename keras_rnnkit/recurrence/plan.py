"""The plan of a loop: whether it runs compiled, and why. One function decides."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from keras_rnnkit.internals import in_vectorized_map
from keras_rnnkit.recurrence.policy import current_policy
from keras_rnnkit.recurrence.scope import Scoped

LOOPS = "auto", "portable", "fast"
FEW_STEPS = 4

_switches = Scoped(frozenset())


def switched_on(name: str):
    """A context manager: inside, in this thread, `is_on(name)` is True."""
    return _switches.set(_switches.value | {name})


def is_on(name: str) -> bool:
    return name in _switches.value


def ordinary_ops():
    """Runs the loops inside in ordinary ops, except those with `loop="fast"`."""
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
    """The circumstances of a call.

    Attributes:
        compiles: the policy lets loops be compiled.
        at_once: the policy compiles loops at the first call.
        ordinary: the call is inside `ordinary_ops`.
        eager: the call is eager.
        accelerated: there is a GPU or a TPU.
        vectorized: the call is inside `tf.vectorized_map`.
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
    """Returns the circumstances of a call now, in this thread."""
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
        why: the reason; for a compiled loop, when it compiles.
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
    """Decides whether the loop over a split cell runs compiled.

    With `loop="auto"` it does not where compiling would not pay: in eager calls, which
    are mostly single, for a few steps, and beside an accelerator.

    Args:
        loop: "auto", "portable" or "fast".
        unroll: whether the loop is unrolled.
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
