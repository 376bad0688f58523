"""Checks of what a recurrent layer is called with, by static shapes alone."""

import tensorflow as tf
from keras import tree


def check_call(layer, sequences, initial_state, mask, lengths):
    """Checks the call arguments of `layer`.

    Args:
        layer: any recurrent layer; its `state_size` tells the states that it takes.
        sequences, initial_state, mask, lengths: as it was called, tensors or arrays.

    Returns:
        `initial_state`, `mask` and `lengths` as tensors, or `None`.

    Raises:
        ValueError: a wrong rank, shape, number or type.
    """
    name = layer.name
    check_sequences(name, sequences)
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


def check_sequences(name, sequences):
    """`(batch, time, ...)`."""
    if len(sequences.shape) < 3:
        raise ValueError(
            f"the input of `{name}` must have shape (batch, time, features); received "
            f"shape {tuple(sequences.shape)}"
        )


def check_mask(name, mask, sequences):
    """`(batch, time)`, or `(batch, time, 1)` as Keras allows."""
    shape = tuple(mask.shape)
    batch, steps = sequences.shape[:2]
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)
    if not fits or not _agree(shape[:2], (batch, steps)):
        raise ValueError(
            f"`mask` of `{name}` must have shape (batch, time) = ({batch}, {steps}); "
            f"received shape {shape}"
        )


def check_lengths(name, lengths, sequences):
    """Integers `(batch,)`."""
    shape, batch = tuple(lengths.shape), sequences.shape[0]
    dtype = getattr(lengths.dtype, "name", lengths.dtype)
    if not _agree(shape, (batch,)) or not str(dtype).startswith(("int", "uint")):
        raise ValueError(
            f"`lengths` of `{name}` must be integers of shape (batch,) = ({batch},); "
            f"received {dtype} of shape {shape}"
        )


def check_states(name, states, sizes, batch):
    """One tensor `(batch, size)` for each state."""
    states, sizes = tree.flatten(states), tree.flatten(sizes)
    if len(states) != len(sizes):
        raise ValueError(
            f"`initial_state` of `{name}` must hold {len(sizes)} tensors, one for each "
            f"state; received {len(states)}"
        )
    for number, (state, size) in enumerate(zip(states, sizes, strict=True)):
        if not _agree(tuple(state.shape), (batch, size)):
            raise ValueError(
                f"`initial_state[{number}]` of `{name}` must have shape (batch, size) = "
                f"({batch}, {size}); received shape {tuple(state.shape)}"
            )


def _agree(shape, expected):
    return len(shape) == len(expected) and all(
        None in (have, want) or have == want
        for have, want in zip(shape, expected, strict=True)
    )


def _as_tensor(value):
    return value if hasattr(value, "shape") else tf.convert_to_tensor(value)
