"""Measures of a reservoir: its memory, its stability and its echo state property.

Each takes a layer that runs a `SplitCell`, such as `ESN`, and returns a result whose
`plot()` makes a matplotlib figure.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.arguments import check_count, check_positive_integer
from keras_rnnkit.cells import SplitCell
from keras_rnnkit.recurrence import as_arrays, run
from keras_rnnkit.reservoir.measure_results import (
    TINY,
    EchoState,
    KernelRank,
    Lyapunov,
    MemoryCapacity,
    Spectrum,
)

CONVERGED = 1e-3  # share of the initial distance between two states


class EchoStateWarning(UserWarning):
    """Two initial states did not converge: no echo state property."""


def memory_capacity(
    layer: keras.layers.Layer,
    *,
    max_delay: int | None = None,
    steps: int | None = None,
    washout: int | None = None,
    ridge: float = 1e-12,
    seed: int = 0,
) -> MemoryCapacity:
    """The linear memory capacity: how well states recall the inputs of earlier steps.

        MC = Σₖ r²(uₜ₋ₖ, ŷₖ,ₜ)

    The input u is white noise, uniform in [-1, 1]. ŷₖ is a linear readout of the
    states, fitted on the first half of the steps; r² is the squared correlation on the
    second half.

    Args:
        layer: a layer that runs a `SplitCell` with one input feature.
        max_delay: positive int, the largest k. Default twice the number of units.
        steps: positive int, the steps of each half. Default 30 per unit, at least
            2,000.
        washout: int >= 0, the first steps to ignore, at least `max_delay`. Default
            `max_delay`.
        ridge: float, relative to the mean square of the states. Default 1e-12.
        seed: int, of the input. Default 0.

    Returns:
        `MemoryCapacity`.

    Raises:
        ValueError: a wrong argument, or a layer with several input features.

    Example:

    ```python
    capacity = rk.reservoir.measures.memory_capacity(rk.ESN(50, seed=0))
    print(capacity.total, "of", capacity.bound)
    figure = capacity.plot()
    ```

    Source: Jaeger 2001, Short term memory in echo state networks.
    """
    cell = _split_cell(layer)
    if _features(cell) != 1:
        raise ValueError(
            f"`{layer.name}` must have one input feature; received {_features(cell)}"
        )
    units = cell.output_size
    max_delay = 2 * units if max_delay is None else max_delay
    steps = max(2000, 30 * units) if steps is None else steps
    washout = max_delay if washout is None else washout
    check_positive_integer("max_delay", max_delay)
    check_positive_integer("steps", steps)
    check_count("washout", washout)
    washout = max(max_delay, washout)
    rng = np.random.default_rng(seed)
    u = rng.uniform(-1, 1, washout + 2 * steps)
    states = _states(layer, u[None, :, None])[0, washout:]
    delayed = np.stack(
        [u[washout - k : len(u) - k] for k in range(1, max_delay + 1)], axis=1
    )
    halves = slice(steps), slice(steps, None)
    (x, x_test), (y, y_test) = ([v[h] for h in halves] for v in (states, delayed))
    x, x_test = (np.column_stack([v, np.ones(len(v))]) for v in (x, x_test))
    gram = x.T @ x
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    predicted = x_test @ np.linalg.solve(gram, x.T @ y)
    predicted, y_test = (v - v.mean(axis=0) for v in (predicted, y_test))
    covariance = np.sum(predicted * y_test, axis=0)
    variances = np.sum(predicted**2, axis=0) * np.sum(y_test**2, axis=0)
    # The expected squared correlation of independent series is 1 / steps.
    by_delay = np.maximum(covariance**2 / np.maximum(variances, TINY) - 1 / steps, 0)
    return MemoryCapacity(float(by_delay.sum()), by_delay, units)


def effective_spectral_radius(layer: keras.layers.Layer) -> Spectrum:
    """The spectrum of the cell's step, linearized at zero state and zero input.

    It is the spectrum of the Jacobian ∂sₜ₊₁/∂sₜ; for an ESN with tanh and no bias, of
    `(1 - α) I + α R`.

    Args:
        layer: a layer that runs a `SplitCell`, built or for one input feature.

    Returns:
        `Spectrum`.

    Raises:
        ValueError: another layer.

    Example:

    ```python
    spectrum = rk.reservoir.measures.effective_spectral_radius(rk.ESN(50, seed=0))
    print(spectrum.radius)
    ```
    """
    cell = _split_cell(layer)
    params = cell.constants()
    states = cell.get_initial_state(1)
    sizes = [state.shape[-1] for state in states]
    x = tf.zeros([sum(sizes), _features(cell)], cell.compute_dtype)
    # Row i of the batch is a copy of the state whose gradient is row i of the Jacobian,
    # so that one backward pass computes all of them.
    flat = tf.zeros([sum(sizes), sum(sizes)], cell.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        _, new = cell.step(cell.project(x, params), tf.split(flat, sizes, -1), params)
        diagonal = tf.linalg.diag_part(tf.concat(new, -1))
    jacobian = tape.gradient(diagonal, flat)
    eigenvalues = np.linalg.eigvals(jacobian.numpy().astype(float))
    return Spectrum(float(abs(eigenvalues).max()), eigenvalues)


def lyapunov_exponent(
    layer: keras.layers.Layer,
    inputs=None,
    *,
    steps: int = 2000,
    washout: int = 200,
    seed: int = 0,
) -> Lyapunov:
    """The largest Lyapunov exponent: the rate at which nearby trajectories diverge.

        λ = ⟨ln(|δₜ₊₁| / |δₜ|)⟩

    δ is a small difference between two states, rescaled after each step.

    Args:
        layer: a layer that runs a `SplitCell`, built or for one input feature.
        inputs: array or table `(steps, features)`, or `(steps,)` for one feature.
            Default None, white noise uniform in [-1, 1].
        steps: positive int, the steps of the default input. Default 2000.
        washout: int >= 0, the first steps to ignore. Default 200.
        seed: int, of the default input and of the difference. Default 0.

    Returns:
        `Lyapunov`.

    Raises:
        ValueError: a wrong argument or shape, or another layer.

    Example:

    ```python
    layer = rk.ESN(50, spectral_radius=1.2, seed=0)
    print(rk.reservoir.measures.lyapunov_exponent(layer).exponent)
    ```

    Source: Benettin et al. 1980; Sprott 2003.
    """
    cell, inputs = _split_cell(layer), _inputs(layer, inputs, steps, seed)
    check_count("washout", washout)
    if washout >= len(inputs):
        raise ValueError(
            f"`washout` must be less than the steps, {len(inputs)}; received {washout}"
        )
    limits = np.finfo(cell.compute_dtype)
    small, rng = np.sqrt(limits.eps), np.random.default_rng(seed)
    initial = cell.get_initial_state(1)
    count = len(initial)

    def step(x, carried):
        states = _step(cell, x, carried[:count])
        perturbed = _step(cell, x, carried[count:])
        differences = [b - a for a, b in zip(states, perturbed, strict=True)]
        distance = tf.sqrt(sum(tf.reduce_sum(d * d) for d in differences))
        distance = tf.maximum(distance, limits.tiny)
        perturbed = [
            a + d * small / distance for a, d in zip(states, differences, strict=True)
        ]
        rate = tf.math.log(distance / small)
        return tf.reshape(rate, [1, 1]), [*states, *perturbed]

    directions = [rng.normal(size=state.shape) for state in initial]
    norm = np.sqrt(sum(np.sum(d * d) for d in directions))
    nearby = [a + small / norm * d for a, d in zip(initial, directions, strict=True)]
    rates = _run(step, cell, inputs, [*initial, *nearby])[washout:, 0]
    return Lyapunov(float(rates.mean()), rates)


def kernel_rank(
    layer: keras.layers.Layer,
    *,
    streams: int | None = None,
    steps: int = 200,
    tolerance: float | None = None,
    seed: int = 0,
) -> KernelRank:
    """The kernel rank: how many input streams the last states separate linearly.

        rank [h⁽¹⁾ₜ … h⁽ᵐ⁾ₜ]

    Args:
        layer: a layer that runs a `SplitCell`, built or for one input feature.
        streams: positive int, m, the number of inputs, white noise uniform in [-1, 1].
            Default the number of units.
        steps: positive int, the steps of each stream. Default 200.
        tolerance: float; singular values above it count. Default the largest one times
            the larger dimension of the matrix times the machine epsilon.
        seed: int, of the streams. Default 0.

    Returns:
        `KernelRank`.

    Raises:
        ValueError: a wrong argument, or another layer.

    Example:

    ```python
    result = rk.reservoir.measures.kernel_rank(rk.ESN(50, seed=0))
    print(result.rank, "of", len(result.singular_values))
    ```

    Source: Legenstein and Maass 2007, Edge of chaos and prediction of computational
    performance for neural circuit models.
    """
    cell = _split_cell(layer)
    streams = cell.output_size if streams is None else streams
    check_positive_integer("streams", streams)
    check_positive_integer("steps", steps)
    rng = np.random.default_rng(seed)
    last = _states(layer, rng.uniform(-1, 1, (streams, steps, _features(cell))))[:, -1]
    values = np.linalg.svd(last, compute_uv=False)
    if tolerance is None:
        tolerance = values[0] * max(last.shape) * np.finfo(cell.compute_dtype).eps
    return KernelRank(int(np.sum(values > tolerance)), values, float(tolerance))


def echo_state(
    layer: keras.layers.Layer, inputs=None, *, steps: int = 1000, seed: int = 0
) -> EchoState:
    """Tests the echo state property: whether two random initial states converge.

    Args:
        layer: a layer that runs a `SplitCell`, built or for one input feature.
        inputs: array or table `(steps, features)`, or `(steps,)` for one feature.
            Default None, white noise uniform in [-1, 1].
        steps: positive int, the steps of the default input. Default 1000.
        seed: int, of the default input and of the two states. Default 0.

    Returns:
        `EchoState`.

    Raises:
        ValueError: a wrong argument or shape, or another layer.

    Warns:
        EchoStateWarning: the final distance between the states is more than 1/1000 of
            the initial one.

    Example:

    ```python
    result = rk.reservoir.measures.echo_state(rk.ESN(50, seed=0))
    print(result.holds, result.distances[-1])
    ```

    Source: Jaeger 2001; Yildiz et al. 2012, Re-visiting the echo state property.
    """
    cell, inputs = _split_cell(layer), _inputs(layer, inputs, steps, seed)
    rng = np.random.default_rng(seed)
    initial = [
        tf.constant(rng.uniform(-1, 1, (2, *state.shape[1:])), state.dtype)
        for state in cell.get_initial_state(2)
    ]

    def distance(states):
        return tf.sqrt(sum(tf.reduce_sum(tf.square(s[0] - s[1])) for s in states))

    def step(x, states):
        states = _step(cell, tf.repeat(x, 2, axis=0), states)
        return tf.reshape(distance(states), [1, 1]), states

    later = _run(step, cell, inputs, initial)[:, 0]
    distances = np.concatenate([[float(distance(initial))], later])
    holds = bool(distances[-1] <= CONVERGED * distances[0])
    if not holds:
        warnings.warn(
            f"`{layer.name}` lacks the echo state property for this input: two initial "
            f"states were {distances[0]:.3g} apart, and {distances[-1]:.3g} after "
            f"{len(inputs)} steps: take a smaller `spectral_radius`",
            EchoStateWarning,
            stacklevel=2,
        )
    return EchoState(holds, distances)


def _split_cell(layer):
    """The `SplitCell` of a layer; builds the layer if necessary."""
    cell = getattr(layer, "cell", None)
    if not isinstance(cell, SplitCell):
        raise ValueError(
            "the layer must run a `SplitCell`, as `ESN` does; received "
            f"{getattr(layer, 'name', layer)}"
        )
    if not layer.built:
        layer.build((None, None, 1))
    return cell


def _features(cell) -> int:
    return cell.kernel.shape[0]


def _inputs(layer, inputs, steps, seed):
    """Inputs `(steps, features)` in the dtype of the cell; see `echo_state`."""
    cell = layer.cell
    if inputs is None:
        check_positive_integer("steps", steps)
        inputs = np.random.default_rng(seed).uniform(-1, 1, (steps, _features(cell)))
    inputs = as_arrays("inputs", inputs)
    if isinstance(inputs, list):
        raise ValueError(
            f"`inputs` must be one sequence (steps, {_features(cell)}); received a list"
            f" of {len(inputs)}"
        )
    inputs = np.asarray(inputs)
    if inputs.ndim == 1 and _features(cell) == 1:
        inputs = inputs[:, None]
    if inputs.ndim != 2 or inputs.shape[1] != _features(cell) or not len(inputs):
        raise ValueError(
            f"`inputs` must have shape (steps, {_features(cell)}); received shape "
            f"{inputs.shape}"
        )
    return inputs.astype(cell.compute_dtype)


def _step(cell, x, states):
    """The states after one step."""
    params = cell.constants()
    return cell.step(cell.project(x, params), states, params)[1]


def _run(step, cell, inputs, states):
    """The outputs `(steps, 1)` of a step function over inputs `(steps, features)`."""

    @tf.function(autograph=False)
    def run_all(inputs, states):
        output = tf.zeros([1, 1], cell.compute_dtype)
        outputs, _ = run(step, inputs[:, None], states, output)
        return outputs[:, 0]

    states = [tf.cast(state, cell.compute_dtype) for state in states]
    return run_all(tf.constant(inputs), states).numpy().astype(float)


def _states(layer, inputs):
    """The outputs of all steps, `(batch, steps, units)`, in float64."""
    cell = layer.cell

    @tf.function(autograph=False)
    def run_all(inputs):
        initial = cell.get_initial_state(inputs.shape[1])
        params = cell.constants()

        def step(z, states):
            return cell.step(z, states, params)

        return run(step, cell.project(inputs, params), initial, initial[0])[0]

    inputs = tf.constant(np.swapaxes(inputs, 0, 1), cell.compute_dtype)
    return np.swapaxes(run_all(inputs).numpy(), 0, 1).astype(float)
