"""Measures of a reservoir: what it remembers, and whether it forgets its start.

Each takes a layer that runs a `SplitCell`, such as `ESN`, and returns a result with a
`plot()`, a matplotlib figure.
"""

import warnings

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.arguments import check_count, check_positive_integer
from keras_rnnkit.cells import SplitCell
from keras_rnnkit.recurrence import as_arrays, run
from keras_rnnkit.reservoir.measured import (
    ZERO,
    EchoState,
    KernelRank,
    Lyapunov,
    MemoryCapacity,
    Spectrum,
)

CONVERGED = 1e-3  # of the first distance between two states


class EchoStateWarning(UserWarning):
    """Two start states of a reservoir did not converge: it has no echo states."""


def memory_capacity(
    layer: keras.layers.Layer,
    *,
    max_delay: int | None = None,
    steps: int | None = None,
    washout: int | None = None,
    ridge: float = 1e-12,
    seed: int = 0,
) -> MemoryCapacity:
    """The linear memory capacity for one white input, uniform in [-1, 1].

        MC = Σₖ r²(uₜ₋ₖ, ŷₖ,ₜ)

    ŷₖ is a linear readout of the state, fitted on one half of the steps; the squared
    correlation is that of the other half.

    Args:
        layer: of one input feature.
        max_delay: int, the largest k, default twice the units.
        steps: int, of each half, default 30 a unit, at least 2,000.
        washout: int, default and least `max_delay`.
        ridge: float, relative to the mean square of the states.
        seed: int, of the input.

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
    said = x_test @ np.linalg.solve(gram, x.T @ y)
    said, y_test = (v - v.mean(axis=0) for v in (said, y_test))
    square = np.sum(said * y_test, axis=0) ** 2
    both = np.sum(said**2, axis=0) * np.sum(y_test**2, axis=0)
    # Of nothing remembered, a squared correlation of 1 / steps is left on the mean.
    by_delay = np.maximum(square / np.maximum(both, ZERO) - 1 / steps, 0)
    return MemoryCapacity(float(by_delay.sum()), by_delay, units)


def effective_spectral_radius(layer: keras.layers.Layer) -> Spectrum:
    """The spectrum of one step about the state zero: of `(1 - α) I + α R` for an ESN
    with a tanh and without bias. It is the Jacobian of the cell's step.

    Args:
        layer: see `echo_state`.
    """
    cell = _split_cell(layer)
    k = cell.constants()
    states = cell.get_initial_state(1)
    sizes = [state.shape[-1] for state in states]
    x = tf.zeros([sum(sizes), _features(cell)], cell.compute_dtype)
    # Row i of the batch holds a copy of the state, so that one gradient for each column
    # of the Jacobian is had by looking at the whole batch at once.
    flat = tf.zeros([sum(sizes), sum(sizes)], cell.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(flat)
        _, new = cell.step(cell.project(x, k), tf.split(flat, sizes, -1), k)
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
    """The largest Lyapunov exponent under an input.

        λ = ⟨ln(|δₜ₊₁| / |δₜ|)⟩

    δ is a small difference of two states, which is scaled back after each step.

    Args:
        layer, inputs, steps, seed: see `echo_state`.
        washout: int, the steps that do not count.

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
    first = cell.get_initial_state(1)
    count = len(first)

    def step(x, both):
        states = _step(cell, x, both[:count])
        others = _step(cell, x, both[count:])
        differences = [b - a for a, b in zip(states, others, strict=True)]
        distance = tf.sqrt(sum(tf.reduce_sum(d * d) for d in differences))
        distance = tf.maximum(distance, limits.tiny)
        others = [
            a + d * small / distance for a, d in zip(states, differences, strict=True)
        ]
        rate = tf.math.log(distance / small)
        return tf.reshape(rate, [1, 1]), [*states, *others]

    apart = [rng.normal(size=state.shape) for state in first]
    size = np.sqrt(sum(np.sum(d * d) for d in apart))
    near = [a + small / size * d for a, d in zip(first, apart, strict=True)]
    rates = _run(step, cell, inputs, [*first, *near])[washout:, 0]
    return Lyapunov(float(rates.mean()), rates)


