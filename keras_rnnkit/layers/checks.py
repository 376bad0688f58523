"""Checks of the call arguments of recurrent layers, by their static shapes."""

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from keras_rnnkit.cells import ESNCell, GRUCell, LSTMCell, SimpleRNNCell
from keras_rnnkit.recurrence import (
    check_lengths_within,
    current_policy,
    current_stream,
)

KERNEL_CELLS = (
    *(SimpleRNNCell, LSTMCell, GRUCell, ESNCell),
    *(keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell),
)


def checked_call(layer, sequences, initial_state, mask, lengths):
    """Checks the call arguments of `layer`.

    Args:
        layer: any recurrent layer.
        sequences, initial_state, mask, lengths: its call arguments, tensors or arrays.

    Returns:
        `initial_state`, `mask` and `lengths` as tensors, or `None`.

    Raises:
        ValueError: an argument has the wrong rank, shape, type or number of tensors.
    """
    name = layer.name
    check_sequences(name, sequences.shape)
    check_layer(layer, sequences)
    if initial_state is not None:
        initial_state = tree.map_structure(_as_tensor, initial_state)
        check_states(name, initial_state, layer.state_size, sequences.shape[0])
    if isinstance(mask, (list, tuple)) and mask:
        mask = mask[0]
    if mask is not None:
        mask = _as_tensor(mask)
        check_mask(name, mask, sequences)
    if lengths is not None:
        lengths = _as_tensor(lengths)
        check_lengths(name, lengths, sequences)
    return initial_state, mask, lengths


def check_sequences(name, shape):
    """Checks that sequences are `(batch, time, ...)`."""
    if len(shape) < 3:
        raise ValueError(
            f"the input of `{name}` must have shape (batch, time, features); received "
            f"shape {tuple(shape)}"
        )


def ragged_in_time(name, ragged):
    """Returns a ragged tensor with only its time axis ragged.

    Raises:
        ValueError: the steps have different numbers of features.
    """
    values = ragged.values
    if ragged.ragged_rank == 1:
        return ragged
    known = ragged.ragged_rank == 2 and tf.executing_eagerly()
    sizes = np.unique(values.row_lengths()) if known else []
    if known and len(sizes) < 2:
        return tf.RaggedTensor.from_row_splits(values.to_tensor(), ragged.row_splits)
    received = f"steps of {', '.join(map(str, sizes))} features" if known else ragged
    raise ValueError(
        f"the input of `{name}` must be ragged in its steps only; received {received}: "
        "make it with `tf.RaggedTensor.from_row_lengths`"
    )


def input_spec(layer, shape):
    """The input spec of a layer built for `shape`; features are fixed by a kernel."""
    check_sequences(layer.name, shape)
    fixed = {-1: shape[-1]} if shape[-1] and has_kernel(layer) else {}
    return keras.layers.InputSpec(ndim=len(shape), axes=fixed)


def has_kernel(layer):
    """Whether all cells of a layer have a kernel, which fixes the input features."""
    cells = getattr(layer, "cell", None)
    if cells is not None:
        return isinstance(cells, KERNEL_CELLS)
    parts = [getattr(layer, part, None) for part in ("forward_layer", "backward_layer")]
    parts = getattr(layer, "layers", parts)
    return all(part is not None and has_kernel(part) for part in parts)


def check_layer(layer, sequences):
    """Checks steps, batch size and device, for a layer and those it wraps."""
    for part in ("forward_layer", "backward_layer"):
        if hasattr(layer, part):
            check_layer(getattr(layer, part), sequences)
    for inner in getattr(layer, "layers", ()):
        check_layer(inner, sequences)
    batch, steps = sequences.shape[:2]
    if getattr(layer, "unroll", False) and steps is None:
        raise ValueError(
            f"`unroll=True` in `{layer.name}` needs a known number of steps; received "
            f"shape {tuple(sequences.shape)}: give it, as in `keras.Input((10, 8))`"
        )
    # A stream keeps its own states, of any batch size.
    streams = current_stream() is not None
    expected = None if streams else getattr(layer, "_expected_batch_size", None)
    if expected is not None and batch not in (None, expected):
        raise ValueError(
            "the batch size of a stateful layer must stay the same: "
            f"`{layer.name}` was built for {expected}; received {batch}"
        )
    if hasattr(layer, "check_device"):
        layer.check_device()


