"""Results of the measures of a reservoir, with their plots."""

from dataclasses import dataclass

import numpy as np

from keras_rnnkit.plots import ACCENT, INK, MUTED, new_figure
from keras_rnnkit.summary import Summarized

TINY = 1e-300  # replaces zero in logarithms and divisors


@dataclass(frozen=True, repr=False)
class MemoryCapacity(Summarized):
    """The result of `memory_capacity`.

    Attributes:
        total: float, the sum over delays.
        by_delay: array, the squared correlation for delays of 1, 2, ... steps.
        bound: int, the number of units, the upper bound of `total` (Jaeger 2001).
    """

    total: float
    by_delay: np.ndarray
    bound: int

    def plot(self):
        """Plots the capacity against the delay; returns a matplotlib figure."""
        figure, axes = _new_axes("delay, steps", "squared correlation")
        delays = np.arange(1, len(self.by_delay) + 1)
        axes.fill_between(delays, self.by_delay, color=ACCENT, alpha=0.2)
        axes.plot(delays, self.by_delay, color=ACCENT)
        axes.set(ylim=(0, 1.02), xlim=(1, len(delays)))
        axes.set_title(f"memory capacity {self.total:.1f} of {self.bound}", color=INK)
        return figure


@dataclass(frozen=True, repr=False)
class Spectrum(Summarized):
    """The result of `effective_spectral_radius`.

    Attributes:
        radius: float, the largest absolute eigenvalue; below 1, a small state decays.
        eigenvalues: complex array.
    """

    radius: float
    eigenvalues: np.ndarray

    def plot(self):
        """Plots the eigenvalues and the unit circle; returns a matplotlib figure."""
        figure, axes = _new_axes("real part", "imaginary part", size=(4.2, 4.2))
        angle = np.linspace(0, 2 * np.pi, 200)
        axes.plot(np.cos(angle), np.sin(angle), color=MUTED, linewidth=1)
        axes.scatter(self.eigenvalues.real, self.eigenvalues.imag, s=8, color=ACCENT)
        axes.set_aspect("equal")
        axes.set_title(f"effective spectral radius {self.radius:.3f}", color=INK)
        return figure


@dataclass(frozen=True, repr=False)
class Lyapunov(Summarized):
    """The result of `lyapunov_exponent`.

    Attributes:
        exponent: float, nats per step; above 0, the reservoir is chaotic.
        rates: array, the rate of divergence at each step after the washout.
    """

    exponent: float
    rates: np.ndarray

    def plot(self):
        """Plots the running mean of the rates; returns a matplotlib figure."""
        figure, axes = _new_axes("steps", "nats per step")
        means = np.cumsum(self.rates) / np.arange(1, len(self.rates) + 1)
        axes.axhline(0, color=MUTED, linewidth=1)
        axes.plot(means, color=ACCENT)
        axes.set_title(f"largest Lyapunov exponent {self.exponent:.3f}", color=INK)
        return figure


@dataclass(frozen=True, repr=False)
class KernelRank(Summarized):
    """The result of `kernel_rank`.

    Attributes:
        rank: int, the number of singular values above the tolerance.
        singular_values: array, of the matrix of last states, in descending order.
        tolerance: float.
    """

    rank: int
    singular_values: np.ndarray
    tolerance: float

    def plot(self):
        """Plots the singular values; returns a matplotlib figure."""
        figure, axes = _new_axes("number", "singular value")
        axes.semilogy(np.maximum(self.singular_values, TINY), color=ACCENT)
        axes.axhline(self.tolerance, color=MUTED, linewidth=1)
        axes.set_title(
            f"kernel rank {self.rank} of {len(self.singular_values)}", color=INK
        )
        return figure


@dataclass(frozen=True, repr=False)
class EchoState(Summarized):
    """The result of `echo_state`.

    Attributes:
        holds: bool, whether the two states converged.
        distances: array, between the two states, before the first step and after each.
    """

    holds: bool
    distances: np.ndarray

    def plot(self):
        """Plots the distance against the steps; returns a matplotlib figure."""
        figure, axes = _new_axes("steps", "distance between two states")
        axes.semilogy(np.maximum(self.distances, TINY), color=ACCENT)
        title = "converge" if self.holds else "do not converge"
        axes.set_title(f"two initial states {title}", color=INK)
        return figure


def _new_axes(xlabel, ylabel, size=(5.4, 3.4)):
    figure = new_figure(figsize=size)
    axes = figure.subplots()
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
