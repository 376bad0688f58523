"""A step of a decoder that reads from a memory: a cell that is made of cells."""

from collections.abc import Sequence
from types import SimpleNamespace

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import (
    PACKAGE,
    check_choice,
    check_positive_integer,
)
from keras_rnnkit.cells import SplitCell
from keras_rnnkit.recurrence import are_only_summed, keep
from keras_rnnkit.seq2seq.attention import Attention


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionDecoderCell(SplitCell):
    """Cells upon each other, the top one of which looks at a memory.

        h = cells(xₜ, aₜ₋₁, sₜ₋₁)          c, α = attention(h, memory)
        aₜ = tanh([c, h] Wa)

    With input feeding (Luong et al. 2015) the attentional vector a of the step before
    is seen by the lowest cell, its input being `xₜ W + aₜ₋₁ Wf`, and is the last of the
    states; it begins as zeros. Without, all steps look at once, after the loop, which
    is faster.

    It runs on the loop of `AttentionDecoder` alone, which gives it the memory.

    Args: see `AttentionDecoder`.
    """

    def __init__(
        self,
        cells: SplitCell | Sequence[SplitCell],
        attention: Attention | None,
        *,
        units: int | None = None,
        input_feeding: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        cells = list(cells) if isinstance(cells, (list, tuple)) else [cells]
        for cell in cells:
            if not isinstance(cell, SplitCell) or not cell.is_split:
                raise ValueError(
                    "`cells` must be cells of `keras_rnnkit`, or of your own "
                    f"`SplitCell`; received {cell}"
                )
        if not cells or len({id(cell) for cell in cells}) < len(cells):
            raise ValueError(f"`cells` must be different cells; received {cells}")
        if not isinstance(attention, Attention | None):
            raise ValueError(
                "`attention` must be a layer such as `BahdanauAttention(64)`, or None;"
                f" received {attention}"
            )
        check_choice("input_feeding", input_feeding, (True, False))
        if units is not None:
            check_positive_integer("units", units)
            if attention is None:
                raise ValueError(
                    f"`units` is the size of what attention returns; received {units} "
                    "without an `attention`"
                )
        self.cells = cells
        self.attention = attention
        dtypes = {part.compute_dtype for part in (self, *self.parts)}
        if len(dtypes) > 1:
            raise ValueError(
                "`cells` and `attention` must compute in the `dtype` of the decoder, "
                f"{self.compute_dtype}; received {', '.join(sorted(dtypes))}"
            )
        self.given_units = units
        self.query_size = cells[-1].output_size
        self.units = units or self.query_size
        self.input_feeding = bool(input_feeding and attention)
        self.returns_query = False

    @property
    def state_size(self):
        sizes = [size for cell in self.cells for size in sizes_of(cell)]
        return [*sizes, self.units] if self.input_feeding else sizes

    @property
    def output_size(self):
        """Of a, of h or of both, as the loop is to return."""
        if not self.input_feeding:
            return self.query_size
        return self.units + (self.query_size if self.returns_query else 0)

    def build(self, input_shape, memory_shape=None):
        shape = input_shape
        for cell in self.cells:
            if not cell.built:
                cell.build(shape)
                cell.built = True
            shape = (shape[0], cell.output_size)
        gates, self._widths, self._feeds_sum = self._look_at_cells(input_shape)
        if self.attention is None:
            return
        if memory_shape is None:
            raise ValueError(f"`{self.name}` needs a memory; received none")
        if not self.attention.built:
            self.attention.build(memory_shape, query_shape=shape)
            self.attention.built = True
        both = memory_shape[-1] + self.query_size
        self.output_kernel = self.add_weight(
            (both, self.units), "glorot_uniform", name="output_kernel"
        )
        if self.input_feeding:
            self.feeding_kernel = self.add_weight(
                (self.units, gates), "glorot_uniform", name="feeding_kernel"
            )

    def _look_at_cells(self, input_shape):
        """The size of what the lowest cell projects and of each cell's product, and
        whether the lowest sees the two in their sum alone."""
        widths, sums = [], []

        def trace(training):
            x = tf.zeros((1, input_shape[-1]), self.compute_dtype)
            first = self.cells[0]
            for cell in self.cells:
                k = cell.constants()
                vars(k).update(cell.row_constants(1, training))
                states = cell.get_initial_state(1)
                r = tf.identity(cell.recur(states, k))
                if cell is first:
                    z = tf.identity(cell.project(x, k))
                    widths.append(z.shape[-1])
                    noise = cell.draw_noise((1,), training)
                    cell.pointwise(z, r, tree.flatten(states), k, noise)
                    sums.append(are_only_summed(z, r))
                widths.append(r.shape[-1])

        with tf.init_scope():
            for training in (False, True):
                widths.clear()
                tf.function(trace, autograph=False).get_concrete_function(training)
        return widths[0], widths[1:], all(sums)

    # What belongs to a part is in `k` under its number, as `1_kernel`.

    def constants(self):
        k = super().constants()
        for number, part in enumerate(self.parts):
            vars(k).update(_prefixed(number, vars(part.constants())))
        return k

    def row_constants(self, batch_size, training=False):
        own = {}
        for number, cell in enumerate(self.cells):
            own |= _prefixed(number, cell.row_constants(batch_size, training))
        return own

    def memory_constants(self, memory, valid):
        """The row constants of a memory `(batch, source, features)`, of which the steps
        of the mask `valid` count, or all of them."""
        if self.attention is None:
            return {}
        memory = ops.cast(memory, self.compute_dtype)
        own = {"memory": memory, "keys": self.attention.project(memory)}
        return own if valid is None else own | {"valid": valid}

    def draw_noise(self, shape, training=False):
        noise = [cell.draw_noise(shape, training) or [] for cell in self.cells]
        return noise if any(noise) else None

    @property
    def parts(self):
        """The cells, the lowest first, and the attention."""
        return [*self.cells, self.attention] if self.attention else self.cells

    def _of(self, number, k):
        start = f"{number}_"
        own = {n[len(start) :]: v for n, v in vars(k).items() if n.startswith(start)}
        return SimpleNamespace(**own)

    def _own_states(self, states):
        """The states, cell by cell."""
        states = iter(states)
        return [[next(states) for _ in sizes_of(cell)] for cell in self.cells]

    # The equations

    def project(self, inputs, k):
        return self.cells[0].project(inputs, self._of(0, k))

    def recur(self, states, k):
        """The products with the states of all cells, side by side, and that with a:
        added to the lowest cell's, where this adds both to z in any case."""
        products = [
            cell.recur(own, self._of(number, k))
            for number, (cell, own) in enumerate(
                zip(self.cells, self._own_states(states), strict=True)
            )
        ]
        if self.input_feeding:
            fed = ops.matmul(states[-1], k.feeding_kernel)
            if self._feeds_sum:
                products[0] += fed
            else:
                products.append(fed)
        return ops.concatenate(products, axis=-1) if len(products) > 1 else products[0]

    def pointwise(self, z, r, states, k, noise=None):
        query, new_states = self._run_cells(z, r, states, k, noise)
        if not self.input_feeding:
            return query, new_states
        a, _ = self.look(query, k)
        output = ops.concatenate([a, query], axis=-1) if self.returns_query else a
        return output, [*new_states, a]

    def look(self, query, k, loop="portable"):
        """Returns a and the weights.

        Args:
            query: h, `(batch, size)` or `(batch, steps, size)`.
            k: `constants` and `memory_constants`.
            loop: how scores of several steps are taken; see `Attention.attend`.
        """
        several = len(query.shape) == 3
        own_k = self._of(len(self.cells), k)
        own_k.loop = loop
        context, weights = self.attention.attend(
            query if several else query[:, None],
            k.memory,
            k.keys,
            vars(k).get("valid"),
            own_k,
        )
        if not several:
            context, weights = context[:, 0], weights[:, 0]
        both = ops.concatenate([context, query], axis=-1)
        return ops.tanh(keep(ops.matmul(both, k.output_kernel))), weights

    def decode(self, inputs, states, k, noise=None):
        """A single step: returns the decoder's output, the weights, or None, and the
        states."""
        z, r = self.project(inputs, k), self.recur(states, k)
        query, states = self._run_cells(z, r, states, k, noise)
        if self.attention is None:
            return query, None, states
        a, weights = self.look(query, k)
        return a, weights, [*states, a] if self.input_feeding else states

    def _run_cells(self, z, r, states, k, noise):
        """h and the new states of the cells."""
        feeds_z = self.input_feeding and not self._feeds_sum
        widths = self._widths + ([z.shape[-1]] if feeds_z else [])
        products = tf.split(r, widths, axis=-1) if len(widths) > 1 else [r]
        if feeds_z:
            z = z + products.pop()
        h, new_states = None, []
        parts = zip(self.cells, self._own_states(states), products, strict=True)
        for number, (cell, own, product) in enumerate(parts):
            own_k = self._of(number, k)
            z = keep(cell.project(h, own_k)) if number else z
            own_noise = (noise[number] or None) if noise else None
            h, own = cell.pointwise(z, product, own, own_k, own_noise)
            new_states += own
        return h, new_states

    def step_constants(self, inputs, states, training):
        raise ValueError(
            f"`{self.name}` has no memory of its own: run it by `AttentionDecoder`"
        )

    def get_initial_state(self, batch_size=None):
        """Returns what the cells begin with, flat, and zeros for a."""
        states = [cell.get_initial_state(batch_size) for cell in self.cells]
        if self.input_feeding:
            states.append(ops.zeros((batch_size, self.units), self.compute_dtype))
        return tree.flatten(states)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return super().get_config() | {
            "cells": [serialize(cell) for cell in self.cells],
            "attention": self.attention and serialize(self.attention),
            "units": self.given_units,
            "input_feeding": self.input_feeding,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**with_parts(config, custom_objects))


def with_parts(config, custom_objects=None):
    """The arguments that a configuration tells, cells and attention made anew."""
    deserialize = keras.saving.deserialize_keras_object
    config = dict(config)
    config["cells"] = [deserialize(each, custom_objects) for each in config["cells"]]
    if config["attention"] is not None:
        config["attention"] = deserialize(config["attention"], custom_objects)
    return config


def sizes_of(cell) -> list[int]:
    """The sizes of a cell's states."""
    return tree.flatten(cell.state_size)


def _prefixed(number, values):
    return {f"{number}_{name}": value for name, value in values.items()}
