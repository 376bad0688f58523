"""Closed loop: a model is fed its own output."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.convert import check_model
from keras_rnnkit.recurrence import run
from keras_rnnkit.reservoir.body import does_stream, has_masks, run_stream
from keras_rnnkit.reservoir.traced import Traced


def forecast(model: keras.Model, warmup, steps: int, *, inputs=None) -> np.ndarray:
    """Continues sequences: after a warm-up the model is fed its own output.

        ŷₜ₊₁ = model(…, [uₜ, ŷₜ])

    The states of all layers go on from the warm-up. For any model that predicts one
    step from the steps before, of reservoirs or of trained layers.

    Args:
        model: a built functional or sequential model of one input `(batch, steps,
            features)` and one output, of the step that follows. Its last features are
            that output; those before them, if any, are inputs from outside.
        warmup: array `(batch, steps, features)`, the sequences so far.
        steps: positive int, how many steps are forecast.
        inputs: array `(batch, steps - 1 or more, features - outputs)`, the inputs from
            outside of the steps after the warm-up, or None if there are none, as for
            a single step.

    Returns:
        Array `(batch, steps, outputs)`; the first step follows the last of `warmup`.

    Raises:
        ValueError: a wrong argument or shape; a model with a layer that needs whole
            sequences, or that is stateful.
    """
    check_positive_integer("steps", steps)
    outside = check_closed(model)
    features = model.inputs[0].shape[-1]
    warmup = tf.cast(tf.convert_to_tensor(warmup), model.inputs[0].dtype)
    if warmup.shape.rank != 3 or warmup.shape[2] != features or not warmup.shape[1]:
        raise ValueError(
            f"`warmup` must have shape (batch, steps, {features}) with a step at least;"
            f" received shape {tuple(warmup.shape)}"
        )
    if inputs is None and steps == 1 and outside:
        inputs = np.zeros((warmup.shape[0], 0, outside))
    if inputs is not None or outside:
        check_outside(model, inputs, (warmup.shape[0], steps - 1, outside))
        inputs = tf.cast(np.asarray(inputs)[:, : steps - 1], warmup.dtype)
    run = Traced(closed_loop, model)
    return run(warmup, tf.constant(steps), inputs).numpy()


def check_outside(model, inputs, shape):
    """Raises `ValueError` unless `inputs` have a shape, or more steps."""
    batch, steps, outside = shape
    given = None if inputs is None else np.shape(inputs)
    fits = given is not None and len(given) == 3
    if not fits or (given[0], given[2]) != (batch, outside) or given[1] < steps:
        raise ValueError(
            f"`inputs` of `{model.name}` must have shape ({batch}, {steps} or more, "
            f"{outside}); received {given and f'shape {tuple(given)}'}"
        )


def check_closed(model) -> int:
    """How many features come from outside.

    Raises:
        ValueError: the model's output cannot be fed back.
    """
    check_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"`{model.name}` must have one input and one output; received "
            f"{len(model.inputs)} and {len(model.outputs)}"
        )
    if not does_stream(model):
        raise ValueError(
            f"`{model.name}` must compute a step from those before it; received a layer"
            " that is stateful, that may need the whole sequence, or that is Keras's "
            "own recurrent one: take `rk.from_keras(model)`"
        )
    features, outputs = model.inputs[0].shape[-1], model.outputs[0].shape[-1]
    if len(model.inputs[0].shape) != 3 or outputs > features:
        raise ValueError(
            f"the output of `{model.name}` must be the last features of its input; "
            f"received shapes {model.outputs[0].shape} and {model.inputs[0].shape}"
        )
    return features - outputs


def closed_loop(model, warmup, steps, inputs=None, form="arrays", lengths=None):
    """The forecast in a graph.

    Args:
        warmup: `(batch, steps, features)`.
        steps: int or scalar tensor, how many are forecast.
        inputs: `(batch, steps to forecast - 1, features from outside)`, or None.
        form: of the loop; see `recurrence.run`.
        lengths: int `(batch,)`, the steps of each warm-up, or None for all.
    """
    held = has_masks(model)

    def predict(x, states, lengths=None):
        (output,), _, new = run_stream(model, x, states, lengths, held=held)
        if output.shape.rank == 3 and lengths is not None:
            output = tf.gather(output, lengths - 1, axis=1, batch_dims=1)
        elif output.shape.rank == 3:
            output = output[:, -1]
        return tf.cast(output, warmup.dtype), states | new

    first, states = predict(warmup, {}, lengths)
    if not tf.is_tensor(steps) and steps == 1:
        return first[:, None]
    names = list(states)

    def step(outside, carried):
        x, *states = carried
        if inputs is not None:
            x = tf.concat([outside, x], -1)
        output, states = predict(x[:, None], dict(zip(names, states, strict=True)))
        return output, [output, *(states[name] for name in names)]

    carried = [first, *(states[name] for name in names)]
    outside = tf.zeros([steps - 1, 1])
    if inputs is not None:
        outside = tf.transpose(inputs, [1, 0, 2])
    outputs, _ = run(step, outside, carried, first, form=form)
    return tf.concat([first[:, None], tf.transpose(outputs, [1, 0, 2])], 1)
