"""The time loop. It knows no cell and no layer: it runs any step over any inputs."""

from collections.abc import Callable

import tensorflow as tf

nest = tf.nest


def run(
    step: Callable,
    inputs,
    states,
    output: tf.Tensor,
    *,
    mask: tf.Tensor | None = None,
    reverse: bool = False,
    unroll: bool = False,
    return_sequences: bool = True,
    zero_output_for_mask: bool = False,
):
    """Runs `output_t, s_t = step(x_t, s_{t-1})` over the time axis.

    Where the mask is False, the states and the output of the step before are held.

    Args:
        step: callable `(x_t, states) -> (output, states)`, any nests of tensors.
        inputs: nest of tensors `(time, batch, ...)`.
        states: nest of tensors, the states before the first step.
        output: tensor `(batch, width)`, the output before the first step: what a
            sequence without a single unmasked step returns.
        mask: bool `(time, batch)`, or `None`.
        reverse: run from the last step to the first. Outputs stand in the order in
            which they were computed, as in Keras.
        unroll: write the steps out one by one; needs a static number of steps.
        return_sequences: also return the output of every step.
        zero_output_for_mask: return zeros in place of the output held.

    Returns:
        `(last_output, outputs, states)`; `outputs` is `(time, batch, width)`, or `None`
        without `return_sequences`.
    """
    if mask is not None:
        inputs = (inputs, mask)
        step = _masked(step, zero_output_for_mask)
    else:
        step = _unmasked(step)
    if reverse:
        inputs = nest.map_structure(lambda x: tf.reverse(x, [0]), inputs)
    loop = _unrolled if unroll else _while
    return loop(step, inputs, states, output, return_sequences)


def _unmasked(step):
    return lambda x, output, states: step(x, states)


def _masked(step, zero_output_for_mask):
    """Gives `step` the mask: what it leaves out stays as it was."""

    def masked_step(x_and_mask, output, states):
        x, mask = x_and_mask
        new_output, new_states = step(x, states)

        def choose(new, old):
            shape = [-1] + [1] * (new.shape.rank - 1)
            return tf.where(tf.reshape(mask, shape), new, old)

        held = tf.zeros_like(output) if zero_output_for_mask else output
        new_states = nest.map_structure(choose, new_states, states)
        return choose(new_output, held), new_states

    return masked_step


def _while(step, inputs, states, output, return_sequences):
    """One `tf.while_loop`, whatever the number of steps."""
    flat = nest.flatten(inputs)
    steps = flat[0].shape[0]
    steps = tf.shape(flat[0])[0] if steps is None else steps
    arrays = [
        tf.TensorArray(x.dtype, size=steps, element_shape=x.shape[1:]).unstack(x)
        for x in flat
    ]
    outputs = []
    if return_sequences:
        outputs = [tf.TensorArray(output.dtype, steps, element_shape=output.shape)]

    def body(t, output, states, outputs):
        x = nest.pack_sequence_as(inputs, [array.read(t) for array in arrays])
        output, states = step(x, output, states)
        return t + 1, output, states, [array.write(t, output) for array in outputs]

    _, output, states, outputs = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        (tf.constant(0), output, states, outputs),
        maximum_iterations=steps,
    )
    return output, _stack(*outputs, steps, output) if outputs else None, states


def _stack(array, steps, output):
    """`array.stack()`, for zero steps and an unknown batch too."""
    if tf.executing_eagerly() or output.shape.is_fully_defined():
        return array.stack()
    stacked = tf.raw_ops.TensorListStack(
        input_handle=array.flow,
        element_shape=tf.shape(output),
        element_dtype=output.dtype,
    )
    stacked.set_shape([steps if isinstance(steps, int) else None, *output.shape])
    return stacked


def _unrolled(step, inputs, states, output, return_sequences):
    """The steps written out one by one."""
    steps = nest.flatten(inputs)[0].shape[0]
    outputs = []
    for t in range(steps):
        x = nest.map_structure(lambda x, t=t: x[t], inputs)
        output, states = step(x, output, states)
        outputs.append(output)
    if not return_sequences:
        return output, None, states
    if not outputs:
        return (
            output,
            tf.zeros([0, *tf.unstack(tf.shape(output))], output.dtype),
            states,
        )
    return output, tf.stack(outputs), states
