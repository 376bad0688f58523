"""One step of a decoder with attention: stacked cells that read from a memory."""

from collections.abc import Sequence

import keras
import tensorflow as tf
from keras import ops, tree

from keras_rnnkit.arguments import (
    PACKAGE,
    check_choice,
    check_positive_integer,
)
from keras_rnnkit.cells import SplitCell
from keras_rnnkit.recurrence import save_residual
from keras_rnnkit.seq2seq.attention import Attention
from keras_rnnkit.seq2seq.cell_stack import (
    CellStack,
    flat_state_sizes,
    params_of_part,
)


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionDecoderCell(CellStack):
    """Recurrent cells on top of each other, the top one with attention to a memory.

        h = cells(xₜ, aₜ₋₁, sₜ₋₁)          c, α = attention(h, memory)
        aₜ = tanh([c, h] Wa)

    With input feeding (Luong et al. 2015), the input of the lowest cell is
    `xₜ W + aₜ₋₁ Wf`, and the attentional vector a is the last state, initially zero.
    Without it, the attention of all steps is computed after the loop, which is faster.

    Only `AttentionDecoder` can run this cell, because it passes the memory.

    Args:
        cells: a `SplitCell`, such as `rk.GRUCell(64)`, or a list of them, the lowest
            first.
        attention: an `Attention` layer, or None.
        units: positive int, the size of a; default that of h.
        input_feeding: bool, default True: the lowest cell reads a of the previous step.
        return_query: bool, default False: with input feeding, the output is `[a, h]`.
        **kwargs: those of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: an argument is invalid, or `dtype` differs between the parts.

    Example:

    ```python
    import keras_rnnkit as rk

    cells = [rk.GRUCell(32), rk.GRUCell(64)]
    cell = rk.seq2seq.AttentionDecoderCell(cells, rk.LuongAttention(64, "general"))
    print(cell.state_size)  # [32, 64, 64]
    ```
    """

    def __init__(
        self,
        cells: SplitCell | Sequence[SplitCell],
        attention: Attention | None,
        *,
        units: int | None = None,
        input_feeding: bool = True,
        return_query: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(cells, **kwargs)
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
                    f"`units` is the output size of `attention`; received {units} "
                    "without an `attention`"
                )
        self.attention = attention
        dtypes = {part.compute_dtype for part in (self, *self.parts)}
        if len(dtypes) > 1:
            raise ValueError(
                "`cells` and `attention` must compute in the `dtype` of the decoder, "
                f"{self.compute_dtype}; received {', '.join(sorted(dtypes))}"
            )
        self.given_units = units
        self.query_size = self.cells[-1].output_size
        self.units = units or self.query_size
        self.input_feeding = bool(input_feeding and attention)
        self.return_query = return_query

    @property
    def state_size(self):
        sizes = [size for cell in self.cells for size in flat_state_sizes(cell)]
        return [*sizes, self.units] if self.input_feeding else sizes

    @property
    def output_size(self):
        """The size of what the loop returns: a, h or both."""
        if not self.input_feeding:
            return self.query_size
        return self.units + (self.query_size if self.return_query else 0)

    def build(self, input_shape, memory_shape=None):
        query_shape = self.build_cells(input_shape)
        if self.attention is None:
            return
        if memory_shape is None:
            raise ValueError(f"`{self.name}` needs a memory; received none")
        if not self.attention.built:
            self.attention.build(memory_shape, query_shape=query_shape)
            self.attention.built = True
        both = memory_shape[-1] + self.query_size
        self.output_kernel = self.add_weight(
            (both, self.units), "glorot_uniform", name="output_kernel"
        )
        if self.input_feeding:
            self.feeding_kernel = self.add_weight(
                (self.units, self._input_width),
                "glorot_uniform",
                name="feeding_kernel",
            )

    @property
    def parts(self):
        """The cells, the lowest first, and the attention."""
        return [*self.cells, self.attention] if self.attention else self.cells

    def memory_constants(self, memory, valid):
        """Returns the row constants of a memory, by name.

        Args:
            memory: `(batch, source, features)`.
            valid: bool `(batch, source)`, the mask of the memory, or None.
        """
        if self.attention is None:
            return {}
        memory = ops.cast(memory, self.compute_dtype)
        rows = {"memory": memory, "keys": self.attention.project(memory)}
        return rows if valid is None else rows | {"valid": valid}

    def recur(self, states, params):
        """Returns the products of all cells with their states, and that of a, side by
        side. The latter is added to the lowest cell's r if that cell adds r to z."""
        products = self.recur_cells(states, params)
        if self.input_feeding:
            fed = ops.matmul(states[-1], params.feeding_kernel)
            if self._only_sums:
                products[0] += fed
            else:
                products.append(fed)
        return ops.concatenate(products, axis=-1) if len(products) > 1 else products[0]

    def pointwise(self, z, r, states, params, noise=None):
        query, new_states = self._run_cells(z, r, states, params, noise)
        if not self.input_feeding:
            return query, new_states
        a, _ = self.attend(query, params)
        output = ops.concatenate([a, query], axis=-1) if self.return_query else a
        return output, [*new_states, a]

    def attend(self, query, params, loop="portable"):
        """Returns a and the attention weights.

        Args:
            query: h, `(batch, size)` or `(batch, steps, size)`.
            params: `constants` and `memory_constants`.
            loop: str, how the scores of many steps are computed; see
                `Attention.attend`.
        """
        has_steps = len(query.shape) == 3
        own_params = params_of_part(len(self.cells), params)
        own_params.loop = loop
        context, weights = self.attention.attend(
            query if has_steps else query[:, None],
            params.memory,
            params.keys,
            vars(params).get("valid"),
            own_params,
        )
        if not has_steps:
            context, weights = context[:, 0], weights[:, 0]
        both = ops.concatenate([context, query], axis=-1)
        return ops.tanh(save_residual(ops.matmul(both, params.output_kernel))), weights

    def decode(self, inputs, states, params, noise=None):
        """Runs a single step.

        Returns:
            The decoder's output, the attention weights or None, and the new states.
        """
        z, r = self.project(inputs, params), self.recur(states, params)
        query, states = self._run_cells(z, r, states, params, noise)
        if self.attention is None:
            return query, None, states
        a, weights = self.attend(query, params)
        return a, weights, [*states, a] if self.input_feeding else states

    def _run_cells(self, z, r, states, params, noise):
        """Returns h and the new states of the cells."""
        adds_to_z = self.input_feeding and not self._only_sums
        widths = self._widths + ([z.shape[-1]] if adds_to_z else [])
        products = tf.split(r, widths, axis=-1) if len(widths) > 1 else [r]
        if adds_to_z:
            z = z + products.pop()
        return self.run_cells(z, products, states, params, noise)

    def step_constants(self, inputs, states, training):
        raise ValueError(
            f"`{self.name}` cannot run without a memory: use `AttentionDecoder`"
        )

    def get_initial_state(self, batch_size=None):
        """Returns the initial states of the cells in a flat list, and zeros for a."""
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
            "return_query": self.return_query,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**deserialize_parts(config, custom_objects))


def deserialize_parts(config, custom_objects=None):
    """A configuration with its cells and attention as layers."""
    deserialize = keras.saving.deserialize_keras_object
    config = dict(config)
    config["cells"] = [deserialize(each, custom_objects) for each in config["cells"]]
    if config["attention"] is not None:
        config["attention"] = deserialize(config["attention"], custom_objects)
    return config
