"""One step of a cell, as the compiled loop sees it."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import tensorflow as tf

from keras_rnnkit.internals import compiles
from keras_rnnkit.recurrence.keep import with_kept

nest = tf.nest

ANY_SIZE = 8  # stands for a size that the graph does not know, as of a memory


@dataclass(frozen=True)
class Facts:
    """What a look at a cell's parts tells.

    Attributes:
        compiles: XLA can compile the parts, as they compute from their arguments alone,
            on states of floats: they read no variable and draw nothing at random.
        sums: `pointwise` sees z and r in their sum alone, which then stands for both.
        output: which of the new states the output is, or `None`.
        weights: names of what `pointwise` sees of `k`, with a gradient.
        states: type and shape of each state, of one row.
        kept: the same of what `pointwise` has the loop keep.
    """

    compiles: bool
    sums: bool
    output: int | None
    weights: frozenset[str]
    states: list
    kept: list


def specs_of_step(x, states, k, row_k, noise) -> list:
    """The types and shapes that one step of one row has.

    Args:
        x, noise: `(rows, time, ...)`.
        states, row_k: `(rows, ...)`.
        k: dict of what all rows share.
    """

    def specs(structure, shape):
        def spec(value):
            if not tf.is_tensor(value):
                return value
            sizes = [ANY_SIZE if n is None else n for n in shape(value.shape)]
            return tf.TensorSpec(sizes, value.dtype)

        return nest.map_structure(spec, structure)

    return [
        specs(x, lambda shape: [1, *shape[2:]]),
        specs(states, lambda shape: [1, *shape[1:]]),
        specs(k, lambda shape: shape),
        specs(row_k, lambda shape: [1, *shape[1:]]),
        specs(noise, lambda shape: [1, *shape[2:]]),
    ]


def look(cell, specs) -> Facts:
    """Traces a step of a cell and its gradients, and looks at the graph.

    Args:
        cell: has `project`, `recur` and `pointwise`; see `cells.SplitCell`.
        specs: as `specs_of_step` gives them.
    """
    found = {}

    def trace(x, states, k, row_k, noise):
        all_k = k | row_k
        weights = nest.flatten(floats_of(all_k))
        sources = [x, *filter(differentiable, states), *weights]
        k = SimpleNamespace(**all_k)
        with tf.GradientTape() as whole:
            whole.watch(sources)
            z = tf.identity(cell.project(x, k))
            r = tf.identity(cell.recur(states, k))
            with tf.GradientTape() as pointwise:
                pointwise.watch(weights)
                (output, new_states), kept = with_kept(
                    lambda: cell.pointwise(z, r, states, k, noise or None)
                )
            found["kept"] = [tf.TensorSpec(v.shape, v.dtype) for v in kept]
            found["sums"] = are_only_summed(z, r)
            same = [i for i, state in enumerate(new_states) if state is output]
            found["output"] = same[0] if same else None
            by_name = pointwise.gradient([output, *new_states], floats_of(all_k))
            found["weights"] = frozenset(
                name for name, d in by_name.items() if any(g is not None for g in d)
            )
        zero = tf.UnconnectedGradients.ZERO
        return whole.gradient(
            [output, *new_states], sources, unconnected_gradients=zero
        )

    def of_tensors(*tensors):
        tensors = iter(tensors)
        return trace(
            *nest.map_structure(
                lambda s: next(tensors) if isinstance(s, tf.TensorSpec) else s, specs
            )
        )

    tensors = [spec for spec in nest.flatten(specs) if isinstance(spec, tf.TensorSpec)]
    function = tf.function(of_tensors, autograph=False, jit_compile=True)
    graph = function.get_concrete_function(*tensors)
    can_compile = (
        not graph.captured_inputs
        and not any(op.op_def.is_stateful for op in graph.graph.get_operations())
        and all(spec.dtype.is_floating for spec in specs[1])
        and compiles(function, tensors)
    )
    return Facts(compiles=can_compile, states=specs[1], **found)


class Step:
    """A cell's step over given constants.

    Args:
        cell: has `project`, `recur` and `pointwise`.
        facts: `Facts` of the cell.
        k: dict.
        zero_output_for_mask: put out zeros where masked, not the output before.
    """

    def __init__(self, cell, facts, k, zero_output_for_mask):
        self.cell = cell
        self.facts = facts
        self.k = SimpleNamespace(**k)
        self.zero_output_for_mask = zero_output_for_mask

    def using(self, k):
        """The same step over other constants."""
        other = copy.copy(self)
        other.k = SimpleNamespace(**k)
        return other

    def zero_states(self, rows):
        return _zeros(rows, self.facts.states)

    def nothing_kept(self, rows):
        return _zeros(rows, self.facts.kept)

    def project(self, x):
        return self.cell.project(x, self.k)

    def recur(self, states):
        return self.cell.recur(states, self.k)

    def join(self, z, r):
        """What `advance` takes of z and r."""
        return [z + r] if self.facts.sums else [z, r]

    def advance(self, joined, states, held, noise, mask):
        """Returns the states after the step, and `held`."""
        z, r = joined if len(joined) == 2 else (joined[0], tf.zeros_like(joined[0]))
        output, new_states = self.cell.pointwise(z, r, states, self.k, noise or None)
        if mask:
            (mask,) = mask
            old = tf.zeros_like(output) if self.zero_output_for_mask else held[0]
            output = _where(mask, output, old)
            pairs = zip(new_states, states, strict=True)
            new_states = [_where(mask, new, old) for new, old in pairs]
        return list(new_states), [output] if held else []

    # The output is one of the states, or else is carried from step to step beside them,
    # in the list `held`; under a mask too, as before the first step it is zero.

    def held_at_first(self, joined, states, noise, mask):
        if self.facts.output is not None and not mask:
            return []
        z, r = joined if len(joined) == 2 else (joined[0], tf.zeros_like(joined[0]))
        output, _ = self.cell.pointwise(z, r, states, self.k, noise or None)
        return [tf.zeros_like(output)]

    def output_of(self, states, held):
        return held[0] if held else states[self.facts.output]

    def add_to_output(self, gradient, d_states, d_held):
        """Adds a gradient by the output to those by what the output is."""
        if d_held:
            return d_states, [d_held[0] + gradient]
        d_states = list(d_states)
        d_states[self.facts.output] = d_states[self.facts.output] + gradient
        return d_states, d_held


def differentiable(value) -> bool:
    return tf.is_tensor(value) and value.dtype.is_floating


def wide(value):
    """In float32 where it is narrower."""
    return tf.cast(value, tf.float32) if value.dtype.size < 4 else value


def floats_of(k: dict) -> dict[str, list]:
    """What is differentiable of each value."""
    return {n: [w for w in nest.flatten(v) if differentiable(w)] for n, v in k.items()}


def are_only_summed(z, r) -> bool:
    """Whether a graph uses two tensors in their sum and in no other way."""
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


def _where(mask, new, old):
    return tf.where(tf.reshape(mask, [-1] + [1] * (new.shape.rank - 1)), new, old)
