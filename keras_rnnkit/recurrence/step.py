"""One step of a cell, as the compiled loop runs it."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import tensorflow as tf

from keras_rnnkit.internals import compiles
from keras_rnnkit.recurrence.inputs import LoopInputs
from keras_rnnkit.recurrence.masks import where_mask
from keras_rnnkit.recurrence.residuals import with_residuals

nest = tf.nest

ANY_SIZE = 8  # in place of a size that the graph does not know, as of a memory


@dataclass(frozen=True)
class StepAnalysis:
    """What the traced parts of a cell show.

    Attributes:
        compiles: XLA can compile the parts: they compute from their arguments alone, on
            float states; they read no variable and draw no random numbers.
        sums: `pointwise` uses z and r only in their sum, so the loop saves just that.
        output: index of the new state that is also the output, or `None`.
        params: names of the parameters that `pointwise` has a gradient by.
        states: type and shape of each state, for one row.
        residuals: type and shape of each residual of `pointwise`, for one row.
    """

    compiles: bool
    sums: bool
    output: int | None
    params: frozenset[str]
    states: list
    residuals: list


def specs_of_step(inputs: LoopInputs) -> LoopInputs:
    """Returns the types and shapes of one step of one row; the mask is left out."""

    def specs(structure, shape):
        def spec(value):
            if not tf.is_tensor(value):
                return value
            sizes = [ANY_SIZE if n is None else n for n in shape(value.shape)]
            return tf.TensorSpec(sizes, value.dtype)

        return nest.map_structure(spec, structure)

    return LoopInputs(
        x=specs(inputs.x, lambda shape: [1, *shape[2:]]),
        states=specs(inputs.states, lambda shape: [1, *shape[1:]]),
        params=specs(inputs.params, lambda shape: shape),
        row_params=specs(inputs.row_params, lambda shape: [1, *shape[1:]]),
        noise=specs(inputs.noise, lambda shape: [1, *shape[2:]]),
        mask=[],
    )


def analyze_step(cell, specs: LoopInputs) -> StepAnalysis:
    """Traces a step of a cell with its gradients, and reads the graph.

    Args:
        cell: has `project`, `recur` and `pointwise`; see `cells.SplitCell`.
        specs: see `specs_of_step`.
    """
    found = {}

    def trace(inputs):
        x, states, noise = inputs.x, inputs.states, inputs.noise
        all_params = inputs.all_params
        weights = nest.flatten(floats_of(all_params))
        sources = [x, *filter(differentiable, states), *weights]
        params = SimpleNamespace(**all_params)
        with tf.GradientTape() as of_step:
            of_step.watch(sources)
            z = tf.identity(cell.project(x, params))
            r = tf.identity(cell.recur(states, params))
            with tf.GradientTape() as of_pointwise:
                of_pointwise.watch(weights)
                (output, new_states), residuals = with_residuals(
                    lambda: cell.pointwise(z, r, states, params, noise or None)
                )
            found["residuals"] = [tf.TensorSpec(v.shape, v.dtype) for v in residuals]
            found["sums"] = are_only_summed(z, r)
            same = [i for i, state in enumerate(new_states) if state is output]
            found["output"] = same[0] if same else None
            by_name = of_pointwise.gradient(
                [output, *new_states], floats_of(all_params)
            )
            found["params"] = frozenset(
                name for name, d in by_name.items() if any(g is not None for g in d)
            )
        zero = tf.UnconnectedGradients.ZERO
        return of_step.gradient(
            [output, *new_states], sources, unconnected_gradients=zero
        )

    def of_tensors(*tensors):
        tensors = iter(tensors)
        return trace(
            nest.map_structure(
                lambda s: next(tensors) if isinstance(s, tf.TensorSpec) else s, specs
            )
        )

    tensors = [spec for spec in nest.flatten(specs) if isinstance(spec, tf.TensorSpec)]
    function = tf.function(of_tensors, autograph=False, jit_compile=True)
    graph = function.get_concrete_function(*tensors)
    can_compile = (
        not graph.captured_inputs
        and not any(op.op_def.is_stateful for op in graph.graph.get_operations())
        and all(spec.dtype.is_floating for spec in specs.states)
        and compiles(function, tensors)
    )
    return StepAnalysis(compiles=can_compile, states=specs.states, **found)


class Step:
    """A cell's step with given parameters.

    The output is one of the states, or the loop carries it beside them, in the list
    `previous_output`. Under a mask it does so too, as the output before the first step
    is zero.

    Args:
        cell: has `project`, `recur` and `pointwise`.
        analysis: `StepAnalysis` of the cell.
        params: dict.
        zero_output_for_mask: output zeros where masked, not the previous output.
    """

    def __init__(self, cell, analysis, params, zero_output_for_mask):
        self.cell = cell
        self.analysis = analysis
        self.params = SimpleNamespace(**params)
        self.zero_output_for_mask = zero_output_for_mask

    def using(self, params):
        """The same step with other parameters."""
        other = copy.copy(self)
        other.params = SimpleNamespace(**params)
        return other

    def zero_states(self, rows):
        return _zeros(rows, self.analysis.states)

    def zero_residuals(self, rows):
        return _zeros(rows, self.analysis.residuals)

    def project(self, x):
        return self.cell.project(x, self.params)

    def recur(self, states):
        return self.cell.recur(states, self.params)

    def preactivations(self, z, r):
        """What the loop saves of z and r: their sum if `pointwise` uses no more."""
        return [z + r] if self.analysis.sums else [z, r]

    def advance(self, preactivations, states, previous_output, noise, mask):
        """Returns the states after the step, and the next `previous_output`."""
        output, new_states = self._pointwise(preactivations, states, noise)
        if mask:
            (mask,) = mask
            zero = self.zero_output_for_mask
            old = tf.zeros_like(output) if zero else previous_output[0]
            output = where_mask(mask, output, old)
            pairs = zip(new_states, states, strict=True)
            new_states = [where_mask(mask, new, old) for new, old in pairs]
        return list(new_states), [output] if previous_output else []

    def first_previous_output(self, preactivations, states, noise, mask):
        """Returns zeros like the output, or an empty list where a state is it."""
        if self.analysis.output is not None and not mask:
            return []
        output, _ = self._pointwise(preactivations, states, noise)
        return [tf.zeros_like(output)]

    def output_of(self, states, previous_output):
        return previous_output[0] if previous_output else states[self.analysis.output]

    def add_to_output(self, gradient, d_states, d_output):
        """Adds a gradient by the output to that by the state or the tensor it is."""
        if d_output:
            return d_states, [d_output[0] + gradient]
        d_states = list(d_states)
        d_states[self.analysis.output] = d_states[self.analysis.output] + gradient
        return d_states, d_output

    def _pointwise(self, preactivations, states, noise):
        z, *r = preactivations
        (r,) = r or [tf.zeros_like(z)]
        return self.cell.pointwise(z, r, states, self.params, noise or None)


def differentiable(value) -> bool:
    return tf.is_tensor(value) and value.dtype.is_floating


def wide(value):
    """Casts narrower floats to float32."""
    return tf.cast(value, tf.float32) if value.dtype.size < 4 else value


def floats_of(params: dict) -> dict[str, list]:
    """Returns the differentiable tensors of each parameter."""
    return {
        name: [tensor for tensor in nest.flatten(value) if differentiable(tensor)]
        for name, value in params.items()
    }


def are_only_summed(z, r) -> bool:
    """Whether a graph uses two tensors only in their sum."""
    users = [*z.consumers(), *r.consumers()]
    return (
        z.shape == r.shape
        and len(users) == 2
        and users[0] is users[1]
        and users[0].type in ("Add", "AddV2")
        and {id(v) for v in users[0].inputs} == {id(z), id(r)}
    )


def _zeros(rows, specs):
    return [tf.zeros([rows, *s.shape[1:]], s.dtype) for s in specs]
