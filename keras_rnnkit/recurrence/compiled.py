"""The loop and its gradient, as functions that XLA compiles. They know no cell."""

import tensorflow as tf

from keras_rnnkit.recurrence.gradient import gradients
from keras_rnnkit.recurrence.inputs import LoopInputs, reverse_time
from keras_rnnkit.recurrence.loop import stack
from keras_rnnkit.recurrence.often import both_ways
from keras_rnnkit.recurrence.packing import Packing, after
from keras_rnnkit.recurrence.residuals import from_residuals, with_residuals
from keras_rnnkit.recurrence.step import Step, differentiable, floats_of, wide

nest = tf.nest

# Inputs are projected some steps at a time. XLA spreads a larger product over all cores
# itself, where it and the shards would slow each other down.
CHUNK_BYTES = 1 << 18
FEWEST_STEPS = 4


class CompiledLoop:
    """The compiled loop over a cell that splits its step into three parts.

    Autodiff of a loop saves every intermediate value of every step, and adds up the
    gradient by a weight step by step. Here the forward loop saves only states, products
    and what `pointwise` passes to `save_residual`. The backward loop takes gradients
    through one step after the other, and adds up those by the parameters that
    `pointwise` uses. The gradients by all other weights follow after it, for all steps
    in one product:

        z = project(x, W)    rₜ = recur(sₜ₋₁, W)    sₜ = pointwise(zₜ, rₜ, sₜ₋₁, W)

        dzₜ, drₜ, dsₜ₋₁ = dsₜ ∂pointwise        dW += dsₜ ∂pointwise/∂W
        dsₜ₋₁ += drₜ ∂recur/∂sₜ₋₁
        dx, dW += Σₜ dzₜ ∂project + drₜ ∂recur/∂W

    `docs/how-it-works.md` derives this. `forward`, `backward` and `to_input` take
    `LoopInputs` of some rows of a batch. `compiled` and `ordinary` hold these three
    functions, compiled by XLA and in ordinary ops.

    Args:
        cell: has `project`, `recur` and `pointwise`; see `cells.SplitCell`.
        analysis: `StepAnalysis` of the cell.
        frozen: names of the parameters that need no gradient.
        reverse: run from the last step to the first. Outputs stand in the order in
            which they were computed.
        return_sequences: return the outputs of all steps, not only the last.
        zero_output_for_mask: output zeros where masked, not the previous output.
    """

    def __init__(
        self, cell, analysis, *, frozen, reverse, return_sequences, zero_output_for_mask
    ):
        self.step = Step(cell, analysis, {}, zero_output_for_mask)
        self.frozen = frozen
        self.reverse = reverse
        self.return_sequences = return_sequences
        self.ordinary, self.compiled = both_ways(
            self._forward, self._backward, self._to_input
        )

    def _forward(self, inputs, steps, one_row, save):
        """Runs the steps.

        Args:
            inputs: `LoopInputs`; `states` may be empty for zeros.
            steps: int scalar, how many steps to run; `None` for all.
            one_row: bool, whether the batch is a single row; `None` if the graph does
                not know, but XLA will.
            save: bool, whether to return what `backward` needs.

        Returns:
            `(output, states, saved)`.
        """
        inputs = self._in_order(inputs)
        x, by_step = inputs.x, [inputs.noise, inputs.mask]
        length = _length(x)
        steps = length if steps is None else steps
        step = self.step.using(inputs.all_params)
        states = inputs.states or step.zero_states(tf.shape(x)[0])
        z_0 = step.project(_of_step(0, x))
        chunk, project_chunk = self._chunks(inputs, z_0)

        by_step_0 = _of_step(0, by_step)
        preactivations = step.preactivations(z_0, step.recur(states))
        packing = Packing(preactivations)
        previous = step.first_previous_output(preactivations, states, *by_step_0)
        output = step.output_of(states, previous)
        writes = self.return_sequences and (previous or not save)
        outputs = _arrays([output], length) if writes else []
        first_saved = []
        if save:
            residuals = step.zero_residuals(tf.shape(x)[0])
            first_saved = [states, preactivations, residuals]
        flat = nest.flatten(first_saved)
        saved = _write(_arrays(flat, length + 1), 0, flat)
        preactivations = packing.pack(preactivations)

        if one_row is None:
            one_row = tf.equal(tf.shape(x)[0], 1)
        if one_row is not False:  # One thread is best for so little, part by part.
            x = after(preactivations[0], x, one_row)

        def run_chunk(first, *carried):
            start = tf.minimum(first + 1, length - chunk)
            z = project_chunk(x, start)

            # The loop carries what a step reads to it: XLA would fuse the read into the
            # arithmetic that follows, and no longer vectorize that.
            def run_step(
                t, preactivations, by_step_t, states, previous, outputs, saved
            ):
                preactivations = packing.unpack(preactivations)
                (states, previous), residuals = with_residuals(
                    lambda: step.advance(preactivations, states, previous, *by_step_t)
                )
                if writes:
                    outputs = _write(outputs, t, [step.output_of(states, previous)])
                next_t = tf.minimum(t + 1, length - 1)
                preactivations = step.preactivations(
                    _at(next_t - start, z), step.recur(states)
                )
                if save:
                    new = [*states, *preactivations, *residuals]
                    saved = _write(saved, t + 1, new)
                carried = packing.pack(preactivations), _of_step(next_t, by_step)
                return t + 1, *carried, states, previous, outputs, saved

            end = tf.minimum(first + chunk, steps)
            return tf.while_loop(lambda t, *_: t < end, run_step, (first, *carried))

        _, _, _, states, previous, outputs, saved = tf.while_loop(
            lambda t, *_: t < steps,
            run_chunk,
            (0, preactivations, by_step_0, list(states), previous, outputs, saved),
        )
        saved = nest.pack_sequence_as(first_saved, [array.stack() for array in saved])
        if writes:
            output = _swapped(outputs[0].stack())
        elif self.return_sequences:
            output = _swapped(saved[0][step.analysis.output][1:])
        else:
            output = step.output_of(states, previous)
        return output, states, saved

    def _chunks(self, inputs, z_0):
        """Returns how many steps to project at a time, and a function that does so."""
        length = _length(inputs.x)
        chunk = CHUNK_BYTES // (z_0.dtype.size * tf.maximum(tf.size(z_0), 1))
        chunk = tf.clip_by_value(chunk, tf.minimum(FEWEST_STEPS, length), length)
        over_chunk = self._over(chunk, inputs)

        def project_chunk(x, start):
            sizes = tf.concat([tf.shape(x)[:1], [chunk], tf.shape(x)[2:]], 0)
            some = tf.slice(x, [0, start] + [0] * len(x.shape[2:]), sizes)
            some = tf.ensure_shape(some, [x.shape[0], None, *x.shape[2:]])
            z = over_chunk.project(_flat(_swapped(some)))
            z = tf.reshape(z, tf.concat([[chunk], tf.shape(z_0)], 0))
            return tf.ensure_shape(z, [None, *z_0.shape])

        return chunk, project_chunk

    def _backward(self, inputs, steps, one_row, saved, d_output, d_states):
        """Takes gradients back through the steps.

        Args:
            inputs, steps, one_row: as for `forward`.
            saved: what `forward` returned: states and preactivations before each step
                and after the last, and the residuals of each step, one place later.
            d_output, d_states: gradients by the output and the last states.

        Returns:
            Gradients by z, for `to_input`, by the first states, and by the
            differentiable tensors of `[params, row_params]` that are not frozen.
        """
        inputs = self._in_order(inputs)
        params, row_params = inputs.params, inputs.row_params
        by_step = [inputs.noise, inputs.mask]
        length = _length(inputs.x)
        states, preactivations, residuals = saved
        ran = length if steps is None else steps

        free = self.free_params(inputs) | row_params
        used = self.step.analysis.params & free.keys()

        def used_of(params):
            return {n: w for n, w in floats_of(params).items() if n in used}

        d_used = nest.map_structure(
            lambda w: tf.zeros_like(wide(w)), used_of(inputs.all_params)
        )
        step = self.step.using(inputs.all_params)
        preactivations_0 = _at(0, preactivations)
        previous = step.first_previous_output(
            preactivations_0, _at(0, states), *_of_step(0, by_step)
        )
        d_previous = [tf.zeros_like(output) for output in previous]
        if not self.return_sequences:
            d_states, d_previous = step.add_to_output(d_output, d_states, d_previous)
        matrices = [] if one_row else [n for n, w in params.items() if _is_matrix(w)]
        transposed = params | {name: tf.transpose(params[name]) for name in matrices}

        def body(t, d_states, d_previous, d_preactivations, d_used):
            # Transposed back within the loop, a matrix meets the gradient as it is
            # stored, which is faster for several rows.
            back = {name: tf.transpose(transposed[name]) for name in matrices}
            params = transposed | back | row_params
            step = self.step.using(params)
            preactivations_t, states_t = _at(t, [preactivations, states])
            residuals_t, by_step_t = _at(t + 1, residuals), _of_step(t, by_step)
            if self.return_sequences:
                d_output_t = _of_step(t, d_output)
                d_states, d_previous = step.add_to_output(
                    d_output_t, d_states, d_previous
                )

            def advance():
                return step.advance(preactivations_t, states_t, previous, *by_step_t)

            own, d_states, d_previous, d_params = gradients(
                lambda: from_residuals(advance, residuals_t),
                [preactivations_t, states_t, previous, used_of(params)],
                [d_states, d_previous],
            )
            d_used = nest.map_structure(lambda d, g: d + wide(g), d_used, d_params)
            through = gradients(lambda: step.recur(states_t), states_t, own[-1])
            d_states = [a + b for a, b in zip(d_states, through, strict=True)]
            d_preactivations = _write(d_preactivations, t, own)
            return t - 1, d_states, d_previous, d_preactivations, d_used

        d_preactivations = _arrays(preactivations_0, length)
        _, d_first, _, d_preactivations, d_used = tf.while_loop(
            lambda t, *_: t >= 0,
            body,
            (ran - 1, list(d_states), d_previous, d_preactivations, d_used),
        )
        d_preactivations = [
            _flat(stack(array, length, like))
            for array, like in zip(d_preactivations, preactivations_0, strict=True)
        ]
        d_z, d_r = d_preactivations[0], d_preactivations[-1]
        d_params = self._by_params(inputs, steps, states, d_z, d_r, d_used)
        return d_z, d_first, d_params

    def _by_params(self, inputs, steps, states, d_z, d_r, d_used):
        """Gradients by the parameters: of all steps at once, plus those that the
        backward loop has added up."""
        length = _length(inputs.x)
        x, states = _swapped(inputs.x), [v[:length] for v in states]
        if steps is not None:  # A step not run repeats the last, with a gradient of 0.
            run = tf.minimum(tf.range(length), tf.maximum(steps - 1, 0))
            x, states = _at(run, [x, states])
        x, states = nest.map_structure(_flat, [x, states])

        def all_steps():
            step = self._over(length, inputs)
            return [step.project(x), step.recur(states)]

        free, row_params = self.free_params(inputs), inputs.row_params
        d_params = gradients(
            all_steps, [floats_of(free), floats_of(row_params)], [d_z, d_r]
        )
        for own in d_params:
            for name in d_used.keys() & own.keys():
                both = zip(own[name], d_used[name], strict=True)
                own[name] = [a + tf.cast(b, a.dtype) for a, b in both]
        return nest.flatten(d_params)

    def _to_input(self, x, params, row_params, d_z):
        """Returns the gradient by `x`: apart from `backward`, so that TensorFlow leaves
        it out for the first layer of a model."""
        x = _swapped(reverse_time(x) if self.reverse else x)
        inputs = LoopInputs(x, [], params, row_params, [], [])
        step = self._over(tf.shape(x)[0], inputs)
        d_x = _swapped(gradients(lambda: step.project(_flat(x)), x, d_z))
        return reverse_time(d_x) if self.reverse else d_x

    def _in_order(self, inputs):
        """The inputs in the order in which the steps run."""
        return inputs.map_sequences(reverse_time) if self.reverse else inputs

    def free_params(self, inputs):
        """The shared parameters that need gradients."""
        return {n: w for n, w in inputs.params.items() if n not in self.frozen}

    def _over(self, length, inputs):
        """The step over several steps at once, `(time * rows, ...)`."""

        def repeat(value):
            if not tf.is_tensor(value):
                return value
            return tf.tile(value, [length] + [1] * (value.shape.rank - 1))

        row_params = nest.map_structure(repeat, inputs.row_params)
        return self.step.using(inputs.params | row_params)


def _length(tensor):
    return tf.shape(tensor)[1] if tensor.shape[1] is None else tensor.shape[1]


# Inputs are read in their own layout, `(rows, time, ...)`.


def _of_step(t, tensors):
    return nest.map_structure(lambda tensor: tf.gather(tensor, t, axis=1), tensors)


# What the loop writes has time first, so that each step is in one piece.


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