def check_stack(layers, needs_last_step):
    """Checks the layers of a stack.

    Args:
        layers: list of layers.
        needs_last_step: bool, whether the stack reads the input of the last layer
            at the last step.
    """
    if len({id(layer) for layer in layers}) < len(layers):
        raise ValueError(
            "`layers` must be different layers; received "
            f"{[layer.name for layer in layers]}, one of them twice"
        )
    for number, layer in enumerate(layers):
        subject = f"`layers[{number}]`"
        if not hasattr(layer, "return_sequences"):
            raise ValueError(f"{subject} must be a recurrent layer; received {layer}")
        if getattr(layer, "go_backwards", False):
            raise ValueError(
                f"{subject} must run forwards; received {layer.name} with "
                "`go_backwards=True`: give it to the stack"
            )
        if getattr(layer, "merge_mode", "concat") is None:
            raise ValueError(
                f"{subject} must return one sequence; received {layer.name} with "
                "`merge_mode=None`"
            )
    if needs_last_step and hasattr(layers[-1], "backward_layer"):
        raise ValueError(
            "`residual=True` above a bidirectional layer needs "
            "`return_sequences=True`: its two directions end at different steps"
        )


def check_stream(layer, lengths):
    """Refuses to stream a layer that takes `lengths`."""
    if current_stream() and lengths is not None:
        current_policy().refusals.append(
            f"`{layer.name}` cannot stream: it takes `lengths`"
        )


def check_mask(name, mask, sequences):
    """Checks that a mask is `(batch, time)`, or `(batch, time, 1)` as Keras allows."""
    shape = tuple(mask.shape)
    batch, steps = sequences.shape[:2]
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)
    if not fits or not _agree(shape[:2], (batch, steps)):
        raise ValueError(
            f"`mask` of `{name}` must have shape (batch, time) = ({batch}, {steps}); "
            f"received shape {shape}"
        )


def check_lengths(name, lengths, sequences):
    """Checks that lengths are integers `(batch,)`."""
    shape, batch = tuple(lengths.shape), sequences.shape[0]
    dtype = getattr(lengths.dtype, "name", lengths.dtype)
    if not _agree(shape, (batch,)) or not str(dtype).startswith(("int", "uint")):
        raise ValueError(
            f"`lengths` of `{name}` must be integers of shape (batch,) = ({batch},); "
            f"received {dtype} of shape {shape}"
        )
    values = tf.get_static_value(lengths) if tf.is_tensor(lengths) else lengths
    steps = sequences.shape[1]
    if isinstance(values, np.ndarray) and steps is not None:
        check_lengths_within(values, steps)


def check_states(name, states, sizes, batch):
    """Checks that there is one tensor `(batch, size)` or `(1, size)` for each state."""
    if sizes is None:
        return
    states, sizes = tree.flatten(states), tree.flatten(sizes)
    if len(states) != len(sizes):
        raise ValueError(
            f"`initial_state` of `{name}` must hold {len(sizes)} tensors, one for each "
            f"state; received {len(states)}"
        )
    for number, (state, size) in enumerate(zip(states, sizes, strict=True)):
        shape = tuple(state.shape)
        if len(shape) > 2:  # such as the images of a convolutional cell
            continue
        if not _agree(shape, (batch if shape[:1] != (1,) else 1, size)):
            raise ValueError(
                f"`initial_state[{number}]` of `{name}` must have shape (batch, size) "
                f"= ({batch}, {size}); received shape {tuple(state.shape)}"
            )


def _agree(shape, expected):
    return len(shape) == len(expected) and all(
        None in (have, want) or have == want
        for have, want in zip(shape, expected, strict=True)
    )


def _as_tensor(value):
    return value if hasattr(value, "shape") else tf.convert_to_tensor(value)
