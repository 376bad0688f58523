"""What an export asks of the loops that are traced inside it, and what it got."""

import threading
from contextlib import contextmanager

import tensorflow as tf

FORMS = "fused", "loop", "unrolled"
STATES = "all states"

_local = threading.local()


class Export:
    """An export that is being traced: the form of each loop, and the states.

    Args:
        forms: "arrays", the loop in TensorFlow's ordinary ops, or for TFLite "auto", a
            form of `FORMS`, or a dict of these by the names of layers. None: nothing is
            exported, and loops run as ever; for a `Stream`.
        quantized: how values are to be quantized, as in `export_tflite`, or None.
        ranges: dict of the largest absolute input of each layer, by its name, and under
            `STATES` of the largest state of all, if known.

    Attributes:
        stream: `Stream` while states go in and out, or None.
        layers: dict of what each loop became and why, by the name of the layer.
        refusals: list of str, why the export must not be written.
        ranges: as given; eager calls inside add to it.
    """

    def __init__(self, forms, *, quantized=None, ranges=None):
        self.forms = forms
        self.quantized = quantized
        self.stream = None
        self.layers = {}
        self.refusals = []
        self.ranges = {} if ranges is None else ranges

    @property
    def is_run_here(self) -> bool:
        """Whether nothing is exported."""
        return self.forms is None

    @property
    def calibrated(self) -> bool:
        """Whether values will be measured on samples."""
        return self.quantized in ("int8", "int16x8")

    @contextmanager
    def tracing(self):
        """Has every loop that is traced inside ask this export."""
        before = current_export()
        _local.export = self
        try:
            yield self
        finally:
            _local.export = before

    def begin(self):
        """Forgets the layers and reasons of a trace before."""
        self.layers.clear()
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

    def see(self, name: str, x):
        """Keeps the largest absolute value that is seen under a name."""
        if not tf.is_symbolic_tensor(x):
            largest = float(tf.reduce_max(abs(x))) if tf.size(x) else 0.0
            self.ranges[name] = max(largest, self.ranges.get(name, 0.0))

    def form_of(
        self, name: str, order: dict[str, str], obstacles: dict[str, str]
    ) -> str:
        """Chooses the form of a layer's loop.

        Args:
            name: of the layer.
            order: the forms, the best first, and why each would be taken.
            obstacles: why a form cannot be had, for those that cannot.
        """
        if self.forms == "arrays":
            return "arrays"
        asked = self.forms if isinstance(self.forms, str) else self.forms.get(name)
        key = unused(name, self.layers)
        possible = [form for form in order if form not in obstacles]
        if asked in (None, "auto"):
            if not possible:
                reasons = "; ".join(f"{form}: {obstacles[form]}" for form in order)
                self.refusals.append(f"`{name}` has no form that is exact ({reasons})")
            form = (possible or ["loop"])[0]
            why = order.get(form, "")
        else:
            if asked in obstacles:
                self.refusals.append(f"`{name}` cannot be {asked}: {obstacles[asked]}")
            form, why = ("loop" if asked in obstacles else asked), "asked for"
        if "fused" in obstacles:
            why += f"; not fused: {obstacles['fused']}"
        self.layers[key] = {"form": form, "why": why}
        return form


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


def current_export() -> Export | None:
    """The export that is being traced, if one is."""
    return getattr(_local, "export", None)


def current_stream() -> Stream | None:
    """The states of the export that is being traced, if they go in and out."""
    export = current_export()
    return export and export.stream
