"""How each call of a layer in a model streams, and which one cannot."""

import itertools
import re

import numpy as np
import tensorflow as tf
from keras import tree

from keras_rnnkit.export.causal import (
    StreamingConvolution,
    is_zero_padding,
    obstacle,
    skip_padding,
    ways,
)
from keras_rnnkit.export.graph import call_layer, is_recurrent, layers_of, run_graph
from keras_rnnkit.export.saved_model import is_stateful

HINT = " (a layer that looks at several steps at once cannot stream)"
TOLERANCE = 1e-3  # above which an output is another one, over its largest value


class StreamPlan:
    """What the calls of a model do with the steps of a stream.

    Args:
        search: `TimeAxisSearch`, of the model.
        places: list of `(input, axis)`, the steps.

    Attributes:
        calls: list of `Call`, in order, those inside `TimeDistributed` left out.
        axes: list of the axis of the steps of each output of each call, or None.
        output_axes: these of the model's outputs, in their structure.
        memory: int, the steps that layers look back, added up.
    """

    def __init__(self, search, places):
        self.model = search.model
        sizes = [{place: n * search.size_of(place) for place in places} for n in (1, 2)]
        (short, outputs), (long, longer) = map(search.trace, sizes)
        pairs = [pair for pair in zip(short, long, strict=True) if not pair[0].level]
        self.calls = [call for call, _ in pairs]
        self.axes = [list(map(changed_axis, a.outputs, b.outputs)) for a, b in pairs]
        self.output_axes = tree.map_structure(changed_axis, outputs, longer)
        along = [1 in map(changed_axis, a.inputs, b.inputs) for a, b in pairs]
        self._recurrent = [
            is_along and call.is_recurrent
            for call, is_along in zip(self.calls, along, strict=True)
        ]
        for call, runs_along in zip(self.calls, self._recurrent, strict=True):
            if runs_along:
                check_direction(call.layer)
            elif any(map(is_stateful, layers_of(call.layer))):
                raise cannot(call.layer, "it is stateful along another axis")
        found = ways(self.calls, tree.flatten(outputs))
        self._ways = {number: way for number, way in found.items() if along[number]}
        for number, call in enumerate(self.calls):
            if along[number] and number not in found and is_zero_padding(call.layer):
                raise cannot(call.layer, obstacle(call.layer, ""))
        self.memory = sum(
            way.steps
            for way in self._ways.values()
            if isinstance(way, StreamingConvolution)
        )

    def run(self, inputs, policy, *, whole=False, seen=None):
        """Runs the model on some steps, with an export's stream.

        Args:
            inputs: tensors, flat.
            policy: `recurrence.Policy`.
            whole: bool, the steps are all of the sequence.
            seen: list to put the outputs of each call into, or None.
        """
        numbers = itertools.count()

        def call(layer, *args, **kwargs):
            number = next(numbers)
            way = None if whole else self._ways.get(number)
            try:
                if way:
                    outputs = way(policy.stream, *args)
                elif self._recurrent[number]:
                    outputs = call_layer(layer, *args, **kwargs)
                else:
                    with policy.paused():
                        outputs = call_layer(layer, *args, **kwargs)
            except (ValueError, tf.errors.OpError) as error:
                why = f"it cannot take so few steps: {sentence(error)}"
                raise cannot(layer, obstacle(layer, why)) from error
            if seen is not None:
                seen.append([y for y in tf.nest.flatten(outputs) if tf.is_tensor(y)])
            return outputs

        return run_graph(self.model, inputs, call)

    def check(self, whole, parts):
        """Raises `ValueError` for the first call that gives other outputs for a
        sequence in parts than for the whole.

        Args:
            whole: list of the outputs of each call, arrays.
            parts: list of these for each part.
        """
        for number, (call, axes) in enumerate(zip(self.calls, self.axes, strict=True)):
            if self._ways.get(number) is skip_padding:
                continue
            for place, axis in enumerate(axes):
                last = [part[number][place] for part in parts]
                y = last[-1] if axis is None else np.concatenate(last, axis)
                if not is_close(y, whole[number][place]):
                    why = "what it returns depends on other steps than the call's"
                    raise cannot(call.layer, obstacle(call.layer, why))

    def refuse(self):
        """Raises `ValueError`, as no layer has given a state."""
        for call, runs_along in zip(self.calls, self._recurrent, strict=True):
            if runs_along:
                raise cannot(call.layer, "it keeps its states to itself")
        inside = [
            c.layer for c in self.calls if any(map(is_recurrent, layers_of(c.layer)))
        ]
        if inside:
            raise cannot(inside[0], "its recurrent layers run along another axis")
        raise ValueError(f"`{self.model.name}` has no recurrent layer to stream")

    def initial_state_source(self, state) -> tuple[str, str]:
        """The names of a layer and of what computes its first state.

        Args:
            state: str, the name of one of its states.
        """
        taking = [c for c in self.calls if state.startswith(f"{c.layer.name}_")]
        if not taking:
            return self.model.name, state
        call = max(taking, key=lambda call: len(call.layer.name))
        wanted, sources = list(call.first), []
        for each in reversed(self.calls):
            if any(x is y for x in each.outputs for y in wanted):
                sources.append(each)
                wanted += each.inputs
        recurrent = [each for each in sources if each.is_recurrent]
        source = [*recurrent, *sources, call][0]
        return call.layer.name, source.layer.name


