"""The loop and its gradient, as functions that XLA compiles. They know no cell."""

import tensorflow as tf

from keras_rnnkit.recurrence.gradient import gradients
from keras_rnnkit.recurrence.keep import from_kept, with_kept
from keras_rnnkit.recurrence.loop import stack
from keras_rnnkit.recurrence.often import both_ways
from keras_rnnkit.recurrence.step import (
    Step,
    differentiable,
    floats_of,
    wide,
)

nest = tf.nest

# Inputs are projected some steps at a time. XLA spreads a larger product over all cores
# itself, where the shards then get in each other's way.
CHUNK_BYTES = 1 << 18
FEWEST_STEPS = 4


class CompiledLoop:
    """A step that is told apart into its parts, on a compiled loop.

    Autodiff of a loop keeps every intermediate of every step, and adds up the gradient
    by a weight step by step. Here the forward loop keeps states and products alone, and
    what `pointwise` has it `keep`. The backward loop adds up the gradients by what
    `pointwise` sees of k, be it as large as a memory; those by the weights of products
    follow it, all steps in one product:

        z = project(x, k)    rₜ = recur(sₜ₋₁, k)    sₜ = pointwise(zₜ, rₜ, sₜ₋₁, k)

        dzₜ, drₜ, dsₜ₋₁ = dsₜ ∂pointwise        dk += dsₜ ∂pointwise/∂k
        dsₜ₋₁ += drₜ ∂recur/∂sₜ₋₁
        dx, dk += Σₜ dzₜ ∂project + drₜ ∂recur/∂k

    All arguments are those of some rows of a batch: `x`, `noise` and `mask` are
    `(rows, time, ...)`, `states` and `row_k` are `(rows, ...)`; `k` is shared.

    Args:
        cell: has `project`, `recur` and `pointwise`; see `cells.SplitCell`.
        facts: `Facts` of the cell.
        frozen: names of what no gradient is wanted by, of `k`.
        reverse: run from the last step to the first. Outputs stand in the order in
            which they were computed.
        return_sequences: return the outputs of all steps, not the last.
        zero_output_for_mask: put out zeros where masked, not the output before.
    """

    def __init__(
        self, cell, facts, *, frozen, reverse, return_sequences, zero_output_for_mask
    ):
        self.step = Step(cell, facts, {}, zero_output_for_mask)
        self.frozen = frozen
        self.reverse = reverse
        self.return_sequences = return_sequences
        self.ordinary, self.compiled = both_ways(
            self._forward, self._backward, self._to_input
        )
        self.forward, self.backward, self.to_input = self.compiled

    def _forward(self, x, states, k, row_k, noise, mask, steps, one_row, save):
        """Runs the steps.

        Args:
            states: list of tensors; empty for zeros.
            k, row_k: dicts.
            noise: list of tensors.
            mask: list of one tensor, or of none.
            steps: int scalar, how many are run; `None` for all.
            one_row: bool, whether the batch is a single row; `None` for what the graph
                does not know, but XLA will.
            save: bool, whether to return what `backward` needs.

        Returns:
            `(output, states, saved)`.
        """
        x, given = self._in_order([x, [noise, mask]])
        length = _length(x)
        steps = length if steps is None else steps
        step = self.step.using(k | row_k)
        states = states or step.zero_states(tf.shape(x)[0])
        z_0 = step.project(_of_step(0, x))
        chunk = CHUNK_BYTES // (z_0.dtype.size * tf.maximum(tf.size(z_0), 1))
        chunk = tf.clip_by_value(chunk, tf.minimum(FEWEST_STEPS, length), length)
        over_chunk = self._over(chunk, k, row_k)

        def projected(start):
            sizes = tf.concat([tf.shape(x)[:1], [chunk], tf.shape(x)[2:]], 0)
            some = tf.slice(x, [0, start] + [0] * len(x.shape[2:]), sizes)
            some = tf.ensure_shape(some, [x.shape[0], None, *x.shape[2:]])
            z = over_chunk.project(_flat(_swapped(some)))
            z = tf.reshape(z, tf.concat([[chunk], tf.shape(z_0)], 0))
            return tf.ensure_shape(z, [None, *z_0.shape])

        given_0 = _of_step(0, given)
        joined = step.join(z_0, step.recur(states))
        both = Packing(joined)
        held = step.held_at_first(joined, states, *given_0)
        output = step.output_of(states, held)
        writes = self.return_sequences and (held or not save)
        outputs = _arrays([output], length) if writes else []
        at_first = [states, joined, step.nothing_kept(tf.shape(x)[0])] if save else []
        flat = nest.flatten(at_first)
        saved = _write(_arrays(flat, length + 1), 0, flat)
        joined = both.pack(joined)

        if one_row is None:
            one_row = tf.equal(tf.shape(x)[0], 1)
        if one_row is not False:  # So little is done best by one thread, part by part.
            x = _after(joined[0], x, one_row)

        def run_chunk(first, *carried):
            start = tf.minimum(first + 1, length - chunk)
            z = projected(start)

            # What a step reads is carried to it beside the states: XLA would fuse the
            # read into the arithmetic that follows, and no longer vectorize that.
            def run_step(t, joined, given_t, states, held, outputs, saved):
                joined = both.unpack(joined)
                (states, held), kept = with_kept(
                    lambda: step.advance(joined, states, held, *given_t)
                )
                if writes:
                    outputs = _write(outputs, t, [step.output_of(states, held)])
                after = tf.minimum(t + 1, length - 1)
                joined = step.join(_at(after - start, z), step.recur(states))
                if save:
                    saved = _write(saved, t + 1, [*states, *joined, *kept])
                joined = both.pack(joined)
                given_t = _of_step(after, given)
                return t + 1, joined, given_t, states, held, outputs, saved

            end = tf.minimum(first + chunk, steps)
            return tf.while_loop(lambda t, *_: t < end, run_step, (first, *carried))

        _, _, _, states, held, outputs, saved = tf.while_loop(
            lambda t, *_: t < steps,
            run_chunk,
            (0, joined, given_0, list(states), held, outputs, saved),
        )
        saved = nest.pack_sequence_as(at_first, [array.stack() for array in saved])
        if writes:
            output = _swapped(outputs[0].stack())
        elif self.return_sequences:
            output = _swapped(saved[0][step.facts.output][1:])
        else:
            output = step.output_of(states, held)
        return output, states, saved

    def _backward(
        self, x, k, row_k, noise, mask, steps, one_row, saved, d_output, d_states
    ):
        """Takes gradients back through the steps.

        Args:
            saved: what `forward` returned: states and products before each step and
                after the last, and what each step has kept, one place later.
            d_output, d_states: gradients by the output and the last states.

        Returns:
            Gradients by z, for `to_input`, by the first states, and by the
            differentiable tensors of `[k, row_k]` that are not frozen.
        """
        x, given = self._in_order([x, [noise, mask]])
        length = _length(x)
        before, joined, kept = saved
        ran = length if steps is None else steps

        free = {name: w for name, w in k.items() if name not in self.frozen}
        seen = self.step.facts.weights & (free | row_k).keys()

        def seen_of(k):
            return {n: w for n, w in floats_of(k).items() if n in seen}

        d_seen = nest.map_structure(
            lambda w: tf.zeros_like(wide(w)), seen_of(k | row_k)
        )
        step = self.step.using(k | row_k)
        joined_0 = _at(0, joined)
        held = step.held_at_first(joined_0, _at(0, before), *_of_step(0, given))
        d_held = [tf.zeros_like(output) for output in held]
        if not self.return_sequences:
            d_states, d_held = step.add_to_output(d_output, d_states, d_held)
        matrices = [] if one_row else [n for n, w in k.items() if _is_matrix(w)]
        turned = k | {name: tf.transpose(k[name]) for name in matrices}

        def body(t, d_states, d_held, d_joined, d_seen):
            # Turned back within the loop, a matrix meets the gradient untransposed,
            # which is faster for several rows.
            back = {name: tf.transpose(turned[name]) for name in matrices}
            k = turned | back | row_k
            step = self.step.using(k)
            joined_t, states = _at(t, [joined, before])
            kept_t, given_t = _at(t + 1, kept), _of_step(t, given)
            if self.return_sequences:
                d_output_t = _of_step(t, d_output)
                d_states, d_held = step.add_to_output(d_output_t, d_states, d_held)
            own, d_states, d_held, d_k = gradients(
                lambda: from_kept(
                    lambda: step.advance(joined_t, states, held, *given_t), kept_t
                ),
                [joined_t, states, held, seen_of(k)],
                [d_states, d_held],
            )
            d_seen = nest.map_structure(lambda d, g: d + wide(g), d_seen, d_k)
            through = gradients(lambda: step.recur(states), states, own[-1])
            d_states = [a + b for a, b in zip(d_states, through, strict=True)]
            return t - 1, d_states, d_held, _write(d_joined, t, own), d_seen

        d_joined = _arrays(joined_0, length)
        _, d_first, _, d_joined, d_seen = tf.while_loop(
            lambda t, *_: t >= 0,
            body,
            (ran - 1, list(d_states), d_held, d_joined, d_seen),
        )
        d_joined = [
            _flat(stack(array, length, like))
            for array, like in zip(d_joined, joined_0, strict=True)
        ]
        x, before = _swapped(x), [v[:length] for v in before]
        if steps is not None:  # A step not run repeats the last, with a gradient of 0.
            run = tf.minimum(tf.range(length), tf.maximum(steps - 1, 0))
            x, before = _at(run, [x, before])
        x, before = nest.map_structure(_flat, [x, before])

        def all_steps():
            step = self._over(length, k, row_k)
            return [step.project(x), step.recur(before)]

        weights = [floats_of(free), floats_of(row_k)]
        d_weights = gradients(all_steps, weights, [d_joined[0], d_joined[-1]])
        for own in d_weights:
            for name in seen & own.keys():
                both = zip(own[name], d_seen[name], strict=True)
                own[name] = [a + tf.cast(b, a.dtype) for a, b in both]
        return d_joined[0], d_first, nest.flatten(d_weights)

    def _to_input(self, x, k, row_k, d_z):
        """Returns the gradient by `x`: apart from `backward`, as the first layer of a
        model has no use for it, and TensorFlow then leaves it out."""
        x = _swapped(self._in_order(x))
        step = self._over(tf.shape(x)[0], k, row_k)
        d_x = gradients(lambda: step.project(_flat(x)), x, d_z)
        return self._in_order(_swapped(d_x))

    def _in_order(self, tensors):
        """The first step to run first; its own inverse."""
        if not self.reverse:
            return tensors
        return nest.map_structure(lambda v: tf.reverse(v, [1]), tensors)

    def _over(self, length, k, row_k):
        """The step over several steps at once, `(time * rows, ...)`."""

        def repeat(value):
            if not tf.is_tensor(value):
                return value
            return tf.tile(value, [length] + [1] * (value.shape.rank - 1))

        return self.step.using(k | nest.map_structure(repeat, row_k))


