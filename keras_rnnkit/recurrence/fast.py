"""The compiled loop over a whole batch: a shard of it for each core, any length."""

import tensorflow as tf

from keras_rnnkit.internals import in_xla
from keras_rnnkit.recurrence.compiled import CompiledLoop
from keras_rnnkit.recurrence.gradient import Gradients
from keras_rnnkit.recurrence.often import elements, if_often, is_often
from keras_rnnkit.recurrence.segments import in_segments, segments_of
from keras_rnnkit.recurrence.shards import (
    added,
    by_batch,
    joined,
    pad,
    padded_length,
    shard_count,
    split,
)
from keras_rnnkit.recurrence.step import differentiable

nest = tf.nest


class FastLoop:
    """Runs a split cell on compiled loops, with gradients of any order.

    The batch is split into one shard a core, which TensorFlow runs side by side. XLA
    compiles for each shape that it meets: where the number of steps is not known when
    the graph is made, the sequences are padded to one of a few lengths, and the loop
    runs as many steps as there are. Until a shape has been met often, the same
    operations run as they are, for all rows at once.

    Args:
        cell: has `project`, `recur` and `pointwise`; see `cells.SplitCell`.
        facts: `Facts` of the cell, which has to compile.
        frozen, reverse, return_sequences, zero_output_for_mask: as for `CompiledLoop`.
    """

    def __init__(self, cell, facts, **settings):
        self._cell = cell
        self._compiled = CompiledLoop(cell, facts, **settings)
        self._gradients = Gradients()
        self._graph_forward = tf.function(self._forward, autograph=False)
        self._graph_backward = tf.function(self._backward, autograph=False)

    def __call__(self, x, states, k, row_k, noise, mask, *, save, at_once, reference):
        """Runs the steps.

        Args:
            x: `(batch, time, ...)`, as `noise` and `mask`.
            states: list of `(batch, ...)`.
            k: dict of what all rows share.
            row_k: dict of what each row has its own of, `(batch, ...)`.
            noise: list of tensors.
            mask: list of one tensor, or of none.
            save: bool, whether gradients will be asked for. If not, they can be had
                all the same, and cost the forward loop once more.
            at_once: bool, whether to compile at the first call; else see `is_often`.
            reference: callable `(x, states, k, row_k) -> (output, states)` that does
                the same in ordinary ops, for derivatives of the gradients.

        Returns:
            `(output, states)`.
        """
        shards, often = shard_count(), None
        if not at_once:
            often = is_often(x, elements(k) + elements(row_k, 1), row_k, save)
        forward, backward = self._forward, self._backward
        # Side by side, the shards run in a graph alone. What may run in two ways takes
        # long to trace: once for all graphs, also those made for one batch size. Those
        # made for one shape keep it, as the loop is the faster for it.
        hides = often is not None and x.shape[0] is not None and x.shape[1] is None
        if tf.executing_eagerly() or often is not None:
            forward, backward = self._graph_forward, self._graph_backward
        shaped = self._without_sizes if hides else lambda *values: values
        from_zeros = all(map(is_known_zero, states))
        fixed = {name: k[name] for name in self._compiled.frozen if name in k}
        free = {name: value for name, value in k.items() if name not in fixed}
        arguments = [x, list(states), free, row_k]
        given = [noise, mask, fixed]
        sources = [v for v in nest.flatten(arguments) if differentiable(v)]

        def with_sources(values):
            values = iter(values)
            return nest.map_structure(
                lambda v: next(values) if differentiable(v) else v, arguments
            )

        def run(*values):
            output, states, saved = forward(
                often, *shaped(with_sources(values), given), shards, save, from_zeros
            )
            return (output, *states), saved

        def run_back(values, saved, d_results):
            arguments = shaped(with_sources(values), given, d_results)
            return backward(often, *arguments, shards, saved)

        def run_reference(*values):
            x, states, free, row_k = with_sources(values)
            return reference(x, states, free | fixed, row_k)

        loop = self._gradients.of_any_order(run, run_back, run_reference)
        output, *last = loop(*sources)
        steps = x.shape[1:2] if self._compiled.return_sequences else []
        output.set_shape([x.shape[0], *steps, *output.shape[len(steps) + 1 :]])
        for after, before in zip(last, states, strict=True):
            after.set_shape(before.shape)
        if x.shape[1] is None and not self._compiled.return_sequences:
            output = tf.where(tf.shape(x)[1] > 0, output, tf.zeros_like(output))
        return output, last

    def _without_sizes(self, arguments, given, d_results=None):
        """The same values, of which the graph no longer knows batch and steps."""
        (x, states, k, row_k), (noise, mask, fixed) = arguments, given
        x, noise, mask = without_sizes([x, noise, mask], 2)
        states, row_k = without_sizes([states, row_k], 1)
        values = [x, states, k, row_k], [noise, mask, fixed]
        if d_results is None:
            return values
        d_output, *d_states = d_results
        d_output = without_sizes(d_output, 2 if self._compiled.return_sequences else 1)
        return *values, [d_output, *without_sizes(d_states, 1)]

    def _forward(self, often, arguments, given, count, save, from_zeros):
        (x, states, k, row_k), (noise, mask, fixed) = arguments, given
        plan = None
        if not (save or noise or mask or row_k or self._compiled.reverse or in_xla()):
            plan = segments_of(self._cell, x, states)
        if plan is None:
            return self._forward_whole(often, arguments, given, count, save, from_zeros)

        def forward(x, states, mask):
            arguments, given = [x, states, k, row_k], [noise, mask, fixed]
            return self._forward_whole(often, arguments, given, count, False, False)[:2]

        sequences = self._compiled.return_sequences
        met, *results = in_segments(forward, x, states, *plan, sequences)
        results = tf.cond(met, lambda: results, lambda: list(forward(x, states, [])))
        return *results, [[]] * count

    def _forward_whole(self, often, arguments, given, count, save, from_zeros):
        (x, states, k, row_k), (noise, mask, fixed) = arguments, given
        k = k | fixed
        if from_zeros:  # XLA makes them itself, and knows them when it compiles.
            states = []
        steps, extra, (x, noise, mask) = pad_steps(
            [x, noise, mask], self._compiled.reverse
        )

        values = [x, states, row_k, noise, mask]

        def run(values, one_row, functions=self._compiled.compiled):
            x, states, row_k, noise, mask = values
            one_row = None if x.shape[0] is None else one_row
            return functions[0](x, states, k, row_k, noise, mask, steps, one_row, save)

        def whole(*how):
            output, last, saved = run(values, *how)
            none = nest.map_structure(lambda v: v[:, :0], saved)
            return output, last, [saved] + [none] * (count - 1)

        def sharded():
            shards = split(values, count)
            outputs, lasts, saved = zip(*[run(s, False) for s in shards], strict=True)
            output, last = joined(zip(outputs, lasts, strict=True), x)
            return output, last, list(saved)

        output, last, saved = if_often(
            often,
            lambda: by_batch(x, count, whole, sharded),
            lambda: whole(False, self._compiled.ordinary),
        )
        if extra is not None and self._compiled.return_sequences:
            output = output[:, :steps]
        return output, last, saved

    def _backward(self, often, arguments, given, d_results, count, saved):
        (x, states, k, row_k), (noise, mask, fixed) = arguments, given
        d_output, *d_states = d_results
        steps, extra, (x, noise, mask) = pad_steps(
            [x, noise, mask], self._compiled.reverse
        )
        if extra is not None and self._compiled.return_sequences:
            d_output = pad(d_output, 1, [0, extra])
        shared, k = sum(map(differentiable, nest.flatten(k))), k | fixed

        def run(values, d_results, saved, one_row, functions=self._compiled.compiled):
            forward, backward, to_input = functions
            x, states, row_k, noise, mask = values
            d_output, d_states = d_results
            if not nest.flatten(saved):
                one = None if x.shape[0] is None else one_row
                _, _, saved = forward(
                    x, states, k, row_k, noise, mask, steps, one, True
                )
            saved = of_rows(saved, x.shape[0])
            d_z, d_states, d_weights = backward(
                x, k, row_k, noise, mask, steps, one_row, saved, d_output, d_states
            )
            d_x = to_input(x, k, row_k, d_z)
            return [d_x, d_states, d_weights[shared:]], d_weights[:shared]

        values, d_results = [x, states, row_k, noise, mask], [d_output, d_states]

        def whole(*how):
            return run(values, d_results, saved[0], *how)

        def sharded():
            shards = zip(
                split(values, count),
                split(d_results, count, fill="zeros"),
                saved,
                strict=True,
            )
            by_rows, by_k = zip(*[run(*s, False) for s in shards], strict=True)
            return joined(by_rows, x), added(by_k)

        (d_x, d_states, d_row_k), d_k = if_often(
            often,
            lambda: by_batch(x, count, whole, sharded),
            lambda: whole(False, self._compiled.ordinary),
        )
        if extra is not None:
            d_x = d_x[:, extra:] if self._compiled.reverse else d_x[:, :steps]
        return [d_x, *d_states, *d_k, *d_row_k]


