"""The cases that the benchmarks time: cells, shapes and jobs."""

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
    """A cell, a shape and a job.

    `job` is "predict", which computes the outputs, or "train", which computes the
    gradients of all outputs with respect to all weights. `masked` is whether the
    sequences differ in length.
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
        """Floating-point operations of the matrix products.

        Training takes three times those of prediction, minus the gradient with respect
        to the input.
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
    """Returns all cases."""
    cells, shapes = (QUICK_CELLS, QUICK_SHAPES) if quick else (CELLS, SHAPES)
    return [
        Case(cell, *shape, job, masked)
        for cell in cells
        for shape in shapes
        for job in ("train", "predict")
        for masked in (False, True)
    ]
