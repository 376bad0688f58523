"""Finds the time axis of each input in a model's graph."""

from dataclasses import dataclass
from itertools import combinations

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.export.causal import is_causal_convolution
from keras_rnnkit.export.graph import LayerCallError, trace_calls

BATCH = 2
SIZES = 24, 240  # substitutes for an unknown size; 240 if 24 is too short
MAX_TRIALS = 200


def check_time_steps(time_steps):
    """Raises `ValueError` unless it is "model", int >= 1, None or a dict of these."""
    each = time_steps if isinstance(time_steps, dict) else {None: time_steps}
    for name, steps in each.items():
        if steps not in ("model", None):
            check_positive_integer(
                "time_steps" if name is None else f"time_steps[{name!r}]", steps
            )


def steps_of_input(time_steps, name):
    """Returns the number of steps of the only sequence input, or "model"."""
    if not isinstance(time_steps, dict):
        return time_steps
    check_names(time_steps, [name])
    return time_steps.get(name, "model")


def check_names(time_steps, names):
    """Raises `ValueError` for names in `time_steps` that no input has."""
    if unknown := [name for name in time_steps if name not in names]:
        raise ValueError(
            f"`time_steps` must name inputs of the model, {names}; received {unknown}"
        )


@dataclass
class Trial:
    """The effect of another size of some axes.

    Attributes:
        depth: int, of the outermost recurrent layers whose steps change, or None.
        rejected_by: str, the name of the layer that rejects the size, or None.
    """

    depth: int | None
    rejected_by: str | None

    @property
    def is_good(self) -> bool:
        """Whether steps of recurrent layers change, and no layer rejects the size."""
        return self.depth is not None and self.rejected_by is None


