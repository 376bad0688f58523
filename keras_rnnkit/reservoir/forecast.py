"""Closed-loop forecasts: a model is fed its own output."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.convert import check_model
from keras_rnnkit.recurrence import as_arrays, pad_rows, run
from keras_rnnkit.reservoir.batches import bucket_length
from keras_rnnkit.reservoir.input_formats import read_sequences
from keras_rnnkit.reservoir.shared_graphs import SharedGraph
from keras_rnnkit.reservoir.streaming import can_stream, has_masks, run_stream


def forecast(model: keras.Model, warmup, steps: int, *, inputs=None) -> np.ndarray:
    """Continues sequences: after a warm-up, the model is fed its own output.

        ŷₜ₊₁ = model(…, [uₜ, ŷₜ])

    The states of all layers continue from the warm-up. Works for any model that
    predicts one step from the steps before it, with reservoirs or trained layers.

    Args:
        model: a built functional or sequential model with one input `(batch, steps,
            features)`, and one output that predicts the next step. The last features
            of the input are that output; those before them, if any, are external
            inputs.
        warmup: array `(batch, steps, features)`, the sequences so far; a list of
            `(steps, features)` of different lengths, each continued from its own end;
            or one sequence `(steps, features)`. Tables and ragged tensors work too, and
            `(steps,)` for a series of one feature.
        steps: positive int, how many steps to forecast.
        inputs: array `(batch, steps - 1 or more, features - outputs)`, the external
            inputs of the steps after the warm-up, in the format of `warmup`. Default
            None, for a model without external inputs or a single step.

    Returns:
        Array `(batch, steps, outputs)`; its first step follows the last of `warmup`.
        Like `warmup`, it has no batch axis for one sequence, and no feature axis for a
        series.

    Raises:
        ValueError: a wrong argument or shape, or a model with a layer that is stateful
            or needs whole sequences.

    Example:

    ```python
    series = rk.datasets.mackey_glass(3001)  # (1, steps, 1)
    model = keras.Sequential(
        [keras.Input((None, 1)), rk.ESN(400, seed=0), keras.layers.Dense(1)]
    )
    rk.fit_readout(model, series[:, :-1], series[:, 1:], washout=100)
    future = rk.forecast(model, series, steps=84)  # (1, 84, 1)
    ```
    """
    check_positive_integer("steps", steps)
    external = external_feature_count(model)
    rule = " with at least one step"
    shape, is_series = model.inputs[0].shape, lacks_feature_axis(warmup, model)
    warmup, is_single = read_sequences("warmup", warmup, shape, rule)
    lengths = None
    if isinstance(warmup, list):
        lengths = np.array([len(each) for each in warmup], "int32")
        warmup = pad_rows(warmup, bucket_length(int(lengths.max())))
        inputs = _read_external_inputs(inputs, steps - 1, external)
    elif is_single and inputs is not None and external:
        inputs = read_sequences("inputs", inputs, (None, None, external))[0]
    if not (warmup.shape[1] if lengths is None else lengths.min()):
        received = f"shape {tuple(warmup.shape)}"
        if lengths is not None:
            received = f"none in `warmup[{lengths.argmin()}]`"
        raise ValueError(
            f"`warmup` must have shape (batch, steps, {shape[-1]}){rule}; received "
            f"{received}"
        )
    warmup = tf.cast(tf.convert_to_tensor(warmup), model.inputs[0].dtype)
    if inputs is None and steps == 1 and external:
        inputs = np.zeros((warmup.shape[0], 0, external))
    if inputs is not None or external:
        check_external_inputs(model, inputs, (warmup.shape[0], steps - 1, external))
        inputs = tf.cast(np.asarray(inputs)[:, : steps - 1], warmup.dtype)
    lengths = None if lengths is None else tf.constant(lengths)
    run_graph = SharedGraph(closed_loop, model)
    predicted = run_graph(warmup, tf.constant(steps), inputs, lengths).numpy()
    predicted = predicted[0] if is_single else predicted
    return predicted[..., 0] if is_series else predicted


def lacks_feature_axis(warmup, model) -> bool:
    """Whether sequences of a single feature are given without its axis."""
    if model.inputs[0].shape[-1] != 1:
        return False
    warmup = as_arrays("warmup", warmup)
    if isinstance(warmup, list):
        return all(np.ndim(each) == 1 for each in warmup)
    return np.ndim(warmup) == 1 or (np.ndim(warmup) == 2 and warmup.shape[1] != 1)


def _read_external_inputs(inputs, steps, external):
    """The external inputs for a list of sequences, `(rows, steps, external)`."""
    if inputs is None or not external:
        return inputs
    inputs = read_sequences("inputs", inputs, (None, None, external))[0]
    if not isinstance(inputs, list):
        return inputs
    for index, each in enumerate(inputs):
        if len(each) < steps:
            raise ValueError(
                f"`inputs[{index}]` must have {steps} steps or more; received "
                f"{len(each)}"
            )
    return np.stack([each[:steps] for each in inputs])


def check_external_inputs(model, inputs, shape):
    """Raises `ValueError` unless `inputs` have a shape `(batch, steps, external)`, or
    more steps."""
    batch, steps, external = shape
    given = None if inputs is None else np.shape(inputs)
    fits = given is not None and len(given) == 3
    if not fits or (given[0], given[2]) != (batch, external) or given[1] < steps:
        raise ValueError(
            f"`inputs` of `{model.name}` must have shape ({batch}, {steps} or more, "
            f"{external}); received {given and f'shape {tuple(given)}'}"
        )


def external_feature_count(model) -> int:
    """Returns the number of external input features of a model.

    Raises:
        ValueError: the model's output cannot be fed back.
    """
    check_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            f"`{model.name}` must have one input and one output; received "
            f"{len(model.inputs)} and {len(model.outputs)}"
        )
    if not can_stream(model):
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
        steps: int or scalar tensor, how many steps to forecast.
        inputs: `(batch, steps to forecast - 1, external features)`, or None.
        lengths: int `(batch,)`, the steps of each warm-up, or None for all.
        write: how the loop is written; see `recurrence.run`.
    """
    carry_outputs = has_masks(model)

    def predict(x, states, lengths=None):
        (output,), _, new_states = run_stream(
            model, x, states, lengths, carry_outputs=carry_outputs
        )
        if output.shape.rank == 3 and lengths is not None:
            output = tf.gather(output, lengths - 1, axis=1, batch_dims=1)
        elif output.shape.rank == 3:
            output = output[:, -1]
        return tf.cast(output, warmup.dtype), states | new_states

    first, states = predict(warmup, {}, lengths)
    if not tf.is_tensor(steps) and steps == 1:
        return first[:, None]
    names = list(states)

    def step(external, carried):
        x, *states = carried
        if inputs is not None:
            x = tf.concat([external, x], -1)
        output, states = predict(x[:, None], dict(zip(names, states, strict=True)))
        return output, [output, *(states[name] for name in names)]

    carried = [first, *(states[name] for name in names)]
    external = tf.zeros([steps - 1, 1])
    if inputs is not None:
        external = tf.transpose(inputs, [1, 0, 2])
    outputs, _ = run(step, external, carried, first, write=write)
    return tf.concat([first[:, None], tf.transpose(outputs, [1, 0, 2])], 1)
