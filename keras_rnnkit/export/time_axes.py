"""Which axis of each input the steps are, found in the model's graph."""

from dataclasses import dataclass
from itertools import combinations

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.export.causal import is_causal_convolution
from keras_rnnkit.export.graph import LayerCallError, trace_calls

BATCH = 2
SIZES = 24, 240  # stand for an axis of any size; the second if the first is too short
TRIALS = 200


def check_time_steps(time_steps):
    """Raises `ValueError` unless it is "model", a number, None or a dict of these."""
    each = time_steps if isinstance(time_steps, dict) else {None: time_steps}
    for name, steps in each.items():
        if steps not in ("model", None):
            check_positive_integer(
                "time_steps" if name is None else f"time_steps[{name!r}]", steps
            )


def steps_of_input(time_steps, name):
    """The number of steps of a model with only one input that has any, or "model"."""
    if not isinstance(time_steps, dict):
        return time_steps
    check_names(time_steps, [name])
    return time_steps.get(name, "model")


def check_names(time_steps, names):
    if unknown := [name for name in time_steps if name not in names]:
        raise ValueError(
            f"`time_steps` must name inputs of the model, {names}; received {unknown}"
        )


@dataclass
class Trial:
    """What another size of some axes does.

    Attributes:
        level: int, of the outermost recurrent layers whose steps it changes, or None.
        stopped: str, the name of the layer that cannot take it, or None.
    """

    level: int | None
    stopped: str | None

    @property
    def is_good(self) -> bool:
        """Whether the steps change and all layers take it."""
        return self.level is not None and self.stopped is None


class TimeAxisSearch:
    """Doubles sizes of a model's inputs and looks at the layers that run along them.

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
                self.base, stopped = error.calls, error
        else:
            raise ValueError(
                f"`{_name(self.base)}` cannot take sequences of {self.size} steps: "
                f"{stopped}"
            )
        self._trials = {}

    def size_of(self, place) -> int:
        """The size of an axis, or what stands for it if it is unknown."""
        number, axis = place
        size = self.shapes[number][axis]
        return self.size if size is None else size

    def _shapes(self, sizes):
        """The shapes of all inputs, known, some of the sizes as given by place."""
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
        """See `trace_calls`; some sizes are given by place, `(input, axis)`."""
        return trace_calls(self.model, self._shapes(sizes))

    def steps_of(self, time_steps, asked=None) -> dict[str, tuple]:
        """The inputs that get another number of steps: `(axis, steps)` by name.

        Args:
            time_steps: int or None, for those that the recurrent layers run along, or
                a dict of these by the names of inputs.
            asked: str, what asks for it, for errors.

        Raises:
            ValueError: an unknown name; steps whose number cannot be another one.
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
        """Doubles the size of some axes."""
        places = tuple(places)
        if places not in self._trials:
            self._trials[places] = self._try({p: 2 * self.size_of(p) for p in places})
        return self._trials[places]

    def _try(self, sizes):
        stopped = None
        try:
            calls, _ = self.trace(sizes)
        except LayerCallError as error:
            calls, stopped = error.calls, _name(error.calls)
        level = None
        along = any(call.is_recurrent for call in self.base)
        for call, before in zip(calls, self.base, strict=False):
            if not (call.is_recurrent if along else is_causal_convolution(call.layer)):
                continue
            pairs = list(zip(call.inputs, before.inputs, strict=True))
            moves = any(x.shape[1:2] != y.shape[1:2] for x, y in pairs)
            x, y = pairs[0]
            if x.shape[2:] != y.shape[2:]:
                stopped = stopped or call.layer.name
            if moves and (level is None or call.level < level):
                level = call.level
        return Trial(level, stopped)

    def _time_axes(self, steps, asked) -> dict[str, int]:
        """The axes that the outermost recurrent layers run along, by input.

        If there are some of unknown size, these alone.
        """
        if not any(c.is_recurrent or is_causal_convolution(c.layer) for c in self.base):
            raise ValueError(
                f"`{self.model.name}` has no recurrent layer to stream or to give "
                f"another number of steps; received {asked}"
            )
        found = self._good_places()
        if not found:
            return self._fixed(steps, asked)
        levels = {place: self._level(group) for place, group in found.items()}
        places = [p for p in levels if levels[p] == min(levels.values())]
        unknown = [p for p in places if self.shapes[p[0]][p[1]] is None]
        axes = {}
        for number, axis in unknown or places:
            axes.setdefault(self.names[number], axis)
        return axes

    def _level(self, group):
        return self.try_places(group).level

    def _good_places(self):
        """The places that can have another size, alone or with others of that size:
        by place, those that change together."""
        found = {p: (p,) for p in self.places if self.try_places([p]).is_good}
        left = [p for p in self.places if self.try_places([p]).stopped]
        trials = 0
        for count in range(2, len(self.shapes) + 1):
            for group in combinations(left, count):
                numbers = {number for number, _ in group}
                sizes = {self.shapes[number][axis] for number, axis in group}
                if len(numbers) < count or len(sizes) > 1 or found.keys() & {*group}:
                    continue
                trials += 1
                if trials > TRIALS:
                    return found
                if self.try_places(group).is_good:
                    found |= dict.fromkeys(group, group)
        return found

    def _fixed(self, steps, asked):
        """The axes of a model whose steps cannot change, if they are as asked for."""
        stops = {p: self.try_places([p]) for p in self.places}
        along = [p for p, trial in stops.items() if trial.level is not None]
        if along and all(self.size_of(p) == steps for p in along):
            return {self.names[number]: axis for number, axis in along}
        for number, axis in along:
            raise ValueError(
                f"`{stops[number, axis].stopped}` needs exactly "
                f"{self.size_of((number, axis))} steps of `{self.names[number]}`; "
                f"received {asked}"
            )
        tried = ", ".join(
            f"axis {axis} of `{self.names[number]}` as of `{trial.stopped}`"
            for (number, axis), trial in stops.items()
            if trial.stopped
        )
        raise ValueError(
            f"`{self.model.name}` has no axis that the recurrent layers run along and "
            f"that can have another size ({tried or 'no layer follows one'}); received "
            f"`time_steps={steps}`"
        )

    def _axis_of(self, name, steps, asked) -> int:
        """The axis of an input that is named."""
        number = self.names.index(name)
        own = [p for p in self.places if p[0] == number]
        found = self._good_places()
        found = {p: self._level(group) for p, group in found.items() if p in own}
        takes = sorted(found, key=found.get) or [
            p for p in own if not self.try_places([p]).stopped
        ]
        unknown = [p for p in takes if self.shapes[number][p[1]] is None]
        given = [p for p in own if self.size_of(p) == steps]
        for _, axis in [*unknown, *takes, *given]:
            return axis
        raise ValueError(
            f"`time_steps` of `{name}` cannot be changed, as no axis of its shape "
            f"{self.shapes[number]} can have another size; received {asked}"
        )

    def _check(self, steps, asked):
        """Raises `ValueError` if a layer cannot take so many steps, by place."""
        sizes = {p: 2 * self.size_of(p) if n is None else n for p, n in steps.items()}
        if stopped := self._try(sizes).stopped:
            names = [self.names[number] for number, _ in steps]
            raise ValueError(
                f"`{stopped}` cannot take {asked}, which changes the steps of {names}: "
                "inputs whose steps have to change together must all be named"
            )


def _name(calls):
    return calls[-1].layer.name