class Packing:
    """Puts tensors side by side as one, and takes it apart.

    XLA runs the body of a loop in one thread, without overhead, if it has few parts;
    each tensor that is carried or written is a part.

    Args:
        like: tensors `(rows, width)`. Others, or some of another type, stay apart.
    """

    def __init__(self, like):
        self.widths = [tensor.shape[-1] for tensor in like]
        types = {(tensor.dtype, tensor.shape.rank) for tensor in like}
        self.joins = len(like) > 1 and len(types) == 1 and like[0].shape.rank == 2

    def pack(self, tensors):
        return [tf.concat(tensors, -1)] if self.joins else tensors

    def unpack(self, tensors):
        return tf.split(*tensors, self.widths, -1) if self.joins else tensors


def _after(first, tensor, condition):
    """Returns `tensor`, and has XLA compute what is made of it after `first`."""
    some = tf.reduce_sum(tf.reshape(first, [-1])[:1])  # there may be no rows
    nothing = tf.where(tf.math.is_nan(some) & condition, 0.0, -0.0)
    return tensor + tf.cast(nothing, tensor.dtype)


def _length(tensor):
    return tf.shape(tensor)[1] if tensor.shape[1] is None else tensor.shape[1]


# What comes in, `(rows, time, ...)`, is read as it lies.


def _of_step(t, tensors):
    return nest.map_structure(lambda tensor: tf.gather(tensor, t, axis=1), tensors)


# In between, a step lies in one piece: `(time, rows, ...)`.


def _at(t, tensors):
    return nest.map_structure(lambda tensor: tf.gather(tensor, t), tensors)


def _arrays(tensors, length):
    return [tf.TensorArray(v.dtype, length, element_shape=v.shape) for v in tensors]


def _write(arrays, t, tensors):
    return [a.write(t, tensor) for a, tensor in zip(arrays, tensors, strict=True)]


def _flat(tensor):
    """`(time, rows, ...)` to `(time * rows, ...)`."""
    return tf.reshape(tensor, [-1, *tensor.shape[2:]])


def _swapped(tensor):
    """Swaps time and rows."""
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])


def _is_matrix(value):
    return differentiable(value) and value.shape.rank == 2
