"""Recurrent cells on top of each other, as the base of a larger cell."""

from types import SimpleNamespace

import tensorflow as tf
from keras import tree

from keras_rnnkit.cells import SplitCell
from keras_rnnkit.recurrence import are_only_summed, save_residual


class CellStack(SplitCell):
    """Base class of a cell that is made of cells.

    The parameters of cell i are in `params` with a prefix, such as `1_kernel` for the
    `kernel` of cell 1.

    Args:
        cells: a `SplitCell`, or a list of them, the lowest first.

    Raises:
        ValueError: `cells` holds something else, or the same cell twice.
    """

    def __init__(self, cells, **kwargs):
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
        self.cells = cells

    @property
    def parts(self):
        """The layers that parameters come from, the lowest cell first."""
        return self.cells

    def build_cells(self, input_shape):
        """Builds the cells and returns the shape of the top one's output."""
        shape = input_shape
        for cell in self.cells:
            if not cell.built:
                cell.build(shape)
                cell.built = True
            shape = (shape[0], cell.output_size)
        self._input_width, self._widths, self._only_sums = self._analyze(input_shape)
        return shape

    def _analyze(self, input_shape):
        """Traces a step of the cells.

        Returns:
            The width of the lowest cell's z, the width of each cell's r, and whether
            the lowest cell uses z and r only as their sum.
        """
        widths, sums = [], []

        def trace(training):
            x = tf.zeros((1, input_shape[-1]), self.compute_dtype)
            first = self.cells[0]
            for cell in self.cells:
                params = cell.constants()
                vars(params).update(cell.row_constants(1, training))
                states = cell.get_initial_state(1)
                r = tf.identity(cell.recur(states, params))
                if cell is first:
                    z = tf.identity(cell.project(x, params))
                    widths.append(z.shape[-1])
                    noise = cell.draw_noise((1,), training)
                    cell.pointwise(z, r, tree.flatten(states), params, noise)
                    sums.append(are_only_summed(z, r))
                widths.append(r.shape[-1])

        with tf.init_scope():
            for training in (False, True):
                widths.clear()
                tf.function(trace, autograph=False).get_concrete_function(training)
        return widths[0], widths[1:], all(sums)

    def constants(self):
        params = super().constants()
        for number, part in enumerate(self.parts):
            vars(params).update(_prefixed(number, vars(part.constants())))
        return params

    def row_constants(self, batch_size, training=False):
        row_params = {}
        for number, cell in enumerate(self.cells):
            own = cell.row_constants(batch_size, training)
            row_params |= _prefixed(number, own)
        return row_params

    def draw_noise(self, shape, training=False):
        noise = [cell.draw_noise(shape, training) or [] for cell in self.cells]
        return noise if any(noise) else None

    def project(self, inputs, params):
        return self.cells[0].project(inputs, params_of_part(0, params))

    def recur_cells(self, states, params):
        """Returns the product of each cell with its states."""
        return [
            cell.recur(own, params_of_part(number, params))
            for number, (cell, own) in enumerate(
                zip(self.cells, self._states_by_cell(states), strict=True)
            )
        ]

    def run_cells(self, z, products, states, params, noise):
        """Returns the output of the top cell and the new states of all cells."""
        h, new_states = None, []
        parts = zip(self.cells, self._states_by_cell(states), products, strict=True)
        for number, (cell, own, product) in enumerate(parts):
            own_params = params_of_part(number, params)
            z = save_residual(cell.project(h, own_params)) if number else z
            own_noise = (noise[number] or None) if noise else None
            h, own = cell.pointwise(z, product, own, own_params, own_noise)
            new_states += own
        return h, new_states

    def _states_by_cell(self, states):
        states = iter(states)
        return [[next(states) for _ in flat_state_sizes(cell)] for cell in self.cells]


def params_of_part(number, params):
    """The parameters of one part, without their prefix."""
    prefix = f"{number}_"
    values = vars(params).items()
    own = {n[len(prefix) :]: v for n, v in values if n.startswith(prefix)}
    return SimpleNamespace(**own)


def flat_state_sizes(cell) -> list[int]:
    """The sizes of a cell's states."""
    return tree.flatten(cell.state_size)


def _prefixed(number, values):
    return {f"{number}_{name}": value for name, value in values.items()}
