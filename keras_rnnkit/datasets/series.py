"""Benchmark series for reservoirs: Mackey-Glass, NARMA and the Santa Fe laser."""

import numpy as np

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.datasets.shipped import shipped_file

WARMUP = 1000  # steps in which a series forgets its start
STEPS_PER_UNIT = 10  # of the integration, in a unit of time
MAX_DRAWS = 100  # of a series that may diverge
DIVERGED = 10  # a series that reaches this value has diverged


def mackey_glass(
    steps: int, *, rows: int = 1, tau: int = 17, seed: int = 0
) -> np.ndarray:
    """Returns chaotic series of the Mackey-Glass equation, a forecasting benchmark.

        dx/dt = 0.2 x(t-τ) / (1 + x(t-τ)¹⁰) - 0.1 x

    Integrated by the fourth-order Runge-Kutta method with step 0.1, sampled once per
    unit of time and squashed by tanh(x - 1), as in Jaeger 2001.

    Args:
        steps: positive int, the length of a series.
        rows: positive int, default 1, the number of series, each with its own start.
        tau: positive int, default 17, the delay τ.
        seed: int, default 0, of the random starts.

    Returns:
        Array `(rows, steps, 1)`, float64.

    Raises:
        ValueError: `steps`, `rows` or `tau` is no positive int.

    Source: Mackey and Glass 1977; Jaeger 2001, The echo state approach.

    Example:

    ```python
    import keras_rnnkit as rk

    series = rk.datasets.mackey_glass(1001)
    x, y = series[:, :-1], series[:, 1:]  # forecast one step ahead
    ```
    """
    for name, value in {"steps": steps, "rows": rows, "tau": tau}.items():
        check_positive_integer(name, value)
    h, delay = 1 / STEPS_PER_UNIT, STEPS_PER_UNIT * tau
    count = STEPS_PER_UNIT * (WARMUP + steps)
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
    sampled = x[delay + 1 :][
        STEPS_PER_UNIT * WARMUP + STEPS_PER_UNIT - 1 :: STEPS_PER_UNIT
    ]
    return np.tanh(sampled.T - 1)[..., None]


def narma(
    steps: int, *, order: int = 10, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a nonlinear autoregressive moving average, a benchmark of memory.

        yₜ₊₁ = 0.3 yₜ + 0.05 yₜ Σᵢ yₜ₋ᵢ + 1.5 uₜ₋ₙ₊₁ uₜ + 0.1,    i = 0 … n-1

    u is uniform in [0, 0.5]. A series that diverges is drawn again.

    Args:
        steps: positive int, the length of the series.
        order: positive int, default 10, n; beyond about 12 every series diverges.
        seed: int, default 0, of u.

    Returns:
        `(u, y)`, each float64 `(1, steps, 1)`; y depends on u up to the same step.

    Raises:
        ValueError: `steps` or `order` is no positive int, or 100 series diverge.

    Source: Atiya and Parlos 2000.

    Example:

    ```python
    import keras_rnnkit as rk

    u, y = rk.datasets.narma(2000, order=10)
    print(u.shape, y.shape)  # (1, 2000, 1) (1, 2000, 1)
    ```
    """
    check_positive_integer("steps", steps)
    check_positive_integer("order", order)
    rng, warmup = np.random.default_rng(seed), max(WARMUP, order)
    for _ in range(MAX_DRAWS):
        u = rng.uniform(0, 0.5, warmup + steps)
        y = moving_average(u, order)
        if y[-1] < DIVERGED:
            # y at t + 1 is the target for u at t.
            return u[None, warmup - 1 : -1, None], y[None, warmup:, None]
    raise ValueError(
        f"`order` must be smaller, or `steps`: {MAX_DRAWS} series diverged; received "
        f"{order} and {steps}"
    )


def moving_average(u, order):
    """The y of `narma`, infinite from where it diverges."""
    y = np.zeros(len(u))
    for t in range(order - 1, len(y) - 1):
        memory = y[t] * y[t - order + 1 : t + 1].sum()
        y[t + 1] = 0.3 * y[t] + 0.05 * memory + 1.5 * u[t - order + 1] * u[t] + 0.1
        if y[t + 1] >= DIVERGED:
            y[t + 1 :] = np.inf
            break
    return y


def santa_fe() -> np.ndarray:
    """Loads data set A of the Santa Fe competition: the intensity of a chaotic
    far-infrared laser in 10,093 steps. The package `reservoirpy` ships the data.

    Returns:
        Array `(1, 10093, 1)`, float64, integers from 0 to 255.

    Raises:
        ImportError: `reservoirpy` is not installed.

    Source: Weigend and Gershenfeld 1993; Hübner et al. 1989.

    Example:

    ```python
    import keras_rnnkit as rk

    series = rk.datasets.santa_fe() / 255
    x, y = series[:, :-1], series[:, 1:]  # forecast one step ahead
    ```
    """
    file = shipped_file("santa_fe", "reservoirpy", "datasets", "santafe_laser.npy")
    return np.load(file).astype(float).reshape(1, -1, 1)