def changed_axis(short, long):
    """The axis whose size differs, of two tensors; None if all are equal."""
    pairs = zip(short.shape, long.shape, strict=True)
    return next((axis for axis, (n, m) in enumerate(pairs) if n != m), None)


def is_close(got, expected) -> bool:
    """Whether two arrays differ by rounding alone."""
    if got.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fiub":
        return np.array_equal(got, expected)
    got, expected = got.astype("float64"), expected.astype("float64")
    difference = np.abs(got - expected).max(initial=0)
    # What is not a number is for the proof of the file to find.
    return not difference > TOLERANCE * max(np.abs(expected).max(initial=0), TOLERANCE)


def check_direction(layer):
    """Raises `ValueError` for a layer that runs against a stream."""
    for each in layers_of(layer):
        if hasattr(each, "backward_layer") or getattr(each, "go_backwards", False):
            raise ValueError(
                f"`{each.name}` cannot stream: it begins with the last step, so it "
                "needs the whole sequence"
            )


def sentence(error) -> str:
    """What an error says, without the arguments that Keras lists."""
    said = re.search(r"\x1b\[1m(.*?)\x1b\[0m", str(error), re.DOTALL)
    return (said[1] if said else str(error)).strip().split("\n")[0]


def cannot(layer, why):
    """The error for a layer that cannot stream."""
    return ValueError(f"`{layer.name}` cannot stream: {why}{HINT}")


def input_dependencies(function, specs) -> tuple[dict[str, set], list]:
    """The inputs that each output of a function is computed from, by their names.

    Args:
        function: takes and returns tensors by name.
        specs: list of `tf.TensorSpec`.

    Returns:
        dict of the names of inputs, and list of `tf.TensorSpec` of the outputs.
    """
    given, returned = {}, {}

    def run(**inputs):
        given.update({x.op.name: name for name, x in inputs.items()})
        returned.update(function(**inputs))
        return returned

    traced = tf.function(run, autograph=False)
    graph = traced.get_concrete_function(**{spec.name: spec for spec in specs}).graph

    def names(tensor):
        left, done = [tensor.op.name], set()
        while left:
            name = left.pop()
            if name not in done:
                done.add(name)
                op = graph.get_operation_by_name(name)
                left += [x.op.name for x in op.inputs]
        return {name for op, name in given.items() if op in done}

    return (
        {name: names(y) for name, y in returned.items()},
        [tf.TensorSpec(y.shape, y.dtype, name) for name, y in returned.items()],
    )
