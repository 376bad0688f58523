"""The base layer: a cell put on the loop."""

from contextlib import contextmanager

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import extends
from keras_rnnkit.cells.split import SplitCell
from keras_rnnkit.layers.sequence import SequenceLayer, takes
from keras_rnnkit.recurrence import run


@extends(keras.layers.RNN)
class RNN(SequenceLayer, keras.layers.RNN):
    """Runs a recurrent cell over the steps of a sequence.

    Takes any cell that `keras.layers.RNN` takes, or a list of them, with the same
    arguments, defaults, states and outputs. A `SplitCell`, as all cells of this package
    are, has its input projected once for the whole sequence.

    Call arguments:
        sequences: `(batch, time, features)`. Zero steps, one step and, with cells of
            this package, a batch of zero are legal.
        initial_state: list of `(batch, size)`, or `(1, size)` for all rows alike, one
            for each state; default zeros, or with `stateful=True` the states that the
            last call left.
        mask: bool `(batch, time)`. Where it is False, states and output are held.
        training: bool; turns dropout and zoneout on.
        lengths: int `(batch,)`, the steps of each sequence that count: stands for the
            mask that is True on the first `lengths[i]` steps of row i. Given beside a
            mask, both have to be True. The layer's outputs carry it on as their mask.

    Returns:
        `(batch, output_size)`, or `(batch, time, output_size)` with
        `return_sequences=True`; with `return_state=True` a tuple of that and of the
        states, `(batch, size)` each. A row without an unmasked step gives a zero output
        and its initial state.

    Raises:
        ValueError: an argument of the wrong rank, shape or number, or a length beyond
            the sequence; see the message.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True

    def run(self, sequences, initial_state, mask, training):
        last_output, outputs, states = self.inner_loop(
            sequences, self._first_state(sequences, initial_state), mask, training
        )
        dtype = self.compute_dtype
        states = tree.map_structure(lambda state: ops.cast(state, dtype), states)
        if self.stateful:
            for variable, state in zip(
                tree.flatten(self.states), tree.flatten(states), strict=True
            ):
                variable.assign(state)
        output = ops.cast(outputs if self.return_sequences else last_output, dtype)
        return (output, *states) if self.return_state else output

    def _first_state(self, sequences, initial_state):
        """The states before the first step, as Keras finds them."""
        if initial_state is None:
            if self.stateful:
                initial_state = self.states
            else:
                initial_state = self.get_initial_state(ops.shape(sequences)[0])
        if not tree.is_nested(initial_state):
            initial_state = [initial_state]
        batch = ops.shape(sequences)[0]

        def prepare(state):
            state = ops.cast(state, self.cell.compute_dtype)
            if state.shape[0] == 1:  # one state for all, such as a learned one
                state = tf.broadcast_to(state, [batch, *state.shape[1:]])
            return state

        return tree.map_structure(prepare, list(initial_state))

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """Runs the cell: `(last_output, outputs, states)`, batch first, as in Keras.

        Of the outputs, the one that `return_sequences` does not ask for is `None`.
        """
        if mask is not None:
            mask = tf.transpose(mask)
        flat = tree.flatten(initial_state)
        with self._step(time_major(sequences), initial_state, training) as (
            step,
            inputs,
        ):
            outputs, states = run(
                step,
                inputs,
                flat,
                self._zero_output(step, inputs, flat),
                mask=mask,
                reverse=self.go_backwards,
                unroll=self.unroll,
                return_sequences=self.return_sequences,
                zero_output_for_mask=self.zero_output_for_mask,
            )
        last_output = None if self.return_sequences else outputs
        outputs = time_major(outputs) if self.return_sequences else None
        return last_output, outputs, tree.pack_sequence_as(initial_state, states)

    def _zero_output(self, step, inputs, states):
        """Zeros in the shape of an output, which only a step of any cell tells."""
        if self._runs_split:
            shape = ops.shape(states[0])[0], self.cell.output_size
            return ops.zeros(shape, self.compute_dtype)
        first = tf.zeros(tf.shape(inputs)[1:], inputs.dtype)
        first.set_shape(inputs.shape[1:])
        return tf.zeros_like(step(first, states)[0])

    @property
    def _runs_split(self):
        cell = self.cell
        return isinstance(cell, SplitCell) and cell.is_split

    @contextmanager
    def _step(self, inputs, initial_state, training):
        """Yields the step of the loop and the inputs that it takes."""
        cell = self.cell
        if not self._runs_split:
            with dropout_masks(cell, inputs, initial_state):
                yield self._step_of_any_cell(initial_state, training), inputs
            return
        inputs = ops.cast(inputs, cell.compute_dtype)
        steps, batch = ops.shape(inputs)[:2]
        k = cell.constants(batch, training)
        noise = cell.noise((steps, batch), training) or []
        z = cell.project(inputs, k)

        def step(x, states):
            output, states = cell.step(x[0], states, k, x[1])
            return ops.cast(output, self.compute_dtype), states

        yield step, (z, noise)

    def _step_of_any_cell(self, initial_state, training):
        cell = self.cell
        kwargs = {}
        if isinstance(cell, keras.layers.Layer) and takes(cell, "training"):
            kwargs["training"] = training

        def step(x, states):
            states = tree.pack_sequence_as(initial_state, states)
            output, new_states = cell(x, states, **kwargs)
            return ops.cast(output, self.compute_dtype), tree.flatten(new_states)

        return step


@contextmanager
def dropout_masks(cell, inputs, states):
    """Has Keras's cells draw their masks before the loop, and forget them after it.

    Args:
        cell: a cell, or `keras.layers.StackedRNNCells`.
        inputs: `(time, batch, features)`.
        states: the states of the cell.
    """
    stacked = isinstance(cell, keras.layers.StackedRNNCells)
    cells, states = (cell.cells, states) if stacked else ([cell], [states])
    ones = tf.ones(tf.shape(inputs)[1:], inputs.dtype)
    try:
        for each, state in zip(cells, states, strict=True):
            if hasattr(each, "get_dropout_mask"):
                each.get_dropout_mask(ones)
                each.get_recurrent_dropout_mask(tree.flatten(state)[0])
            width = (
                getattr(each, "output_size", None) or tree.flatten(each.state_size)[0]
            )
            ones = tf.ones([tf.shape(inputs)[1], width], inputs.dtype)
        yield
    finally:
        for each in cells:
            if hasattr(each, "reset_dropout_mask"):
                each.reset_dropout_mask()
                each.reset_recurrent_dropout_mask()


def time_major(tensor):
    """Swaps the batch and the time axis; its own inverse."""
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])
