"""A decoder layer with attention: runs an `AttentionDecoderCell` on the loop."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import PACKAGE, check_choice
from keras_rnnkit.cells import SplitCell
from keras_rnnkit.internals import mask_of
from keras_rnnkit.layers import RNN
from keras_rnnkit.recurrence import pad_steps
from keras_rnnkit.seq2seq.attention import Attention
from keras_rnnkit.seq2seq.decoder_cell import AttentionDecoderCell, deserialize_parts


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionDecoder(RNN):
    """Runs recurrent cells over a sequence with attention to a second one, the memory.

        h = cells(xₜ, aₜ₋₁, sₜ₋₁)          c, α = attention(h, memory)
        aₜ = tanh([c, h] Wa)

    Luong et al. 2015, arXiv:1508.04025. Runs on the same compiled loop as `RNN`.

    Args:
        cells: a cell of this package or a `SplitCell` of your own, or a list of them,
            the lowest first.
        attention: `BahdanauAttention`, `LuongAttention` or an `Attention` of your own;
            None for a decoder without attention, whose output is h.
        units: positive int, the size of a; default the size of h.
        input_feeding: bool, default True: the lowest cell also reads a of the previous
            step, as `xₜ W + aₜ₋₁ Wf`. Without it the decoder is faster.
        return_sequences: bool, default True: return a of all steps, not only the last.
        return_state: bool, default False: also return the final states.
        return_attention: bool, default False: also return the weights α.
        loop: "auto" (default), "portable" or "fast"; see `RNN`.
        **kwargs: the other arguments of `RNN`, such as `go_backwards`, `stateful`,
            `name` and `dtype`.

    Call arguments:
        sequences: `(batch, time, features)`.
        memory: `(batch, source, size)`, such as the outputs of an encoder.
        initial_state: list of `(batch, size)`, the states of the cells in order,
            optionally followed by a; default zeros.
        mask: bool `(batch, time)`, the steps of `sequences` to run; see `RNN`.
        training: bool, default False: apply dropout and zoneout.
        lengths: int `(batch,)`, the number of steps of each sequence; see `RNN`.
        memory_mask: bool `(batch, source)`, the steps of the memory to read; default
            the mask that `memory` carries.
        memory_lengths: int `(batch,)`, the number of steps of the memory to read. Given
            with a mask, both apply.

    Returns:
        a, `(batch, time, units)`, or `(batch, units)` if not `return_sequences`. With
        `return_attention`, a tuple of a and the weights, `(batch, time, source)` or
        `(batch, source)`. With `return_state` the states follow, `(batch, size)` each.

    Raises:
        ValueError: cells, shapes or states are invalid; the message says how.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    decoder = rk.AttentionDecoder(rk.GRUCell(32), rk.LuongAttention(32, "general"))
    target, memory = keras.random.normal((2, 5, 8)), keras.random.normal((2, 7, 16))
    print(decoder(target, memory, memory_lengths=[7, 4]).shape)  # (2, 5, 32)
    ```
    """

    def __init__(
        self,
        cells: SplitCell | Sequence[SplitCell],
        attention: Attention | None,
        *,
        units: int | None = None,
        input_feeding: bool = True,
        return_sequences: bool = True,
        return_state: bool = False,
        return_attention: bool = False,
        loop: str = "auto",
        **kwargs,
    ) -> None:
        check_choice("return_attention", return_attention, (True, False))
        if return_attention and attention is None:
            raise ValueError(
                "`return_attention=True` needs an `attention`; received None"
            )
        of_cell = {"dtype": kwargs["dtype"]} if "dtype" in kwargs else {}
        cell = AttentionDecoderCell(
            cells,
            attention,
            units=units,
            input_feeding=input_feeding,
            return_query=return_attention,
            name="cell",
            **of_cell,
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            loop=loop,
            **kwargs,
        )
        self.return_attention = return_attention

    def build(self, sequences_shape, memory_shape=None, initial_state_shape=None):
        self._check_memory(sequences_shape, memory_shape)
        if not self.cell.built:
            self.cell.build((sequences_shape[0], *sequences_shape[2:]), memory_shape)
        super().build(sequences_shape)

    def call(
        self,
        sequences,
        memory=None,
        initial_state=None,
        mask=None,
        training=False,
        lengths=None,
        memory_mask=None,
        memory_lengths=None,
    ):
        self._check(sequences, memory, initial_state)
        mask = mask_of(sequences) if mask is None else mask
        if initial_state is not None:
            initial_state = tree.flatten(initial_state)
            if self._is_missing_a(initial_state):
                a = ops.zeros((ops.shape(sequences)[0], self.cell.units))
                initial_state.append(a)
        rows, source_steps = {}, None
        if self.cell.attention:
            valid = self.cell.attention.valid(memory, memory_mask, memory_lengths)
            must_pad = self.cell.input_feeding and memory.shape[1] is None
            if must_pad and self.plan(sequences.shape).compiled:
                source_steps, memory, valid = pad_memory(memory, valid)
            rows = self.cell.memory_constants(memory, valid)
        return self.run_checked(
            sequences,
            initial_state,
            mask,
            training,
            lengths,
            rows=rows,
            source_steps=source_steps,
        )

    def run(
        self, sequences, initial_state, mask, training, rows=None, source_steps=None
    ):
        """See `SequenceLayer.run`.

        Args:
            rows: dict, the memory as row constants.
            source_steps: scalar tensor, the steps of the memory before padding, or None
                if it is not padded.
        """
        cell = self.cell
        seen = rows if cell.input_feeding else None
        outputs = super().run(sequences, initial_state, mask, training, rows=seen)
        if not cell.attention or (cell.input_feeding and not self.return_attention):
            return outputs
        output, *states = outputs if self.return_state else [outputs]
        params = cell.constants()
        vars(params).update(rows)
        loop = self.loop if self.plan(sequences.shape).compiled else "portable"
        if cell.input_feeding:
            output, query = tf.split(output, [cell.units, cell.query_size], axis=-1)
            _, weights = cell.attend(query, params, loop)
        else:
            output, weights = cell.attend(output, params, loop)
        if mask is None and not self.return_sequences and not sequences.shape[1]:
            mask = tf.ones(tf.shape(sequences)[:2], tf.bool)  # there may be no steps
        if mask is not None:
            has_output = ops.cast(self._has_output(mask), output.dtype)[..., None]
            output, weights = output * has_output, weights * has_output
        weights = [weights[..., :source_steps]] if self.return_attention else []
        outputs = output, *weights, *states
        return outputs if len(outputs) > 1 else output

    def _has_output(self, mask):
        """Where the output of the loop is an h, not zeros: after an unmasked step."""
        mask = tf.reverse(mask, [1]) if self.go_backwards else mask
        if not self.zero_output_for_mask:
            mask = tf.cumsum(tf.cast(mask, tf.int32), 1) > 0
        return mask if self.return_sequences else tf.reduce_any(mask[:, -1:], 1)

    def _is_missing_a(self, initial_state):
        given, sizes = len(tree.flatten(initial_state)), len(self.cell.state_size)
        return self.cell.input_feeding and given == sizes - 1

    def _check(self, sequences, memory, initial_state):
        """Checks the shapes of the memory and the states."""
        shape = None if memory is None else tuple(memory.shape)
        self._check_memory(sequences.shape, shape)
        if initial_state is None:
            return
        shapes = [tuple(state.shape) for state in tree.flatten(initial_state)]
        sizes = self.cell.state_size
        if self._is_missing_a(initial_state):
            sizes = sizes[:-1]
        if [shape[-1:] for shape in shapes] != [(size,) for size in sizes]:
            raise ValueError(
                f"`initial_state` of `{self.name}` must hold states of the sizes "
                f"{sizes}; received shapes {shapes}: map the encoder's states to each "
                "of these with a `Dense` layer, as `Seq2Seq(bridge='dense')` does"
            )

    def _check_memory(self, sequences_shape, shape):
        batch = sequences_shape[0]
        if self.cell.attention is None:
            return
        is_3d = shape is not None and len(shape) == 3
        if not is_3d or (None not in (shape[0], batch) and shape[0] != batch):
            received = "none" if shape is None else f"shape {tuple(shape)}"
            raise ValueError(
                f"`memory` of `{self.name}` must have shape (batch, source, features) "
                f"with batch {batch}; received {received}"
            )

    def compute_output_spec(
        self,
        sequences,
        memory=None,
        initial_state=None,
        mask=None,
        training=False,
        lengths=None,
        memory_mask=None,
        memory_lengths=None,
    ):
        self._check(sequences, memory, initial_state)
        given = {} if memory is None else {"memory": memory}
        return super().compute_output_spec(
            sequences, mask=mask, training=training, lengths=lengths, **given
        )

    def compute_output_shape(self, sequences_shape, memory_shape=None):
        batch, steps = sequences_shape[:2]
        steps = (steps,) if self.return_sequences else ()
        cell = self.cell
        shape = (batch, *steps, cell.units if cell.attention else cell.query_size)
        more = [(batch, *steps, memory_shape[1])] if self.return_attention else []
        if self.return_state:
            more += [(batch, size) for size in cell.state_size]
        return (shape, *more) if more else shape

    def compute_mask(self, sequences, mask=None):
        masks = super().compute_mask(sequences, mask)
        if not self.return_attention:
            return masks
        first, *others = masks if isinstance(masks, list) else [masks]
        return [first, None, *others]

    def get_config(self):
        config, of_cell = super().get_config(), self.cell.get_config()
        del config["cell"]
        names = "cells", "attention", "units", "input_feeding"
        config |= {name: of_cell[name] for name in names}
        return config | {"return_attention": self.return_attention}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialize_parts(config, custom_objects))


def pad_memory(memory, valid):
    """Pads the steps to one of a few lengths, since XLA compiles for each length.

    Returns:
        The number of steps, the padded memory and its mask.
    """
    if valid is None:
        valid = tf.ones(tf.shape(memory)[:2], tf.bool)
    steps, _, (memory, valid) = pad_steps([memory, valid])
    return steps, memory, valid
