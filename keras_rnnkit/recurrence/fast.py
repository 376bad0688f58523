"""The compiled loop over a batch: one shard of it for each core, any length."""

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
    compiles for each shape that it meets: if the graph does not know the number of
    steps, the sequences are padded to one of a few lengths, and the loop runs only the
    steps there were. Until a shape has been met often, the same operations run in
    ordinary ops, for all rows at once.

    Args:
        cell: has `project`, `recur` and `pointwise`; see `cells.SplitCell`.
        analysis: `StepAnalysis` of the cell, which must compile.
        frozen, reverse, return_sequences, zero_output_for_mask: as for `CompiledLoop`.
    """

    def __init__(self, cell, analysis, **settings):
        self._cell = cell
        self._loop = CompiledLoop(cell, analysis, **settings)
        self._gradients = Gradients()
        self._graph_forward = tf.function(self._forward, autograph=False)
        self._graph_backward = tf.function(self._backward, autograph=False)

    def __call__(self, inputs, *, save, at_once, reference):
        """Runs the steps.

        Args:
            inputs: `LoopInputs` of a batch.
            save: bool, whether gradients will be asked for. Without it they run the
                forward loop once more.
            at_once: bool, whether to compile at the first call; else see `is_often`.
            reference: callable `(x, states, params, row_params) -> (output, states)`
                that does the same in ordinary ops, for derivatives of the gradients.

        Returns:
            `(output, states)`.
        """
        x, params, row_params = inputs.x, inputs.params, inputs.row_params
        often = None
        if not at_once:
            size = elements(params) + elements(row_params, 1)
            often = is_often(x, size, row_params, save)
        forward, backward = self._forward, self._backward
        # Only in a graph do the shards run side by side. What may run in two ways takes
        # long to trace: once for all graphs, also those made for one batch size. Those
        # made for one shape keep it, as the loop is faster then.
        hides = often is not None and x.shape[0] is not None and x.shape[1] is None
        if tf.executing_eagerly() or often is not None:
            forward, backward = self._graph_forward, self._graph_backward
        count, from_zeros = shard_count(), all(map(is_known_zero, inputs.states))
        sources, with_sources = self._sources_of(inputs)
        hide = hide_sizes if hides else lambda inputs: inputs

        def run(*values):
            output, states, saved = forward(
                often, hide(with_sources(values)), count, save, from_zeros
            )
            return (output, *states), saved

        def run_back(values, saved, d_results):
            d_output, *d_states = d_results
            if hides:
                axes = 2 if self._loop.return_sequences else 1
                d_output = without_sizes(d_output, axes)
                d_states = without_sizes(d_states, 1)
            inputs = hide(with_sources(values))
            return backward(often, inputs, count, d_output, d_states, saved)

        def run_reference(*values):
            inputs = with_sources(values)
            return reference(inputs.x, inputs.states, inputs.params, inputs.row_params)

        loop = self._gradients.of_any_order(run, run_back, run_reference)
        output, *last = loop(*sources)
        return self._with_shapes(inputs, output, last)

    def _sources_of(self, inputs):
        """The tensors by which there are gradients, and a function that puts others in
        their place."""
        free = self._loop.free_params(inputs)
        fixed = {n: w for n, w in inputs.params.items() if n not in free}
        moving = inputs._replace(
            states=list(inputs.states), params=free, noise=[], mask=[]
        )
        sources = [v for v in nest.flatten(moving) if differentiable(v)]

        def with_sources(values):
            values = iter(values)
            moved = nest.map_structure(
                lambda v: next(values) if differentiable(v) else v, moving
            )
            return moved._replace(
                params=moved.params | fixed, noise=inputs.noise, mask=inputs.mask
            )

        return sources, with_sources

    def _with_shapes(self, inputs, output, last):
        """The results, with all that is known of their shapes."""
        (batch, length), sequences = inputs.x.shape[:2], self._loop.return_sequences
        steps = [length] if sequences else []
        output.set_shape([batch, *steps, *output.shape[len(steps) + 1 :]])
        for after, before in zip(last, inputs.states, strict=True):
            after.set_shape(before.shape)
        if length is None and not sequences:
            zeros = tf.zeros_like(output)
            output = tf.where(tf.shape(inputs.x)[1] > 0, output, zeros)
        return output, last

    def _forward(self, often, inputs, count, save, from_zeros):
        plan = None
        needs_all_steps = save or inputs.noise or inputs.mask or inputs.row_params
        if not (needs_all_steps or self._loop.reverse or in_xla()):
            plan = segments_of(self._cell, inputs.x, inputs.states)
        if plan is None:
            return self._forward_whole(often, inputs, count, save, from_zeros)

        def forward(x, states, mask):
            some = inputs._replace(x=x, states=states, mask=mask)
            return self._forward_whole(often, some, count, False, False)[:2]

        x, states, sequences = inputs.x, inputs.states, self._loop.return_sequences
        met, *results = in_segments(forward, x, states, *plan, sequences)
        results = tf.cond(met, lambda: results, lambda: list(forward(x, states, [])))
        return *results, [[]] * count

    def _forward_whole(self, often, inputs, count, save, from_zeros):
        if from_zeros:  # XLA makes them itself, and knows them when it compiles.
            inputs = inputs._replace(states=[])
        steps, extra, inputs = self._pad_steps(inputs)
        x = inputs.x

        def run(inputs, one_row, functions=self._loop.compiled):
            one_row = None if inputs.x.shape[0] is None else one_row
            return functions[0](inputs, steps, one_row, save)

        def whole(*how):
            output, last, saved = run(inputs, *how)
            none = nest.map_structure(lambda v: v[:, :0], saved)
            return output, last, [saved] + [none] * (count - 1)

        def sharded():
            shards = split_inputs(inputs, count)
            outputs, lasts, saved = zip(*[run(s, False) for s in shards], strict=True)
            output, last = joined(zip(outputs, lasts, strict=True), x)
            return output, last, list(saved)

        output, last, saved = if_often(
            often,
            lambda: by_batch(x, count, whole, sharded),
            lambda: whole(False, self._loop.ordinary),
        )
        if extra is not None and self._loop.return_sequences:
            output = output[:, :steps]
        return output, last, saved

    def _backward(self, often, inputs, count, d_output, d_states, saved):
        steps, extra, inputs = self._pad_steps(inputs)
        if extra is not None and self._loop.return_sequences:
            d_output = pad(d_output, 1, [0, extra])
        x = inputs.x
        free = self._loop.free_params(inputs)
        shared = sum(map(differentiable, nest.flatten(free)))

        def run(inputs, d_results, saved, one_row, functions=self._loop.compiled):
            forward, backward, to_input = functions
            x, (d_output, d_states) = inputs.x, d_results
            if not nest.flatten(saved):
                one = None if x.shape[0] is None else one_row
                _, _, saved = forward(inputs, steps, one, True)
            saved = of_rows(saved, x.shape[0])
            d_z, d_states, d_params = backward(
                inputs, steps, one_row, saved, d_output, d_states
            )
            d_x = to_input(x, inputs.params, inputs.row_params, d_z)
            return [d_x, d_states, d_params[shared:]], d_params[:shared]

        d_results = [d_output, d_states]

        def whole(*how):
            return run(inputs, d_results, saved[0], *how)

        def sharded():
            shards = zip(
                split_inputs(inputs, count),
                split(d_results, count, fill="zeros"),
                saved,
                strict=True,
            )
            by_rows, by_params = zip(*[run(*s, False) for s in shards], strict=True)
            return joined(by_rows, x), added(by_params)

        (d_x, d_states, d_row_params), d_params = if_often(
            often,
            lambda: by_batch(x, count, whole, sharded),
            lambda: whole(False, self._loop.ordinary),
        )
        if extra is not None:
            d_x = d_x[:, extra:] if self._loop.reverse else d_x[:, :steps]
        return [d_x, *d_states, *d_params, *d_row_params]

    def _pad_steps(self, inputs):
        x, noise, mask = inputs.x, inputs.noise, inputs.mask
        steps, extra, (x, noise, mask) = pad_steps([x, noise, mask], self._loop.reverse)
        return steps, extra, inputs._replace(x=x, noise=noise, mask=mask)


def split_inputs(inputs, count):
    """Splits the rows of `LoopInputs`; the parameters are the same for all."""
    shards = split(inputs.without_params(), count)
    return [shard._replace(params=inputs.params) for shard in shards]


def hide_sizes(inputs):
    """`LoopInputs` of which the graph no longer knows batch and steps."""
    inputs = inputs.map_sequences(lambda tensors: without_sizes(tensors, 2))
    return inputs.map_rows(lambda tensors: without_sizes(tensors, 1))


def pad_steps(tensors, front=False):
    """Pads sequences to one of a few lengths, if the graph does not know theirs.

    Args:
        tensors: nest of `(batch, time, ...)`, all of the length of the first.
        front: bool, whether to add the steps in front.

    Returns:
        The number of steps, how many were added, and the padded tensors; `None` in
        place of the numbers if the graph knows the number of steps.
    """
    x = nest.flatten(tensors)[0]
    if x.shape[1] is not None:
        return None, None, tensors
    steps = tf.shape(x)[1]
    extra = padded_length(steps) - steps
    widths = [extra, 0] if front else [0, extra]
    return steps, extra, nest.map_structure(lambda v: pad(v, 1, widths), tensors)


def of_rows(saved, rows):
    """Restores the number of rows of what a loop saved, `(time, rows, ...)`: the graph
    loses it where one of two ways to run has saved it."""

    def known(tensor):
        if tensor.shape[1] == rows:
            return tensor
        return tf.ensure_shape(tensor, [tensor.shape[0], rows, *tensor.shape[2:]])

    return nest.map_structure(known, saved)


def without_sizes(tensors, count):
    """Hides the first `count` sizes of tensors from the graph."""

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