def kernel_rank(
    layer: keras.layers.Layer,
    *,
    streams: int | None = None,
    steps: int = 200,
    tolerance: float | None = None,
    seed: int = 0,
) -> KernelRank:
    """The number of input streams that the last states tell apart.

        rank [h⁽¹⁾ₜ … h⁽ᵐ⁾ₜ]

    Args:
        layer: see `echo_state`.
        streams: int, m, white inputs uniform in [-1, 1]; default the number of units.
        steps: int, of each stream.
        tolerance: float, below which a singular value counts for nothing; default the
            largest one times the matrix's larger side times the type's precision.
        seed: int, of the streams.

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
    """Whether the reservoir forgets where it began: runs it from two random states.

    Args:
        layer: a layer that runs a `SplitCell`, built or for one input feature.
        inputs: array or table `(steps, features)`, or `(steps,)` for one feature;
            default white, uniform in [-1, 1].
        steps: int, of the default input.
        seed: int, of the default input and of the two states.

    Warns:
        EchoStateWarning: the states did not come within 1/1000 of their first distance.

    Source: Jaeger 2001; Yildiz et al. 2012, Re-visiting the echo state property.
    """
    cell, inputs = _split_cell(layer), _inputs(layer, inputs, steps, seed)
    rng = np.random.default_rng(seed)
    first = [
        tf.constant(rng.uniform(-1, 1, (2, *state.shape[1:])), state.dtype)
        for state in cell.get_initial_state(2)
    ]

    def distance(states):
        return tf.sqrt(sum(tf.reduce_sum(tf.square(s[0] - s[1])) for s in states))

    def step(x, states):
        states = _step(cell, tf.repeat(x, 2, axis=0), states)
        return tf.reshape(distance(states), [1, 1]), states

    later = _run(step, cell, inputs, first)[:, 0]
    distances = np.concatenate([[float(distance(first))], later])
    holds = bool(distances[-1] <= CONVERGED * distances[0])
    if not holds:
        warnings.warn(
            f"`{layer.name}` has no echo states for this input: two start states were "
            f"{distances[0]:.3g} apart, and {distances[-1]:.3g} after {len(inputs)} "
            "steps: take a smaller `spectral_radius`",
            EchoStateWarning,
            stacklevel=2,
        )
    return EchoState(holds, distances)


def _split_cell(layer):
    """The cell of a layer, which is built if it has not been."""
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
    """`(steps, features)` in the type of the cell."""
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
    k = cell.constants()
    return cell.step(cell.project(x, k), states, k)[1]


def _run(step, cell, inputs, states):
    """What a step puts out, `(steps, 1)`, over `(steps, features)`."""

    @tf.function(autograph=False)
    def over_all(inputs, states):
        output = tf.zeros([1, 1], cell.compute_dtype)
        outputs, _ = run(step, inputs[:, None], states, output)
        return outputs[:, 0]

    states = [tf.cast(state, cell.compute_dtype) for state in states]
    return over_all(tf.constant(inputs), states).numpy().astype(float)


def _states(layer, inputs):
    """The states of all steps, `(batch, steps, units)`, in float64."""
    cell = layer.cell

    @tf.function(autograph=False)
    def over_all(inputs):
        first = cell.get_initial_state(inputs.shape[1])
        k = cell.constants()

        def step(z, states):
            return cell.step(z, states, k)

        return run(step, cell.project(inputs, k), first, first[0])[0]

    inputs = tf.constant(np.swapaxes(inputs, 0, 1), cell.compute_dtype)
    return np.swapaxes(over_all(inputs).numpy(), 0, 1).astype(float)
