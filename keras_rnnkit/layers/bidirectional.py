"""The bidirectional wrapper."""

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import PACKAGE, check_choice, takes
from keras_rnnkit.layers.sequence import SequenceLayer
from keras_rnnkit.recurrence import side_by_side

MERGES = {
    "concat": lambda forward, backward: tf.concat([forward, backward], axis=-1),
    "sum": lambda forward, backward: forward + backward,
    "ave": lambda forward, backward: (forward + backward) / 2,
    "mul": lambda forward, backward: forward * backward,
}


@keras.saving.register_keras_serializable(PACKAGE)
class Bidirectional(SequenceLayer, keras.layers.Bidirectional):
    """Runs one recurrent layer forwards over a sequence and another one backwards.

        yₜ = merge(h⃗ₜ, h⃖ₜ)    (Schuster and Paliwal 1997)

    Replaces `keras.layers.Bidirectional`, with the same arguments, defaults, weights,
    states and outputs. Takes any recurrent layer, also `StackedRNN`.

    Args:
        layer: the forward layer; the wrapper uses a copy made from its config.
        merge_mode: "concat", "sum", "mul", "ave", or None to return both outputs as a
            tuple; default "concat".
        weights: list of initial weights, the forward layer's first; default None.
        backward_layer: the backward layer, with `go_backwards=True`. The default, None,
            makes it from the config of the forward layer.
        **kwargs: `name`, `dtype` and `trainable`, as for `keras.layers.Layer`.

    Call arguments, shapes and errors are those of `RNN`. `initial_state` and returned
    states are the forward layer's, followed by the backward layer's.

    Raises:
        ValueError: a layer is not recurrent, `merge_mode` is unknown, or the mode needs
            two layers of the same size.

    Example:

    ```python
    layer = rk.Bidirectional(rk.LSTM(8, return_sequences=True))
    y = layer(np.zeros((2, 5, 3)))  # (2, 5, 16)
    ```
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        merge_mode: str | None = "concat",
        weights: list | None = None,
        backward_layer: keras.layers.Layer | None = None,
        **kwargs,
    ) -> None:
        check_choice("merge_mode", merge_mode, (*MERGES, None))
        for name, given in (("layer", layer), ("backward_layer", backward_layer)):
            if given is not None and not hasattr(given, "go_backwards"):
                raise ValueError(
                    f"`{name}` must be a recurrent layer; received {given}"
                )
        super().__init__(layer, merge_mode, weights, backward_layer, **kwargs)
        self.supports_masking = True

    @property
    def state_size(self):
        """The sizes of both layers' states, or `None` if one of them is unknown."""
        both = [
            getattr(layer, "state_size", None)
            for layer in (self.forward_layer, self.backward_layer)
        ]
        return None if None in both else [*both[0], *both[1]]

    @property
    def states(self):
        """The states of a stateful layer, or `None`."""
        states = self.forward_layer.states, self.backward_layer.states
        return None if None in states else (*states[0], *states[1])

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        shapes, states = [], []
        for layer in (self.forward_layer, self.backward_layer):
            shape = layer.compute_output_shape(sequences_shape)
            if self.return_state:
                shape, *own = shape
                states += own
            shapes.append(shape)
        forward, backward = shapes
        self._check_sizes(forward[-1], backward[-1])
        if self.merge_mode is None:
            return (forward, backward, *states)
        merged = forward
        if self.merge_mode == "concat":
            merged = (*forward[:-1], forward[-1] + backward[-1])
        return (merged, *states) if self.return_state else merged

    def _check_sizes(self, forward, backward):
        if self.merge_mode not in ("concat", None) and forward != backward:
            raise ValueError(
                f"`merge_mode={self.merge_mode!r}` of `{self.name}` needs two layers "
                f"of the same size; received {forward} and {backward}"
            )

    def run(self, sequences, initial_state, mask, training):
        both = self.forward_layer, self.backward_layer
        first = None, None
        if initial_state is not None:
            sizes = getattr(both[0], "state_size", None)
            half = len(sizes) if sizes else len(initial_state) // 2
            first = initial_state[:half], initial_state[half:]
        shared = {"mask": mask, "training": training}
        with side_by_side(2):
            forward, backward = (
                layer(
                    sequences,
                    initial_state=states,
                    **{name: shared[name] for name in shared if takes(layer, name)},
                )
                for layer, states in zip(both, first, strict=True)
            )
        states = ()
        if self.return_state:
            forward, *forward_states = forward
            backward, *backward_states = backward
            states = (*forward_states, *backward_states)
        forward, backward = (
            ops.cast(y, self.compute_dtype) for y in (forward, backward)
        )
        if self.return_sequences:
            backward = tf.reverse(backward, [1])
        self._check_sizes(forward.shape[-1], backward.shape[-1])
        if self.merge_mode is None:
            outputs = (forward, backward)
        else:
            outputs = (MERGES[self.merge_mode](forward, backward),)
        outputs += states
        return outputs if len(outputs) > 1 else outputs[0]

    def compute_mask(self, _, mask):
        mask = tree.flatten(mask)[0] if self.return_sequences else None
        masks = [mask] * (1 if self.merge_mode else 2)
        if self.return_state:
            masks += [None] * len(tree.flatten(self.state_size))
        return masks if len(masks) > 1 else masks[0]
