"""Series that reservoirs are measured on: drawn, or measured on a laser."""

import numpy as np

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.datasets.shipped import shipped_file

BEFORE = 1000  # steps in which a series forgets how it was begun
STEP = 10  # of the integration, in a unit of time
DRAWS, LARGEST = 100, 10  # of a series that may diverge, and where it has


def mackey_glass(
    steps: int, *, rows: int = 1, tau: int = 17, seed: int = 0
) -> np.ndarray:
    """The Mackey-Glass equation, a standard of chaotic forecasting.

        dx/dt = 0.2 x(t-τ) / (1 + x(t-τ)¹⁰) - 0.1 x

    Integrated by Runge and Kutta's rule of order four in steps of 0.1, sampled once a
    unit of time and squashed as tanh(x - 1), as Jaeger did.

    Args:
        steps: positive int.
        rows: positive int, series from as many starts.
        tau: positive int, τ.
        seed: int, of the starts.

    Returns:
        Array `(rows, steps, 1)`, float64.

    Source: Mackey and Glass 1977; Jaeger 2001, The echo state approach.
    """
    for name, value in {"steps": steps, "rows": rows, "tau": tau}.items():
        check_positive_integer(name, value)
    h, delay = 1 / STEP, STEP * tau
    count = STEP * (BEFORE + steps)
    x = np.empty((delay + 1 + count, rows))
    draws = np.random.default_rng(seed).uniform(-1, 1, (delay + 1, rows))
    x[: delay + 1] = 1.2 + 0.2 * draws

    def slope(x, past):
        return 0.2 * past / (1 + past**10) - 0.1 * x

    for n in range(delay, delay + count):
        past, after = x[n - delay], x[n - delay + 1]
        middle = (past + after) / 2
        k1 = slope(x[n], past)
        k2 = slope(x[n] + h / 2 * k1, middle)
        k3 = slope(x[n] + h / 2 * k2, middle)
        k4 = slope(x[n] + h * k3, after)
        x[n + 1] = x[n] + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    sampled = x[delay + 1 :][STEP * BEFORE + STEP - 1 :: STEP]
    return np.tanh(sampled.T - 1)[..., None]


def narma(
    steps: int, *, order: int = 10, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The nonlinear autoregressive moving average, a standard of memory.

        yₜ₊₁ = 0.3 yₜ + 0.05 yₜ Σᵢ yₜ₋ᵢ + 1.5 uₜ₋ₙ₊₁ uₜ + 0.1,    i = 0 … n-1

    u is uniform in [0, 0.5]. A series that diverges is drawn anew.

    Args:
        steps: positive int.
        order: positive int, n; beyond about 12 every series diverges.
        seed: int.

    Returns:
        `(u, y)`, `(1, steps, 1)` each, float64: y at a step depends on u up to it.

    Raises:
        ValueError: an argument that is no positive int; 100 series have diverged.

    Source: Atiya and Parlos 2000.
    """
    check_positive_integer("steps", steps)
    check_positive_integer("order", order)
    rng, before = np.random.default_rng(seed), max(BEFORE, order)
    for _ in range(DRAWS):
        u = rng.uniform(0, 0.5, before + steps)
        y = moving_average(u, order)
        if y[-1] < LARGEST:
            # y at t + 1 is the answer to u at t.
            return u[None, before - 1 : -1, None], y[None, before:, None]
    raise ValueError(
        f"`order` must be smaller, or `steps`: {DRAWS} series diverged; received "
        f"{order} and {steps}"
    )


def moving_average(u, order):
    """y of `narma`; infinite from where it diverges on."""
    y = np.zeros(len(u))
    for t in range(order - 1, len(y) - 1):
        memory = y[t] * y[t - order + 1 : t + 1].sum()
        y[t + 1] = 0.3 * y[t] + 0.05 * memory + 1.5 * u[t - order + 1] * u[t] + 0.1
        if y[t + 1] >= LARGEST:
            y[t + 1 :] = np.inf
            break
    return y


def santa_fe() -> np.ndarray:
    """The intensity of a far-infrared laser in a chaotic state, data set A of the Santa
    Fe competition: 10,093 steps, from the package `reservoirpy`.

    Returns:
        Array `(1, 10093, 1)`, float64, integers from 0 to 255.

    Source: Weigend and Gershenfeld 1993; Hübner et al. 1989.
    """
    file = shipped_file("santa_fe", "reservoirpy", "datasets", "santafe_laser.npy")
    return np.load(file).astype(float).reshape(1, -1, 1)
