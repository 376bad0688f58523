"""What the measures of a reservoir find, each with a picture."""

from dataclasses import dataclass

import numpy as np

from keras_rnnkit.plots import ACCENT, INK, MUTED, new_figure
from keras_rnnkit.summary import Summarized

ZERO = 1e-300  # stands for zero where that has no place


@dataclass(frozen=True, repr=False)
class MemoryCapacity(Summarized):
    """How well inputs of steps before can be read from the states.

    Attributes:
        total: float, the sum over delays.
        by_delay: array, the squared correlation for delays of 1, 2, ... steps.
        bound: int, the number of units, which no reservoir exceeds (Jaeger 2001).
    """

    total: float
    by_delay: np.ndarray
    bound: int

    def plot(self):
        """Draws the capacity over the delay."""
        figure, panel = _panel("delay, steps", "squared correlation")
        delays = np.arange(1, len(self.by_delay) + 1)
        panel.fill_between(delays, self.by_delay, color=ACCENT, alpha=0.2)
        panel.plot(delays, self.by_delay, color=ACCENT)
        panel.set(ylim=(0, 1.02), xlim=(1, len(delays)))
        panel.set_title(f"memory capacity {self.total:.1f} of {self.bound}", color=INK)
        return figure


@dataclass(frozen=True, repr=False)
class Spectrum(Summarized):
    """The eigenvalues of one step without input about the state zero.

    Attributes:
        radius: float, the largest absolute value: below 1, a small state fades.
        eigenvalues: complex array.
    """

    radius: float
    eigenvalues: np.ndarray

    def plot(self):
        """Draws the eigenvalues and the unit circle."""
        figure, panel = _panel("real part", "imaginary part", size=(4.2, 4.2))
        angle = np.linspace(0, 2 * np.pi, 200)
        panel.plot(np.cos(angle), np.sin(angle), color=MUTED, linewidth=1)
        panel.scatter(self.eigenvalues.real, self.eigenvalues.imag, s=8, color=ACCENT)
        panel.set_aspect("equal")
        panel.set_title(f"effective spectral radius {self.radius:.3f}", color=INK)
        return figure


@dataclass(frozen=True, repr=False)
class Lyapunov(Summarized):
    """The rate at which neighbouring trajectories part.

    Attributes:
        exponent: float, nats a step: above 0, the reservoir is chaotic.
        rates: array, the rate of each step.
    """

    exponent: float
    rates: np.ndarray

    def plot(self):
        """Draws the mean over the steps so far."""
        figure, panel = _panel("steps", "nats a step")
        means = np.cumsum(self.rates) / np.arange(1, len(self.rates) + 1)
        panel.axhline(0, color=MUTED, linewidth=1)
        panel.plot(means, color=ACCENT)
        panel.set_title(f"largest Lyapunov exponent {self.exponent:.3f}", color=INK)
        return figure


@dataclass(frozen=True, repr=False)
class KernelRank(Summarized):
    """How many of several input streams the states tell apart.

    Attributes:
        rank: int, singular values above the tolerance.
        singular_values: array, of the matrix of last states, the largest first.
        tolerance: float.
    """

    rank: int
    singular_values: np.ndarray
    tolerance: float

    def plot(self):
        """Draws the singular values."""
        figure, panel = _panel("number", "singular value")
        panel.semilogy(np.maximum(self.singular_values, ZERO), color=ACCENT)
        panel.axhline(self.tolerance, color=MUTED, linewidth=1)
        panel.set_title(
            f"kernel rank {self.rank} of {len(self.singular_values)}", color=INK
        )
        return figure


@dataclass(frozen=True, repr=False)
class EchoState(Summarized):
    """Whether two start states converge under one input.

    Attributes:
        holds: bool.
        distances: array, between the two states, from the start on.
    """

    holds: bool
    distances: np.ndarray

    def plot(self):
        """Draws the distance over the steps."""
        figure, panel = _panel("steps", "distance of two states")
        panel.semilogy(np.maximum(self.distances, ZERO), color=ACCENT)
        title = "converge" if self.holds else "do not converge"
        panel.set_title(f"two start states {title}", color=INK)
        return figure


def _panel(xlabel, ylabel, size=(5.4, 3.4)):
    figure = new_figure(figsize=size)
    panel = figure.subplots()
    panel.set(xlabel=xlabel, ylabel=ylabel)
    panel.spines[["top", "right"]].set_visible(False)
    return figure, panel