class TimeAxisSearch:
    """Doubles sizes of a model's inputs, and looks which recurrent layers they affect.

    A place is a pair `(input, axis)` of integers.

    Args:
        model: a built model.
        names: list of str, of its inputs.
    """

    def __init__(self, model, names):
        self.model = model
        self.names = names
        self.shapes = [tuple(x.shape) for x in model.inputs]
        self.places = [
            (number, axis)
            for number, shape in enumerate(self.shapes)
            for axis in range(1, len(shape))
        ]
        for self.size in SIZES:
            try:
                self.base, _ = self.trace({})
                break
            except LayerCallError as error:
                self.base, cause = error.calls, error
        else:
            raise ValueError(
                f"`{_failing_layer(self.base)}` cannot take sequences of {self.size} "
                f"steps: {cause}"
            )
        self._trials = {}

    def size_of(self, place) -> int:
        """Returns the size of an axis, or a substitute if it is unknown."""
        number, axis = place
        size = self.shapes[number][axis]
        return self.size if size is None else size

    def _shapes(self, sizes):
        """Returns known shapes of all inputs; `sizes` replaces some sizes, by place."""
        return [
            (
                shape[0] or BATCH,
                *(
                    sizes.get((number, axis), self.size_of((number, axis)))
                    for axis in range(1, len(shape))
                ),
            )
            for number, shape in enumerate(self.shapes)
        ]

    def trace(self, sizes):
        """Traces the model with some sizes replaced, by place; see `trace_calls`."""
        return trace_calls(self.model, self._shapes(sizes))

    def find_steps(self, time_steps, asked=None) -> dict[str, tuple]:
        """Returns `(axis, steps)` by the names of the inputs whose steps change.

        Args:
            time_steps: int or None, for the axes of the recurrent layers, or a dict of
                these by input name.
            asked: str, the argument that requires it, for errors.

        Raises:
            ValueError: a name is unknown, or the number of steps cannot be changed.
        """
        check_time_steps(time_steps)
        asked = asked or f"`time_steps={time_steps}`"
        if isinstance(time_steps, dict):
            check_names(time_steps, self.names)
            wanted = {name: n for name, n in time_steps.items() if n != "model"}
            axes = {name: self._axis_of(name, n, asked) for name, n in wanted.items()}
        else:
            axes = self._time_axes(time_steps, asked)
            wanted = dict.fromkeys(axes, time_steps)
        places = {(self.names.index(n), axes[n]): steps for n, steps in wanted.items()}
        self._check(places, asked)
        return {name: (axes[name], steps) for name, steps in wanted.items()}

    def try_places(self, places) -> Trial:
        """Returns the effect of doubling the size of some axes."""
        places = tuple(places)
        if places not in self._trials:
            self._trials[places] = self._try({p: 2 * self.size_of(p) for p in places})
        return self._trials[places]

    def _try(self, sizes):
        rejected_by = None
        try:
            calls, _ = self.trace(sizes)
        except LayerCallError as error:
            calls, rejected_by = error.calls, _failing_layer(error.calls)
        depth = None
        has_recurrent = any(call.is_recurrent for call in self.base)
        for call, before in zip(calls, self.base, strict=False):
            if not (
                call.is_recurrent
                if has_recurrent
                else is_causal_convolution(call.layer)
            ):
                continue
            pairs = list(zip(call.inputs, before.inputs, strict=True))
            steps_change = any(x.shape[1:2] != y.shape[1:2] for x, y in pairs)
            x, y = pairs[0]
            if x.shape[2:] != y.shape[2:]:
                rejected_by = rejected_by or call.layer.name
            if steps_change and (depth is None or call.depth < depth):
                depth = call.depth
        return Trial(depth, rejected_by)

    def _time_axes(self, steps, asked) -> dict[str, int]:
        """Returns the axes that the outermost recurrent layers run along, by input.

        If some of them have an unknown size, returns only these.
        """
        if not any(c.is_recurrent or is_causal_convolution(c.layer) for c in self.base):
            raise ValueError(
                f"`{self.model.name}` has no recurrent layer to stream or to give "
                f"another number of steps; received {asked}"
            )
        found = self._good_places()
        if not found:
            return self._fixed_axes(steps, asked)
        depths = {place: self._depth(group) for place, group in found.items()}
        places = [p for p in depths if depths[p] == min(depths.values())]
        unknown = [p for p in places if self.shapes[p[0]][p[1]] is None]
        axes = {}
        for number, axis in unknown or places:
            axes.setdefault(self.names[number], axis)
        return axes

    def _depth(self, group):
        return self.try_places(group).depth

    def _good_places(self):
        """Returns the places that can have another size, alone or together with others:
        a dict of the group of places that change together, by place."""
        found = {p: (p,) for p in self.places if self.try_places([p]).is_good}
        left = [p for p in self.places if self.try_places([p]).rejected_by]
        trials = 0
        for count in range(2, len(self.shapes) + 1):
            for group in combinations(left, count):
                numbers = {number for number, _ in group}
                sizes = {self.shapes[number][axis] for number, axis in group}
                if len(numbers) < count or len(sizes) > 1 or found.keys() & {*group}:
                    continue
                trials += 1
                if trials > MAX_TRIALS:
                    return found
                if self.try_places(group).is_good:
                    found |= dict.fromkeys(group, group)
        return found

    def _fixed_axes(self, steps, asked):
        """Returns the axes of a model of a fixed number of steps, if it is `steps`."""
        trials = {p: self.try_places([p]) for p in self.places}
        along = [p for p, trial in trials.items() if trial.depth is not None]
        if along and all(self.size_of(p) == steps for p in along):
            return {self.names[number]: axis for number, axis in along}
        for number, axis in along:
            raise ValueError(
                f"`{trials[number, axis].rejected_by}` needs exactly "
                f"{self.size_of((number, axis))} steps of `{self.names[number]}`; "
                f"received {asked}"
            )
        tried = ", ".join(
            f"axis {axis} of `{self.names[number]}` as of `{trial.rejected_by}`"
            for (number, axis), trial in trials.items()
            if trial.rejected_by
        )
        raise ValueError(
            f"`{self.model.name}` has no axis that the recurrent layers run along and "
            f"that can have another size ({tried or 'no layer follows one'}); received "
            f"`time_steps={steps}`"
        )

    def _axis_of(self, name, steps, asked) -> int:
        """Returns the time axis of a named input."""
        number = self.names.index(name)
        own = [p for p in self.places if p[0] == number]
        found = self._good_places()
        found = {p: self._depth(group) for p, group in found.items() if p in own}
        free = sorted(found, key=found.get) or [
            p for p in own if not self.try_places([p]).rejected_by
        ]
        unknown = [p for p in free if self.shapes[number][p[1]] is None]
        given = [p for p in own if self.size_of(p) == steps]
        for _, axis in [*unknown, *free, *given]:
            return axis
        raise ValueError(
            f"`time_steps` of `{name}` cannot be changed, as no axis of its shape "
            f"{self.shapes[number]} can have another size; received {asked}"
        )

    def _check(self, steps, asked):
        """Raises `ValueError` if a layer rejects these numbers of steps, by place."""
        sizes = {p: 2 * self.size_of(p) if n is None else n for p, n in steps.items()}
        if rejected_by := self._try(sizes).rejected_by:
            names = [self.names[number] for number, _ in steps]
            raise ValueError(
                f"`{rejected_by}` cannot take {asked}, which changes the steps of "
                f"{names}: inputs whose steps have to change together must all be named"
            )


def _failing_layer(calls):
    return calls[-1].layer.name
