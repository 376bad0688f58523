"""What decides how loops are written, and where states go in and out."""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from keras_rnnkit.recurrence.loop import in_arrays, written_out

_local = threading.local()


@dataclass(frozen=True)
class Loop:
    """How the loop of a layer is written.

    Attributes:
        write: callable, as `run` takes it.
        layer: callable `(layer, sequences) -> (last_output, outputs)` that does what
            the layer does from states of zeros, in place of `write`; or `None`.
    """

    write: Callable = in_arrays
    layer: Callable | None = None


class Policy:
    """Decides how the loops that are traced inside `active()` are written.

    This one has them run here, in ordinary ops or compiled. `export` has one for
    TFLite.

    Args:
        compiled: whether loops may be compiled.
        at_once: whether those that are compile at the first call; else see `is_often`.

    Attributes:
        stream: `Stream` while states go in and out, or `None`.
        refusals: list of str, why what is traced must not be used.
    """

    def __init__(self, *, compiled=True, at_once=True):
        self.compiled = compiled
        self.at_once = at_once
        self.stream = None
        self.refusals = []

    def loop_of(self, layer, sequences, states, mask) -> Loop:
        """Chooses how the loop of a layer is written, for the arguments of a call."""
        one = self.at_once and sequences.shape[1] == 1
        return Loop(
            written_out if self.compiled and (layer.unroll or one) else in_arrays
        )

    def step_of(self, step, k) -> Callable:
        """The step of a cell, `(z, states, k, noise)`, over given constants."""
        return partial(_over, step, k)

    def note(self, layer, plan):
        """Is told of the plan by which a layer runs; see `make_plan`."""

    @contextmanager
    def active(self):
        """Has every loop that is traced inside, in this thread, ask this policy."""
        before = current_policy()
        _local.policy = self
        try:
            yield self
        finally:
            _local.policy = before

    def begin(self):
        """Forgets what an earlier trace has left."""
        self.refusals.clear()

    @contextmanager
    def streaming(self, taken=(), given=None, mask=None):
        """Has the states of all layers inside go through a `Stream`."""
        self.stream = Stream(taken, given, mask)
        try:
            yield self.stream
        finally:
            self.stream = None

    @contextmanager
    def paused(self):
        """Has the layers inside begin anew, as they do not run along the stream."""
        stream, self.stream = self.stream, None
        try:
            yield
        finally:
            self.stream = stream


DEFAULT = Policy(at_once=False)


def current_policy() -> Policy:
    """The policy that is active in this thread, or `DEFAULT`."""
    return getattr(_local, "policy", DEFAULT)


def current_stream() -> "Stream | None":
    """Where the states of layers go in and out, if they do."""
    return current_policy().stream


def _over(step, k, z, states, noise):
    return step(z, states, k, noise)


class Stream:
    """The states of a model that is run some steps at a time.

    Args:
        taken: names that no state may have.
        given: dict of tensors, the states by name, or a list in the order of `first`.
            Without it, or without a name in the dict, those that the layers begin with
            are taken, and to be read from `first`.
        mask: bool `(batch, time)`, of the steps of all layers; or None.

    Attributes:
        first, last: dicts of tensors by name, before and after the steps. `first` has
            the order in which the layers take them.
    """

    def __init__(self, taken=(), given=None, mask=None):
        self.taken = taken
        self.given = given
        self.mask = mask
        self.first = {}
        self.last = {}
        self._inside = []

    def enter(self, names: list[str], states: list) -> list:
        """Returns the states to begin with in place of `states`, up to `leave`."""
        names = [unused(name, {*self.taken, *self.first}) for name in names]
        before = len(self.first)
        self.first.update(zip(names, states, strict=True))
        self._inside.append(names)
        if self.given is None:
            return states
        if isinstance(self.given, dict):
            pairs = zip(names, states, strict=True)
            return [self.given.get(name, state) for name, state in pairs]
        return list(self.given[before : len(self.first)])

    def leave(self, states: list):
        """Takes the states after the steps, of the last that entered."""
        self.last.update(zip(self._inside.pop(), states, strict=True))


def unused(name: str, names) -> str:
    """The name, with a number if it is there already."""
    number, new = 0, name
    while new in names:
        number += 1
        new = f"{name}_{number}"
    return new
