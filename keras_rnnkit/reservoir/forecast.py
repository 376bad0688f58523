"""Closed loop: a model is fed its own output."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.convert import check_model
from keras_rnnkit.recurrence import as_arrays, pad_rows, run
from keras_rnnkit.reservoir.body import does_stream, has_masks, run_stream
from keras_rnnkit.reservoir.data import at_least
from keras_rnnkit.reservoir.forms import sequences
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
        warmup: array `(batch, steps, features)`, the sequences so far; a list of
            `(steps, features)` of several lengths, each of which is continued from its
            own end; or one sequence `(steps, features)`. Tables and ragged tensors too,
            and `(steps,)` for a series of one feature.
        steps: positive int, how many steps are forecast.
        inputs: array `(batch, steps - 1 or more, features - outputs)`, the inputs from
            outside of the steps after the warm-up, or None if there are none, as for
            a single step. In the form of `warmup`.

    Returns:
        Array `(batch, steps, outputs)`; the first step follows the last of `warmup`.
        Axes that `warmup` has not, of the batch and of a single feature, are left out.

    Raises:
        ValueError: a wrong argument or shape; a model with a layer that needs whole
            sequences, or that is stateful.
    """
    check_positive_integer("steps", steps)
    outside = check_closed(model)
    rule = " with a step at least"
    shape, series = model.inputs[0].shape, has_no_features(warmup, model)
    warmup, one = sequences("warmup", warmup, shape, rule)
    lengths = None
    if isinstance(warmup, list):
        lengths = np.array([len(each) for each in warmup], "int32")
        warmup = pad_rows(warmup, at_least(int(lengths.max())))
        inputs = _outside_of_list(inputs, len(lengths), steps - 1, outside)
    elif one and inputs is not None and outside:
        inputs = sequences("inputs", inputs, (None, None, outside))[0]
    if not (warmup.shape[1] if lengths is None else lengths.min()):
        received = f"shape {tuple(warmup.shape)}"
        if lengths is not None:
            received = f"none in `warmup[{lengths.argmin()}]`"
        raise ValueError(
            f"`warmup` must have shape (batch, steps, {shape[-1]}){rule}; received "
            f"{received}"
        )
    warmup = tf.cast(tf.convert_to_tensor(warmup), model.inputs[0].dtype)
    if inputs is None and steps == 1 and outside:
        inputs = np.zeros((warmup.shape[0], 0, outside))
    if inputs is not None or outside:
        check_outside(model, inputs, (warmup.shape[0], steps - 1, outside))
        inputs = tf.cast(np.asarray(inputs)[:, : steps - 1], warmup.dtype)
    lengths = None if lengths is None else tf.constant(lengths)
    run = Traced(closed_loop, model)
    said = run(warmup, tf.constant(steps), inputs, lengths).numpy()
    said = said[0] if one else said
    return said[..., 0] if series else said


def has_no_features(warmup, model) -> bool:
    """Whether sequences of one feature are given without its axis."""
    if model.inputs[0].shape[-1] != 1:
        return False
    given = as_arrays("warmup", warmup)
    if isinstance(given, list):
        return all(np.ndim(each) == 1 for each in given)
    return np.ndim(given) == 1 or (np.ndim(given) == 2 and given.shape[1] != 1)


def _outside_of_list(inputs, rows, steps, outside):
    """The inputs from outside of as many sequences, `(rows, steps, outside)`."""
    if inputs is None or not outside:
        return inputs
    inputs = sequences("inputs", inputs, (None, None, outside))[0]
    if not isinstance(inputs, list):
        return inputs
    for number, each in enumerate(inputs):
        if len(each) < steps:
            raise ValueError(
                f"`inputs[{number}]` must have {steps} steps or more; received "
                f"{len(each)}"
            )
    return np.stack([each[:steps] for each in inputs])


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


def closed_loop(model, warmup, steps, inputs=None, lengths=None, write=None):
    """The forecast in a graph.

    Args:
        warmup: `(batch, steps, features)`.
        steps: int or scalar tensor, how many are forecast.
        inputs: `(batch, steps to forecast - 1, features from outside)`, or None.
        lengths: int `(batch,)`, the steps of each warm-up, or None for all.
        write: how the loop is written; see `recurrence.run`.
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
    outputs, _ = run(step, outside, carried, first, write=write)
    return tf.concat([first[:, None], tf.transpose(outputs, [1, 0, 2])], 1)
