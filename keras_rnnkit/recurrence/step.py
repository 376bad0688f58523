"""One step of a cell, as the compiled loop sees it."""

import copy
from dataclasses import dataclass
from types import SimpleNamespace

import tensorflow as tf

nest = tf.nest


@dataclass(frozen=True)
class Facts:
    """What a look at a cell's parts tells.

    Attributes:
        pure: the parts compute from their arguments alone: they read no variable and
            draw nothing at random.
        sums: `pointwise` sees z and r in their sum alone, which then stands for both.
        output: which of the new states the output is, or `None`.
        weighs: `pointwise` has weights of its own.
    """

    pure: bool
    sums: bool
    output: int | None
    weighs: bool


def look(cell, x, states, k, row_k, noise) -> Facts:
    """Traces one step of one row and looks at the graph.

    Args:
        cell: has `project`, `recur` and `pointwise`; see `cells.SplitCell`.
        x, noise: `(rows, time, ...)`.
        states, row_k: `(rows, ...)`.
        k: dict of what all rows share.
    """
    found = {}

    def trace(x, states, k, row_k, noise):
        weights = [w for w in nest.flatten([k, row_k]) if differentiable(w)]
        k = SimpleNamespace(**k | row_k)
        z = tf.identity(cell.project(x, k))
        r = tf.identity(cell.recur(states, k))
        with tf.GradientTape() as tape:
            tape.watch(weights)
            output, new_states = cell.pointwise(z, r, states, k, noise or None)
        found["sums"] = _are_only_summed(z, r)
        same = [i for i, state in enumerate(new_states) if state is output]
        found["output"] = same[0] if same else None
        by_weights = tape.gradient([output, *new_states], weights)
        found["weighs"] = any(gradient is not None for gradient in by_weights)

    def of_row(skip):
        def spec(value):
            if not tf.is_tensor(value):
                return value
            return tf.TensorSpec([1, *value.shape[skip:]], value.dtype)

        return spec

    graph = tf.function(trace, autograph=False).get_concrete_function(
        nest.map_structure(of_row(2), x),
        nest.map_structure(of_row(1), states),
        k,
        nest.map_structure(of_row(1), row_k),
        nest.map_structure(of_row(2), noise),
    )
    stateful = [op for op in graph.graph.get_operations() if op.op_def.is_stateful]
    return Facts(pure=not graph.captured_inputs and not stateful, **found)


class Step:
    """A cell's step over given constants.

    Args:
        cell: see `look`.
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


def gradients(function, sources, d_targets):
    """Gradients of what `function()` returns by `sources`, all of them nests."""
    with tf.GradientTape() as tape:
        tape.watch(nest.flatten(sources))
        targets = nest.flatten(function())
    return tape.gradient(
        targets,
        sources,
        output_gradients=nest.flatten(d_targets),
        unconnected_gradients="zero",
    )


def differentiable(value) -> bool:
    return tf.is_tensor(value) and value.dtype.is_floating


def _are_only_summed(z, r) -> bool:
    users = [*z.consumers(), *r.consumers()]
    return (
        z.shape == r.shape
        and len(users) == 2
        and users[0] is users[1]
        and users[0].type in ("Add", "AddV2")
    )


def _where(mask, new, old):
    return tf.where(tf.reshape(mask, [-1] + [1] * (new.shape.rank - 1)), new, old)
