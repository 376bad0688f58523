"""Pictures of a model's training and answers, as matplotlib figures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, ACCENT, MUTED = "#1f2933", "#2563a8", "#9aa5b1"


def new_figure(**arguments) -> "Figure":
    """An empty figure that belongs to no window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`keras_rnnkit.plots` needs matplotlib: pip install 'keras_rnnkit[plots]'"
        ) from error
    return Figure(layout="constrained", **arguments)


def legend_above(panel: "Axes") -> None:
    """Puts the legend of a panel above it, where no curve is."""
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
    panel.legend(frameon=False, ncols=9, **place)


def training_curve(history: Mapping[str, Sequence[float]], title: str = "") -> "Figure":
    """Draws each metric of a training over its epochs, its own panel each.

    Args:
        history: `fit(...).history`; a `val_` metric is drawn beside its own.
        title: str, above the panels.

    Returns:
        `matplotlib.figure.Figure`.
    """
    names = [name for name in history if not name.startswith(("val_", "learning"))]
    figure = new_figure(figsize=(4.5 * len(names), 3.4))
    figure.suptitle(title, color=INK)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        epochs = np.arange(1, len(history[name]) + 1)
        panel.plot(epochs, history[name], color=ACCENT, label="training")
        if f"val_{name}" in history:
            panel.plot(epochs, history[f"val_{name}"], color=MUTED, label="validation")
            legend_above(panel)
        panel.set(xlabel="epoch", ylabel=name, xlim=(1, len(epochs)))
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def confusion_matrix(
    truth, predicted, names: Sequence[str], title: str = ""
) -> "Figure":
    """Draws how often each class was taken for each other one.

    Args:
        truth, predicted: int arrays of class numbers.
        names: the classes' names.
        title: str, above the matrix.

    Returns:
        `matplotlib.figure.Figure`.
    """
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (np.asarray(truth), np.asarray(predicted)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 0.5 * len(names) + 1.5
    figure = new_figure(figsize=(side, side))
    panel = figure.subplots()
    panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.5 else INK
            panel.text(column, row, count, ha="center", va="center", color=color)
    panel.set_xticks(range(len(names)), names)
    panel.set_yticks(range(len(names)), names)
    panel.set(xlabel="predicted", ylabel="true", title=title)
    panel.spines[:].set_visible(False)
    return figure
