"""A decoder that reads from a memory at every step: its cell on the one loop."""

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
from keras_rnnkit.seq2seq.decoder_cell import AttentionDecoderCell, with_parts


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionDecoder(RNN):
    """Runs recurrent cells over a sequence, with attention to another, the memory.

        h = cells(xₜ, aₜ₋₁, sₜ₋₁)          c, α = attention(h, memory)
        aₜ = tanh([c, h] Wa)

    Luong et al. 2015, arXiv:1508.04025. Runs as fast as `RNN`, on the same loop.

    Args:
        cells: a cell of this package, or a list of them, the lowest first.
        attention: `BahdanauAttention`, `LuongAttention` or an `Attention` of your own;
            None for a decoder without, whose output is h.
        units: positive int, the size of a; default that of h.
        input_feeding: bool, default True: the lowest cell sees a of the step before,
            as `xₜ W + aₜ₋₁ Wf`, the second added to what the cell makes of x. Faster
            without.
        return_sequences: bool, default True.
        return_state: bool, default False: also the states.
        return_attention: bool, default False: also the weights α.
        loop: see `RNN`.

    Call arguments:
        sequences: `(batch, time, features)`.
        memory: `(batch, source, size)`, such as the outputs of an encoder.
        initial_state: list of `(batch, size)`, the states of the cells in order; a may
            follow, or else begins as zeros.
        mask, training, lengths: of `sequences`; see `RNN`.
        memory_mask: bool `(batch, source)`; default the mask that `memory` carries.
        memory_lengths: int `(batch,)`, stands for a mask of the first steps.

    Returns:
        a, `(batch, time, units)`, or without `return_sequences` the last,
        `(batch, units)`; with `return_attention` a tuple of that and the weights,
        `(batch, time, source)` or `(batch, source)`; with `return_state` the states
        follow, `(batch, size)` each.

    Raises:
        ValueError: wrong cells, shapes or states; see the message.
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
        own = {name: kwargs[name] for name in ("dtype",) if name in kwargs}
        cell = AttentionDecoderCell(
            cells,
            attention,
            units=units,
            input_feeding=input_feeding,
            name="cell",
            **own,
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            loop=loop,
            **kwargs,
        )
        check_choice("return_attention", return_attention, (True, False))
        if return_attention and attention is None:
            raise ValueError(
                "`return_attention=True` needs an `attention`; received None"
            )
        self.return_attention = return_attention
        cell.returns_query = cell.input_feeding and return_attention

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
            if self._lacks_a(initial_state):
                a = ops.zeros((ops.shape(sequences)[0], self.cell.units))
                initial_state.append(a)
        rows, steps = {}, None
        if self.cell.attention:
            valid = self.cell.attention.valid(memory, memory_mask, memory_lengths)
            unknown = self.cell.input_feeding and memory.shape[1] is None
            if unknown and self.plan(sequences.shape).compiled:
                steps, memory, valid = with_known_sizes(memory, valid)
            rows = self.cell.memory_constants(memory, valid)
        return self.run_checked(
            sequences, initial_state, mask, training, lengths, rows=rows, steps=steps
        )

    def run(self, sequences, initial_state, mask, training, rows=None, steps=None):
        """See `SequenceLayer.run`.

        Args:
            rows: dict, the memory as constants of each row.
            steps: of the memory, if it is padded.
        """
        cell = self.cell
        seen = rows if cell.input_feeding else None
        outputs = super().run(sequences, initial_state, mask, training, rows=seen)
        if not cell.attention or (cell.input_feeding and not self.return_attention):
            return outputs
        output, *states = outputs if self.return_state else [outputs]
        k = cell.constants()
        vars(k).update(rows)
        loop = self.loop if self.plan(sequences.shape).compiled else "portable"
        if cell.input_feeding:
            output, query = tf.split(output, [cell.units, cell.query_size], axis=-1)
            _, weights = cell.look(query, k, loop)
        else:
            output, weights = cell.look(output, k, loop)
        if mask is None and not self.return_sequences and not sequences.shape[1]:
            mask = tf.ones(tf.shape(sequences)[:2], tf.bool)  # there may be no steps
        if mask is not None:
            there = ops.cast(self._is_there(mask), output.dtype)[..., None]
            output, weights = output * there, weights * there
        weights = [weights[..., :steps]] if self.return_attention else []
        outputs = output, *weights, *states
        return outputs if len(outputs) > 1 else output

    def _is_there(self, mask):
        """Where the loop has put out an h, and not zeros for the want of one."""
        mask = tf.reverse(mask, [1]) if self.go_backwards else mask
        if not self.zero_output_for_mask:
            mask = tf.cumsum(tf.cast(mask, tf.int32), 1) > 0
        return mask if self.return_sequences else tf.reduce_any(mask[:, -1:], 1)

    def _lacks_a(self, initial_state):
        given, sizes = len(tree.flatten(initial_state)), len(self.cell.state_size)
        return self.cell.input_feeding and given == sizes - 1

    def _check(self, sequences, memory, initial_state):
        """Checks, by shapes alone, what `RNN` does not know of."""
        shape = None if memory is None else tuple(memory.shape)
        self._check_memory(sequences.shape, shape)
        if initial_state is None:
            return
        shapes = [tuple(state.shape) for state in tree.flatten(initial_state)]
        sizes = self.cell.state_size[: -1 if self._lacks_a(initial_state) else None]
        if [shape[-1:] for shape in shapes] != [(size,) for size in sizes]:
            raise ValueError(
                f"`initial_state` of `{self.name}` must hold states of the sizes "
                f"{sizes}; received shapes {shapes}: give each state a `Dense` layer on"
                " those of the encoder, as `Seq2Seq(bridge='dense')` does"
            )

    def _check_memory(self, sequences_shape, shape):
        batch = sequences_shape[0]
        if self.cell.attention is None:
            return
        fits = shape is not None and len(shape) == 3
        if not fits or (None not in (shape[0], batch) and shape[0] != batch):
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
        own = {} if memory is None else {"memory": memory}
        return super().compute_output_spec(
            sequences, mask=mask, training=training, lengths=lengths, **own
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
        own = "cells", "attention", "units", "input_feeding"
        config |= {name: of_cell[name] for name in own}
        return config | {"return_attention": self.return_attention}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**with_parts(config, custom_objects))


def with_known_sizes(memory, valid):
    """Pads a memory of unknown steps to one of few lengths, which XLA compiles for."""
    if valid is None:
        valid = tf.ones(tf.shape(memory)[:2], tf.bool)
    steps, _, (memory, valid) = pad_steps([memory, valid])
    return steps, memory, valid
