"""What is timed: the cells, the shapes, and the jobs."""

from typing import NamedTuple


class Cell(NamedTuple):
    """A recurrent network: layers of one kind."""

    kind: str
    gates: int
    layers: int = 1
    directions: int = 1


CELLS = {
    "SimpleRNN": Cell("SimpleRNN", 1),
    "LSTM": Cell("LSTM", 4),
    "GRU": Cell("GRU", 3),
    "BiLSTM": Cell("LSTM", 4, directions=2),
    "LSTM x 2": Cell("LSTM", 4, layers=2),
}
SHAPES = [  # batch, time, features, units
    (1, 100, 64, 128),
    (32, 100, 64, 128),
    (64, 100, 128, 256),
    (128, 50, 32, 64),
    (16, 1000, 8, 32),
]
QUICK_CELLS = ["LSTM", "GRU"]
QUICK_SHAPES = [(1, 100, 64, 128), (32, 100, 64, 128), (16, 200, 8, 32)]


class Case(NamedTuple):
    """A cell at a shape, doing a job.

    `job` is "train", the gradients of all outputs by all weights, or "predict", the
    outputs; `masked` tells whether the sequences have lengths of their own.
    """

    cell: str
    batch: int
    time: int
    features: int
    units: int
    job: str
    masked: bool

    @property
    def shape(self) -> str:
        return shape_label(self.batch, self.time, self.features, self.units)

    def __str__(self):
        mask = "mask" if self.masked else "no mask"
        return f"{self.cell}, {self.shape}, {self.job}, {mask}"

    @property
    def flops(self) -> int:
        """The operations of the matrix products.

        Training takes three times those of the outputs, less the gradient by the input.
        """
        kind, units = CELLS[self.cell], self.units
        rows = 2 * self.batch * self.time * kind.gates * units * kind.directions
        widths = [self.features] + [kind.directions * units] * (kind.layers - 1)
        forward = sum(rows * (width + units) for width in widths)
        if self.job == "predict":
            return forward
        return 3 * forward - rows * self.features


def shape_label(batch, time, features, units) -> str:
    return f"{batch} × {time} × {features} → {units}"


def grid(quick: bool) -> list[Case]:
    """All cases."""
    cells, shapes = (QUICK_CELLS, QUICK_SHAPES) if quick else (CELLS, SHAPES)
    return [
        Case(cell, *shape, job, masked)
        for cell in cells
        for shape in shapes
        for job in ("train", "predict")
        for masked in (False, True)
    ]
