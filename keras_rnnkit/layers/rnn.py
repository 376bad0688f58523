"""The base layer, which runs a cell over a sequence."""

from types import SimpleNamespace

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import check_choice, extends, takes
from keras_rnnkit.cells.split_cell import SplitCell
from keras_rnnkit.layers.keras_dropout import dropout_masks
from keras_rnnkit.layers.sequence import SequenceLayer
from keras_rnnkit.recurrence import (
    LOOPS,
    FastLoop,
    LoopInputs,
    Plan,
    analyze_step,
    current_policy,
    current_stream,
    make_plan,
    run,
    specs_of_step,
)


@extends(keras.layers.RNN)
class RNN(SequenceLayer, keras.layers.RNN):
    """Runs a recurrent cell over the steps of a sequence.

    Takes any cell that `keras.layers.RNN` takes, or a list of them, with the same
    arguments, defaults, states and outputs. With a `SplitCell`, as all cells of this
    package are, it projects the inputs of all steps in one product.

    Args:
        cell: a recurrent cell, or a list of cells to stack.
        return_sequences: bool, default False. Returns the outputs of all steps rather
            than the last one.
        return_state: bool, default False. Also returns the final states.
        go_backwards: bool, default False. Runs from the last step to the first, and
            returns the outputs in that order.
        stateful: bool, default False. Starts from the final states of the previous
            call; the batch size is fixed. `reset_state()` sets them to zero.
        unroll: bool, default False. Unrolls the steps, whose number must be known, into
            the graph.
        zero_output_for_mask: bool, default False. With `return_sequences`, masked steps
            output zeros rather than the previous output.
        loop: "auto", "fast" or "portable", default "auto"; all give the same results.
            "portable" runs ordinary ops. "fast" is compiled by XLA and shares the batch
            among the cores; it needs a `SplitCell`. "auto" is fast in `fit`, `predict`
            and any `tf.function` where that saves time, else portable.

    Call arguments:
        sequences: `(batch, time, features)`. There may be no step and, with cells of
            this package, no row. A `tf.RaggedTensor` is used as its `to_tensor()` with
            its `row_lengths()` as `lengths`; returned sequences are padded and carry
            their mask.
        initial_state: list of `(batch, size)`, or `(1, size)` for all rows, one for
            each state; default zeros, or with `stateful=True` the final states of the
            previous call.
        mask: bool `(batch, time)`. Where it is False, states and output stay as they
            were at the previous step.
        training: bool, default False; applies dropout, zoneout and noise.
        lengths: int `(batch,)`, the number of valid steps in each sequence: a mask that
            is True on the first `lengths[i]` steps of row i. With `mask`, a step needs
            both. The outputs carry it on as their mask.

    Returns:
        `(batch, output_size)`, or `(batch, time, output_size)` with
        `return_sequences=True`; with `return_state=True` a tuple of that and of the
        states, `(batch, size)` each. A row without a valid step gives a zero output
        and its initial state.

    Raises:
        ValueError: an argument has the wrong rank, shape or number of tensors, or a
            length exceeds the number of steps.

    Example:

    ```python
    layer = rk.RNN(rk.GRUCell(8), return_sequences=True, return_state=True)
    y, h = layer(np.zeros((2, 5, 3)), lengths=[5, 2])  # (2, 5, 8), (2, 8)
    ```
    """

    def __init__(self, *args, loop="auto", **kwargs):
        super().__init__(*args, **kwargs)
        self.supports_masking = True
        self.set_loop(loop)

    def set_loop(self, loop):
        """Checks and sets `loop`."""
        check_choice("loop", loop, LOOPS)
        if loop == "fast" and (self.unroll or not self._has_split_cell):
            received = "`unroll=True`" if self.unroll else type(self.cell).__name__
            raise ValueError(
                f"`loop='fast'` in `{self.name}` needs `unroll=False` and a "
                f"`SplitCell` that keeps its `call`; received {received}: pass "
                "`loop='auto'`"
            )
        self.loop = loop

    @property
    def _has_split_cell(self):
        return isinstance(self.cell, SplitCell) and self.cell.is_split

    def takes_fast_loop(self, shape) -> bool:
        """Whether sequences of a shape run on the compiled loop in the current context.

        Args:
            shape: `(batch, time, features)`, with None for what is not known.
        """
        if not self.plan(shape).compiled:
            return False
        x = tf.zeros([1, 1, *shape[2:]], self.cell.compute_dtype)
        inputs = self._loop_inputs(x, self._first_state(x, None))
        return fast_loop(self, specs_of_step(inputs)) is not None

    def plan(self, shape) -> Plan:
        """Decides whether sequences of a shape run compiled in the current context."""
        if not self._has_split_cell:
            return Plan(False, f"`{type(self.cell).__name__}` is not a `SplitCell`")
        batch, steps = shape[:2]
        return make_plan(self.loop, unroll=self.unroll, steps=steps, batch=batch)

    def _loop_inputs(self, x, states, mask=None, training=False, rows=None):
        """What the loop runs over, with the cell's parameters and noise."""
        batch, steps = ops.shape(x)[:2]
        params = vars(self.cell.constants())
        row_params = self.cell.row_constants(batch, training) | (rows or {})
        noise = self.cell.draw_noise((steps, batch), training) or []
        return LoopInputs(
            x,
            states,
            params,
            row_params,
            noise=tree.map_structure(time_major, noise),
            mask=[] if mask is None else [mask],
        )

    def get_config(self):
        return super().get_config() | {"loop": self.loop}

    def run(self, sequences, initial_state, mask, training, **rows):
        """See `SequenceLayer.run`; a dict `rows` extends the cell's `row_constants`."""
        states = self._first_state(sequences, initial_state)
        if stream := current_stream():
            names = getattr(self.cell, "state_names", range(len(tree.flatten(states))))
            names = [f"{self.name}_{name}" for name in names]
            flat = stream.enter(names, tree.flatten(states))
            states = tree.pack_sequence_as(states, flat)
        last_output, outputs, states = self.inner_loop(
            sequences, states, mask, training, **rows
        )
        dtype = self.compute_dtype
        states = tree.map_structure(lambda state: ops.cast(state, dtype), states)
        if stream:
            stream.leave(tree.flatten(states))
        elif self.stateful:
            for variable, state in zip(
                tree.flatten(self.states), tree.flatten(states), strict=True
            ):
                variable.assign(state)
        output = ops.cast(outputs if self.return_sequences else last_output, dtype)
        return (output, *states) if self.return_state else output

    def _first_state(self, sequences, initial_state):
        """The states before the first step, as in Keras."""
        if initial_state is None:
            if self.stateful and not current_stream():
                initial_state = self.states
            else:
                initial_state = self.get_initial_state(ops.shape(sequences)[0])
        if not tree.is_nested(initial_state):
            initial_state = [initial_state]
        batch = ops.shape(sequences)[0]

        def prepare(state):
            state = ops.cast(state, self.cell.compute_dtype)
            # One state for all rows, such as a trained one:
            if state.shape[0] == 1 and sequences.shape[0] != 1:
                state = tf.broadcast_to(state, [batch, *state.shape[1:]])
            return state

        return tree.map_structure(prepare, list(initial_state))

    def inner_loop(self, sequences, initial_state, mask, training=False, **rows):
        """Runs the cell and returns `(last_output, outputs, states)`, batch first.

        As in Keras, but depending on `return_sequences` `last_output` or `outputs` is
        `None`.
        """
        loop = current_policy().loop_of(self, sequences, initial_state, mask)
        if loop.layer:
            return (*loop.layer(self, sequences), initial_state)
        run_cell = self._run_any_cell
        if self._has_split_cell:
            run_cell = self._run_split_cell
        outputs, states = run_cell(
            sequences, initial_state, mask, training, loop.write, **rows
        )
        states = tree.pack_sequence_as(initial_state, tree.flatten(states))
        if self.return_sequences:
            return None, outputs, states
        return outputs, None, states

    def _run_split_cell(self, sequences, states, mask, training, write, rows=None):
        cell = self.cell
        x = ops.cast(sequences, cell.compute_dtype)
        inputs = self._loop_inputs(x, states, mask, training, rows)

        def in_ordinary_ops(x, states, params, row_params):
            params = SimpleNamespace(**params | row_params)
            run_step = current_policy().step_of(cell.step, params)
            noise = tree.map_structure(time_major, inputs.noise)

            def step(x, states):
                z, noise = x
                output, states = run_step(z, states, noise or None)
                return ops.cast(output, self.compute_dtype), states

            shape = ops.shape(x)[0], cell.output_size
            zero_output = ops.zeros(shape, self.compute_dtype)
            z = cell.project(time_major(x), params)
            return self._run(step, (z, noise), states, zero_output, mask, write)

        plan = self.plan(x.shape)
        if plan.compiled:
            if loop := fast_loop(self, specs_of_step(inputs)):
                current_policy().note(self, plan)
                output, states = loop(
                    inputs,
                    save=training,
                    at_once=plan.at_once,
                    reference=in_ordinary_ops,
                )
                return ops.cast(output, self.compute_dtype), states
            if self.loop == "fast":
                raise ValueError(
                    f"`loop='fast'` in `{self.name}` needs a cell whose parts depend "
                    f"on their arguments alone; received {type(cell).__name__}, which "
                    "reads variables, draws at random or has operations that XLA "
                    "lacks: take weights from `params`, draw in `draw_noise`, or pass "
                    "`loop='auto'`"
                )
            plan = Plan(False, f"XLA cannot compile `{type(cell).__name__}`")
        current_policy().note(self, plan)
        return in_ordinary_ops(x, states, inputs.params, inputs.row_params)

    def _run_any_cell(self, sequences, states, mask, training, write):
        cell, inputs = self.cell, time_major(sequences)
        current_policy().note(self, self.plan(sequences.shape))
        kwargs = {}
        if isinstance(cell, keras.layers.Layer) and takes(cell, "training"):
            kwargs["training"] = training

        def step(x, flat_states):
            output, new_states = cell(
                x, tree.pack_sequence_as(states, flat_states), **kwargs
            )
            return ops.cast(output, self.compute_dtype), tree.flatten(new_states)

        with dropout_masks(cell, inputs, states):
            first = tf.zeros(tf.shape(inputs)[1:], inputs.dtype)
            first.set_shape(inputs.shape[1:])
            zero_output = tf.zeros_like(step(first, tree.flatten(states))[0])
            flat = tree.flatten(states)
            return self._run(step, inputs, flat, zero_output, mask, write)

    def _run(self, step, inputs, states, output, mask, write):
        """Runs the loop in ordinary ops; inputs are time first, outputs batch first."""
        stream = None if mask is None else current_stream()
        if stream:  # A masked first step repeats the last output of the previous call.
            (output,) = stream.enter([f"{self.name}_output"], [output])
        outputs, states = run(
            step,
            inputs,
            states,
            output,
            mask=None if mask is None else tf.transpose(mask),
            reverse=self.go_backwards,
            write=write,
            return_sequences=self.return_sequences,
            zero_output_for_mask=self.zero_output_for_mask,
        )
        if stream:
            stream.leave([outputs[-1] if self.return_sequences else outputs])
        return time_major(outputs) if self.return_sequences else outputs, states


