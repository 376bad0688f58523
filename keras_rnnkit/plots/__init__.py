"""Plots of training, predictions and attention: matplotlib figures and HTML."""

from keras_rnnkit.plots.attention import attention, attention_html
from keras_rnnkit.plots.figures import (
    ACCENT,
    INK,
    MUTED,
    confusion_matrix,
    legend_above,
    new_figure,
    training_curve,
)

__all__ = [
    "ACCENT",
    "INK",
    "MUTED",
    "attention",
    "attention_html",
    "confusion_matrix",
    "legend_above",
    "new_figure",
    "training_curve",
]
