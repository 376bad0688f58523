"""How loops are written, and where states go in and out."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from keras_rnnkit.recurrence.loop import in_arrays, written_out
from keras_rnnkit.recurrence.scope import Scoped


@dataclass(frozen=True)
class Loop:
    """How the loop of a layer is written.

    Attributes:
        write: callable, as `run` takes it.
        layer: callable `(layer, sequences) -> (last_output, outputs)` that replaces
            the loop of a layer whose states are zero; or `None`.
    """

    write: Callable = in_arrays
    layer: Callable | None = None


class Policy:
    """Decides how the loops that are traced inside `active()` are written.

    This one is for loops that run here, in ordinary ops or compiled. `export` has one
    for TFLite.

    Args:
        compiled: whether loops may be compiled.
        at_once: whether loops compile at the first call; else see `is_often`.

    Attributes:
        stream: `Stream` while states go in and out, or `None`.
        refusals: list of str, the reasons why the traced graph must not be used.
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

    def step_of(self, step, params) -> Callable:
        """Binds parameters to the step of a cell, `(z, states, params, noise)`."""
        return partial(_with_params, step, params)

    def note(self, layer, plan):
        """Called with the plan by which a layer runs; see `make_plan`."""

    @contextmanager
    def active(self):
        """Applies this policy to every loop traced inside, in this thread."""
        with _policy.set(self):
            yield self

    def begin(self):
        """Clears what an earlier trace left."""
        self.refusals.clear()

    @contextmanager
    def streaming(self, taken=(), given=None, mask=None):
        """Routes the states of all layers inside through a `Stream`."""
        self.stream = Stream(taken, given, mask)
        try:
            yield self.stream
        finally:
            self.stream = None

    @contextmanager
    def paused(self):
        """Takes the layers inside out of the stream: their own states come first."""
        stream, self.stream = self.stream, None
        try:
            yield
        finally:
            self.stream = stream


DEFAULT = Policy(at_once=False)
_policy = Scoped(DEFAULT)


def current_policy() -> Policy:
    """The policy that is active in this thread, or `DEFAULT`."""
    return _policy.value


def current_stream() -> "Stream | None":
    """The `Stream` that the states of layers go through, or `None`."""
    return current_policy().stream


def _with_params(step, params, z, states, noise):
    return step(z, states, params, noise)


class Stream:
    """The states of a model that runs some steps at a time.

    Args:
        taken: names that no state may have.
        given: dict of tensors, the states by name, or a list in the order of `first`.
            Without it, or for a name that is not in the dict, the layers start from
            their own states, which `first` then holds.
        mask: bool `(batch, time)`, for the steps of all layers, or `None`.

    Attributes:
        first, last: dicts of tensors by name, before and after the steps. `first` is in
            the order in which the layers read them.
    """

    def __init__(self, taken=(), given=None, mask=None):
        self.taken = taken
        self.given = given
        self.mask = mask
        self.first = {}
        self.last = {}
        self._inside = []

    def enter(self, names: list[str], states: list) -> list:
        """Returns the states to start from, in place of `states`. `leave` ends this."""
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
        """Stores the states after the steps, for the names that entered last."""
        self.last.update(zip(self._inside.pop(), states, strict=True))


def unused(name: str, names) -> str:
    """Returns the name, with a number added if `names` has it."""
    number, new = 0, name
    while new in names:
        number += 1
        new = f"{name}_{number}"
    return new
