"""Matplotlib figures of training and predictions."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, ACCENT, MUTED = "#1f2933", "#2563a8", "#9aa5b1"


def new_figure(**arguments) -> "Figure":
    """Returns an empty matplotlib figure that is not registered with pyplot.

    Args:
        **arguments: those of `matplotlib.figure.Figure`, such as `figsize`.

    Returns:
        `matplotlib.figure.Figure` with constrained layout.

    Raises:
        ImportError: matplotlib is not installed.

    Example:

    ```python
    import keras_rnnkit as rk

    figure = rk.plots.new_figure(figsize=(6, 3))
    panel = figure.subplots()
    panel.plot([1, 2, 4], color=rk.plots.ACCENT)
    figure.savefig("curve.png")
    ```
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`keras_rnnkit.plots` needs matplotlib: pip install 'keras_rnnkit[plots]'"
        ) from error
    return Figure(layout="constrained", **arguments)


def legend_above(panel: "Axes") -> None:
    """Draws the legend of a panel above it, where it hides no curve.

    Args:
        panel: `matplotlib.axes.Axes` with labeled curves.

    Example:

    ```python
    import keras_rnnkit as rk

    panel = rk.plots.new_figure().subplots()
    panel.plot([1, 2, 4], label="training")
    rk.plots.legend_above(panel)
    ```
    """
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2}
    panel.legend(frameon=False, ncols=9, **place)


def training_curve(history: Mapping[str, Sequence[float]], title: str = "") -> "Figure":
    """Draws each metric over the epochs, in one panel per metric.

    Args:
        history: dict of lists, `fit(...).history`; a `val_` metric shares the panel of
            its training metric.
        title: str, above the panels; default none.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.

    Example:

    ```python
    import keras_rnnkit as rk

    history = {"loss": [0.9, 0.5, 0.4], "val_loss": [1.0, 0.7, 0.6]}
    rk.plots.training_curve(history, "GRU").savefig("training.png")
    ```
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
    """Draws the confusion matrix of a classifier, with counts.

    Args:
        truth, predicted: int arrays `(examples,)` of class numbers.
        names: sequence of the names of the classes, in order.
        title: str, above the matrix; default none.

    Returns:
        `matplotlib.figure.Figure`. Rows are true classes, columns predicted ones; a
        darker cell holds a greater share of its row.

    Raises:
        ImportError: matplotlib is not installed.

    Example:

    ```python
    import keras_rnnkit as rk

    figure = rk.plots.confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], ["cat", "dog"])
    figure.savefig("confusion.png")
    ```
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