def fast_loop(layer, specs) -> FastLoop | None:
    """Returns the compiled loop of a layer, or `None` if its cell does not compile.

    Loops are cached by specs and by the settings of the layer and its cell.
    """
    settings = {
        "frozen": frozen_weights(layer.cell),
        "reverse": layer.go_backwards,
        "return_sequences": layer.return_sequences,
        "zero_output_for_mask": layer.zero_output_for_mask,
    }
    key = specs, settings, settings_of(layer.cell)
    loops = vars(layer).setdefault("_fast_loops", [])  # hidden from Keras's tracking
    for known, loop in loops:
        if known == key:
            return loop
    analysis = analyze_step(layer.cell, specs)
    loop = FastLoop(layer.cell, analysis, **settings) if analysis.compiles else None
    loops.append((key, loop))
    return loop


def frozen_weights(cell) -> set[str]:
    """The names of the cell's attributes that are weights and not trainable."""
    return {
        name
        for name, value in vars(cell).items()
        if isinstance(value, keras.Variable) and not value.trainable
    }


def settings_of(cell) -> list[dict]:
    """The settings of a cell, and of its `parts` if it has any."""
    own = {name: value for name, value in vars(cell).items() if is_setting(name, value)}
    return [own, *(settings_of(part) for part in getattr(cell, "parts", ()))]


def is_setting(name, value) -> bool:
    """Whether an attribute of a cell is a setting: public, no weight and no tensor."""
    tensor = isinstance(value, keras.Variable) or ops.is_tensor(value)
    return not name.startswith("_") and not tensor and not hasattr(value, "__array__")


def time_major(tensor):
    """Swaps the batch and the time axis, in either direction."""
    return tf.transpose(tensor, [1, 0, *range(2, len(tensor.shape))])