def pad_steps(tensors, front=False):
    """Pads sequences of a number of steps that the graph does not know to one of a few.

    Args:
        tensors: nest of `(batch, time, ...)`, the first of which tells.
        front: bool, whether the steps are added in front.

    Returns:
        The number of steps, how many are added, and the padded tensors; `None` for the
        numbers where the graph knows the number of steps.
    """
    x = nest.flatten(tensors)[0]
    if x.shape[1] is not None:
        return None, None, tensors
    steps = tf.shape(x)[1]
    extra = padded_length(steps) - steps
    widths = [extra, 0] if front else [0, extra]
    return steps, extra, nest.map_structure(lambda v: pad(v, 1, widths), tensors)


def of_rows(saved, rows):
    """What a loop has saved, `(time, rows, ...)`, with a number of rows that the graph
    has lost sight of, as one of two ways has saved it."""

    def known(tensor):
        if tensor.shape[1] == rows:
            return tensor
        return tf.ensure_shape(tensor, [tensor.shape[0], rows, *tensor.shape[2:]])

    return nest.map_structure(known, saved)


def without_sizes(tensors, count):
    """The tensors, of which the graph no longer knows the first sizes."""

    def without(tensor):
        shape = [*[None] * count, *tensor.shape[count:]]
        return tf.raw_ops.PlaceholderWithDefault(input=tensor, shape=shape)

    return nest.map_structure(without, tensors)


def is_known_zero(tensor):
    """Whether the graph shows a tensor to be zero."""
    if not tf.is_symbolic_tensor(tensor):
        return False
    value = tensor.op.inputs[1] if tensor.op.type == "Fill" else tensor
    value = tf.get_static_value(value)
    return value is not None and not value.any()
