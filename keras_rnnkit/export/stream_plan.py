"""Plans how each call of a layer in a model streams, and finds those that cannot."""

import itertools
import re

import numpy as np
import tensorflow as tf
from keras import tree

from keras_rnnkit.export.causal import (
    StreamingConvolution,
    is_zero_padding,
    reason_against,
    skip_padding,
    streaming_handlers,
)
from keras_rnnkit.export.graph import call_layer, is_recurrent, layers_of, run_graph
from keras_rnnkit.export.saved_model import is_stateful

HINT = " (a layer that looks at several steps at once cannot stream)"
TOLERANCE = 1e-3  # of outputs that count as equal, over the largest value


class StreamPlan:
    """How the calls of layers in a model handle the steps of a stream.

    Args:
        search: `TimeAxisSearch`, of the model.
        places: list of `(input, axis)`, the time axes.

    Attributes:
        calls: list of `Call`, in order, without those inside `TimeDistributed`.
        axes: list of the time axis of each output of each call, or None.
        output_axes: those of the model's outputs, in their structure.
        memory: int, total number of earlier steps that convolutions read.
    """

    def __init__(self, search, places):
        self.model = search.model
        sizes = [{place: n * search.size_of(place) for place in places} for n in (1, 2)]
        (short, outputs), (long, longer) = map(search.trace, sizes)
        pairs = [pair for pair in zip(short, long, strict=True) if not pair[0].depth]
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
                raise streaming_error(call.layer, "it is stateful along another axis")
        handlers = streaming_handlers(self.calls, tree.flatten(outputs))
        self._handlers = {n: handler for n, handler in handlers.items() if along[n]}
        for number, call in enumerate(self.calls):
            if along[number] and number not in handlers and is_zero_padding(call.layer):
                raise streaming_error(call.layer, reason_against(call.layer, ""))
        self.memory = sum(
            handler.steps
            for handler in self._handlers.values()
            if isinstance(handler, StreamingConvolution)
        )

    def run(self, inputs, policy, *, is_complete=False, layer_outputs=None):
        """Runs the model on some steps of a stream.

        Args:
            inputs: tensors, flat.
            policy: `recurrence.Policy`, which is streaming.
            is_complete: bool, whether the steps are a whole sequence.
            layer_outputs: list to append the outputs of each call to, or None.
        """
        numbers = itertools.count()

        def call(layer, *args, **kwargs):
            number = next(numbers)
            handler = None if is_complete else self._handlers.get(number)
            try:
                if handler:
                    outputs = handler(policy.stream, *args)
                elif self._recurrent[number]:
                    outputs = call_layer(layer, *args, **kwargs)
                else:
                    with policy.paused():
                        outputs = call_layer(layer, *args, **kwargs)
            except (ValueError, tf.errors.OpError) as error:
                why = f"it cannot take so few steps: {first_line(error)}"
                raise streaming_error(layer, reason_against(layer, why)) from error
            if layer_outputs is not None:
                flat = tf.nest.flatten(outputs)
                layer_outputs.append([y for y in flat if tf.is_tensor(y)])
            return outputs

        return run_graph(self.model, inputs, call)

    def check(self, expected, chunks):
        """Raises `ValueError` for the first call whose outputs for a sequence in chunks
        differ from those for the whole sequence.

        Args:
            expected: list of the outputs of each call, arrays.
            chunks: list of these for each chunk.
        """
        for number, (call, axes) in enumerate(zip(self.calls, self.axes, strict=True)):
            if self._handlers.get(number) is skip_padding:
                continue
            for output, axis in enumerate(axes):
                parts = [chunk[number][output] for chunk in chunks]
                y = parts[-1] if axis is None else np.concatenate(parts, axis)
                if not is_close(y, expected[number][output]):
                    why = "what it returns depends on other steps than the call's"
                    raise streaming_error(call.layer, reason_against(call.layer, why))

    def raise_without_states(self):
        """Raises the `ValueError` for a model without states."""
        for call, runs_along in zip(self.calls, self._recurrent, strict=True):
            if runs_along:
                raise streaming_error(call.layer, "it does not expose its states")
        inside = [
            c.layer for c in self.calls if any(map(is_recurrent, layers_of(c.layer)))
        ]
        if inside:
            raise streaming_error(
                inside[0], "its recurrent layers run along another axis"
            )
        raise ValueError(f"`{self.model.name}` has no recurrent layer to stream")

    def initial_state_source(self, state) -> tuple[str, str]:
        """Returns the names of a layer and of what computes its initial state.

        Args:
            state: str, the name of one of its states.
        """
        owners = [c for c in self.calls if state.startswith(f"{c.layer.name}_")]
        if not owners:
            return self.model.name, state
        call = max(owners, key=lambda call: len(call.layer.name))
        wanted, sources = list(call.initial_state), []
        for each in reversed(self.calls):
            if any(x is y for x in each.outputs for y in wanted):
                sources.append(each)
                wanted += each.inputs
        recurrent = [each for each in sources if each.is_recurrent]
        source = [*recurrent, *sources, call][0]
        return call.layer.name, source.layer.name


def changed_axis(short, long):
    """Returns the first axis whose size differs between two tensors, or None."""
    pairs = zip(short.shape, long.shape, strict=True)
    return next((axis for axis, (n, m) in enumerate(pairs) if n != m), None)


def is_close(got, expected) -> bool:
    """Returns whether two arrays differ only by rounding."""
    if got.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fiub":
        return np.array_equal(got, expected)
    got, expected = got.astype("float64"), expected.astype("float64")
    difference = np.abs(got - expected).max(initial=0)
    # NaNs are left to the verification of the file.
    return not difference > TOLERANCE * max(np.abs(expected).max(initial=0), TOLERANCE)


def check_direction(layer):
    """Raises `ValueError` for a layer that runs backwards."""
    for each in layers_of(layer):
        if hasattr(each, "backward_layer") or getattr(each, "go_backwards", False):
            raise ValueError(
                f"`{each.name}` cannot stream: it begins with the last step, so it "
                "needs the whole sequence"
            )


def first_line(error) -> str:
    """Returns the message of an error without the arguments that Keras lists."""
    bold = re.search(r"\x1b\[1m(.*?)\x1b\[0m", str(error), re.DOTALL)
    return (bold[1] if bold else str(error)).strip().split("\n")[0]


def streaming_error(layer, why):
    """Returns the error for a layer that cannot stream."""
    return ValueError(f"`{layer.name}` cannot stream: {why}{HINT}")


def input_dependencies(function, specs) -> tuple[dict[str, set], list]:
    """Finds the inputs that each output of a function depends on.

    Args:
        function: takes and returns tensors by name.
        specs: list of `tf.TensorSpec`, of the inputs.

    Returns:
        dict of sets of input names by output name, and list of `tf.TensorSpec` of the
        outputs.
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
