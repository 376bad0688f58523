"""The time loop. It runs any step over any inputs, and knows no cell and no layer."""

from collections.abc import Callable

import tensorflow as tf

from keras_rnnkit.recurrence.masks import where_mask

nest = tf.nest


def run(
    step: Callable,
    inputs,
    states,
    output: tf.Tensor,
    *,
    mask: tf.Tensor | None = None,
    reverse: bool = False,
    write: Callable | None = None,
    return_sequences: bool = True,
    zero_output_for_mask: bool = False,
):
    """Runs a step over the time axis. What it computes:

        for x_t, mask_t in zip(inputs, mask):
            new_output, new_states = step(x_t, states)
            output, states = where(mask_t, (new_output, new_states), (output, states))

    Tests compare all other loops of the package, compiled or in a file, with this one.

    Args:
        step: callable `(x_t, states) -> (output, states)`, any nests of tensors.
        inputs: nest of tensors `(time, batch, ...)`.
        states: nest of tensors, the states before the first step.
        output: tensor `(batch, width)`, the output before the first step, which a
            sequence with every step masked returns.
        mask: bool `(time, batch)`, or `None`.
        reverse: run from the last step to the first. Outputs stand in the order in
            which they were computed, as in Keras.
        write: how to write the loop: `in_arrays`, the default, `written_out`, or
            another callable that takes the same arguments.
        return_sequences: also return the output of every step.
        zero_output_for_mask: return zeros where masked, not the previous output.

    Returns:
        `(outputs, states)`; `outputs` is `(time, batch, width)`, or without
        `return_sequences` the last one, `(batch, width)`.
    """
    if mask is not None:
        inputs = (inputs, mask)
        step = _masked(step, zero_output_for_mask)
    else:
        step = _unmasked(step)
    previous_output = [] if mask is None else [output]
    if reverse:
        inputs = nest.map_structure(lambda x: tf.reverse(x, [0]), inputs)
    write = in_arrays if write is None else write
    return write(step, inputs, states, output, previous_output, return_sequences)


def _unmasked(step):
    return lambda x, previous_output, states: step(x, states)


def _masked(step, zero_output_for_mask):
    """Adds a mask to the inputs of a step: output and states stay where it is False."""

    def masked_step(x_and_mask, previous_output, states):
        (x, mask), (output,) = x_and_mask, previous_output
        new_output, new_states = step(x, states)

        def choose(new, old):
            return where_mask(mask, new, old)

        new_states = nest.map_structure(choose, new_states, states)
        instead = tf.zeros_like(output) if zero_output_for_mask else output
        return choose(new_output, instead), new_states

    return masked_step


def in_arrays(step, inputs, states, output, previous_output, return_sequences):
    """One `tf.while_loop`, whatever the number of steps, with arrays of tensors.

    `previous_output` is a list of one tensor under a mask, and else empty: carrying an
    output beside an equal state makes `tf.GradientTape.jacobian` fail.
    """
    flat = nest.flatten(inputs)
    steps = flat[0].shape[0]
    steps = tf.shape(flat[0])[0] if steps is None else steps
    arrays = [tf.TensorArray(x.dtype, size=steps).unstack(x) for x in flat]
    size = steps if return_sequences else 1
    outputs = tf.TensorArray(output.dtype, size, element_shape=output.shape)

    def body(t, previous_output, states, outputs):
        x = nest.pack_sequence_as(inputs, [array.read(t) for array in arrays])
        output, states = step(x, previous_output, states)
        outputs = outputs.write(t if return_sequences else 0, output)
        return t + 1, [output] if previous_output else [], states, outputs

    _, _, states, outputs = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (tf.constant(0), previous_output, states, outputs),
        maximum_iterations=steps,
    )
    outputs = stack(outputs, size, output)
    return outputs if return_sequences else outputs[0], states


def written_out(step, inputs, states, output, previous_output, return_sequences):
    """Unrolls the steps, whose number must be known."""
    outputs, output, states = run_each(step, inputs, states, output, previous_output)
    if not return_sequences:
        return output, states
    if not outputs:
        return tf.zeros(tf.concat([[0], tf.shape(output)], 0), output.dtype), states
    return tf.stack(outputs), states


def run_each(step, inputs, states, output, previous_output):
    """Unrolls the steps; returns all outputs, the last output and the states."""
    outputs = []
    for x in zip(*map(tf.unstack, nest.flatten(inputs)), strict=True):
        x = nest.pack_sequence_as(inputs, x)
        output, states = step(x, [output] if previous_output else [], states)
        outputs.append(output)
    return outputs, output, states


def stack(array, size, output):
    """Like `array.stack()`, also for zero steps and an unknown batch."""
    if tf.executing_eagerly() or output.shape.is_fully_defined():
        return array.stack()
    stacked = tf.raw_ops.TensorListStack(
        input_handle=array.flow,
        element_shape=tf.shape(output),
        element_dtype=output.dtype,
    )
    stacked.set_shape([size if isinstance(size, int) else None, *output.shape])
    return stacked
