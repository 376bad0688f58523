"""The readout: the last `Dense` layers of a model, solved in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from keras_rnnkit.arguments import (
    check_at_least,
    check_choice,
    check_count,
    check_positive_integer,
)
from keras_rnnkit.internals import all_layers
from keras_rnnkit.reservoir.batches import Batches
from keras_rnnkit.reservoir.distributed import ReplicatedGram, current_strategy
from keras_rnnkit.reservoir.feature_extractor import feature_extractor_of
from keras_rnnkit.reservoir.progress_bar import ProgressBar
from keras_rnnkit.reservoir.ridge import RidgeRegression, SufficientStatistics
from keras_rnnkit.reservoir.samples import SampleReader
from keras_rnnkit.summary import Summarized
from keras_rnnkit.threads import few_threads


@dataclass(frozen=True, repr=False)
class Readout(Summarized):
    """The result of `fit_readout`.

    Attributes:
        ridge: float, the ridge that was chosen, or a list with one for each output.
        errors: dict from each ridge to its mean squared error over all outputs, on
            `validation_data` or else leave-one-out. Empty for a single ridge.
        count: float, the number of steps that were fitted, or the sum of their weights.

    Example:

    ```python
    model = keras.Sequential(
        [keras.Input((None, 1)), rk.ESN(100, seed=0), keras.layers.Dense(1)]
    )
    series = rk.datasets.mackey_glass(1001)  # (1, steps, 1)
    x, y = series[:, :-1], series[:, 1:]
    readout = rk.fit_readout(model, x, y, ridge=[1e-6, 1e-3])
    print(readout.ridge, readout.errors)
    ```
    """

    ridge: float | list[float]
    errors: dict[float, float]
    count: float


def fit_readout(
    model: keras.Model,
    x,
    y=None,
    *,
    ridge: float | Sequence[float] | np.ndarray = 1e-6,
    washout: int = 0,
    sample_weight=None,
    validation_data=None,
    batch_size: int = 32,
    training: bool | None = None,
    verbose: int | str = "auto",
) -> Readout:
    """Solves the last `Dense` layer of a model in closed form, in float64.

        W, b = argmin Σᵢ wᵢ ‖yᵢ - φᵢ W - b‖² + λ ‖W‖²

    φ are the outputs of the layers below, at every step if they return sequences. The
    data are read once (twice to choose a ridge), and memory does not grow with them:
    long sequences run in chunks of steps where all layers can. In a model with several
    outputs, the `Dense` layer of each is solved. Under a `tf.distribute` strategy, the
    replicas share the rows of each batch.

    Args:
        model: a built functional or sequential model that ends with linear `Dense`
            layers, with all other layers frozen, as reservoirs are. An intercept is
            fitted where a `Dense` layer has a bias.
        x: array `(rows, steps, features)`; a list of `(steps, features)` of different
            lengths, each a sequence of its own; or one sequence `(steps, features)`.
            Tables such as pandas's and a `tf.RaggedTensor` work too, and `(steps,)` for
            a series of one feature. For several inputs, a list or dict with one of
            these for each. Or a `tf.data.Dataset`, `keras.utils.PyDataset` or iterable
            of batches `(x, y)` or `(x, y, sample_weight)`.
        y: in the format of `x`, `(rows, steps, outputs)` for an output at every step,
            else `(rows, outputs)`; a list or dict with one for each output. None
            (default) if `x` yields batches.
        ridge: float >= 0, λ, or a list from which the best is chosen, by
            `validation_data` or else by the exact leave-one-out error of the steps.
            Default 1e-6.
        washout: int >= 0, how many steps to ignore at the start of every sequence.
            Default 0.
        sample_weight: array `(rows,)` or `(rows, steps)`, or a list of `(steps,)`.
            Masked steps never count. Default None, a weight of 1.
        validation_data: as `x`, or a tuple `(x, y)` or `(x, y, sample_weight)`, to
            choose a ridge. Default None.
        batch_size: int, how many rows of arrays or lists run side by side. Default 32.
        training: bool, whether layers run in training mode. Default None, True if a
            layer has noise.
        verbose: 1 for a progress bar, 0 for none, "auto" (default) for one after two
            seconds.

    Returns:
        `Readout`.

    Raises:
        ValueError: a wrong argument, model or shape, or data that are not finite, with
            the number of the row. The weights of the model do not change then.

    Example:

    ```python
    model = keras.Sequential(
        [keras.Input((None, 1)), rk.ESN(400, seed=0), keras.layers.Dense(1)]
    )
    series = rk.datasets.mackey_glass(3001)  # (1, steps, 1)
    x, y = series[:, :-1], series[:, 1:]
    readout = rk.fit_readout(model, x, y, ridge=[1e-9, 1e-6], washout=100)
    ```

    Source: Jaeger 2001; Lukoševičius 2012, A practical guide to applying ESNs.
    """
    ridges = list(ridge) if isinstance(ridge, (list, tuple, np.ndarray)) else [ridge]
    for each in ridges:
        check_at_least("ridge", each, 0)
    check_count("washout", washout)
    check_choice("verbose", verbose, ("auto", 0, 1))
    extractor = feature_extractor_of(model)
    if training is None:
        training = any(getattr(layer, "noise", 0) for layer in all_layers(model))
    check_positive_integer("batch_size", batch_size)
    batches = Batches(extractor, x, y, sample_weight, batch_size)
    has_choice = len(ridges) > 1
    can_choose = validation_data is not None or batches.is_repeatable
    if not ridges or (has_choice and not can_choose):
        raise ValueError(
            "`ridge` must be a number, or a list of numbers if there is "
            "`validation_data` or the data can be read twice; received "
            f"{ridge!r} and {type(x).__name__}"
        )
    reader = SampleReader(extractor, washout, training, verbose)
    solutions = [
        RidgeRegression(each, ridges) for each in collect_statistics(reader, batches)
    ]
    best, errors = np.zeros(len(solutions), int), {}
    if has_choice:
        error_of = RidgeRegression.leave_one_out_errors
        if validation_data is not None:
            is_tuple = isinstance(validation_data, tuple)
            validation_data = validation_data if is_tuple else (validation_data,)
            batches = Batches(extractor, *validation_data, batch_size=batch_size)
            reader = SampleReader(extractor, washout, False, verbose)
            error_of = RidgeRegression.squared_errors
        by_output = mean_errors(reader, batches, solutions, error_of)
        best = by_output.argmin(axis=1)
        means = by_output.mean(axis=0).tolist()
        errors = dict(zip(map(float, ridges), means, strict=True))
    for dense, solution, index in zip(extractor.readouts, solutions, best, strict=True):
        dense.kernel.assign(solution.kernels[index])
        if dense.use_bias:
            dense.bias.assign(solution.biases[index])
    chosen = [float(ridges[index]) for index in best]
    chosen = chosen if len(chosen) > 1 else chosen[0]
    return Readout(chosen, errors, float(solutions[0].statistics.count))


def collect_statistics(reader, batches) -> list[SufficientStatistics]:
    """The sufficient statistics of each readout, over all data."""
    readouts = reader.extractor.readouts
    statistics = [None] * len(readouts)

    def start(samples):
        """Makes the statistics of readouts that get their first samples."""
        for index, sample in enumerate(samples):
            if statistics[index] is None and sample is not None and len(sample[0]):
                statistics[index] = SufficientStatistics.shifted_by_mean(
                    *sample[:2], readouts[index].use_bias
                )

    if strategy := current_strategy():
        replicated = ReplicatedGram(strategy, reader)
        with ProgressBar(reader.verbose) as progress:
            for batch in reader.checked_batches(batches):
                if None in statistics:
                    for samples in reader.samples_of(batch):
                        start(samples)
                for grams in replicated.grams(statistics, batch):
                    for each, gram in zip(statistics, grams, strict=True):
                        if each is not None:
                            each.gram += gram
                    progress.advance()
    else:
        for samples in reader.samples(batches):
            start(samples)
            for each, sample in zip(statistics, samples, strict=True):
                if sample is not None and len(sample[0]):
                    each.add(*sample)
    if not all(each is not None and each.count > 0 for each in statistics):
        raise ValueError(
            "the data must hold a step that counts; received only steps that are "
            f"masked, of weight zero or within `washout={reader.washout}`"
        )
    return statistics


def mean_errors(reader, batches, solutions, error_of):
    """Mean squared errors `(readouts, ridges)`.

    Args:
        error_of: method of `RidgeRegression` that sums the squared errors of samples.
    """
    totals, counts = [0.0] * len(solutions), [0.0] * len(solutions)
    for samples in reader.samples(batches):
        for index, sample in enumerate(samples):
            if sample is not None:
                features, _, weights = sample
                solution = solutions[index]
                work = len(features) * solution.statistics.gram.size
                with np.errstate(all="ignore"), few_threads(work):
                    totals[index] = totals[index] + error_of(solution, *sample)
                counts[index] += len(features) if weights is None else weights.sum()
    if min(counts) <= 0:
        raise ValueError(
            "`validation_data` must hold a step that counts; received none"
        )
    errors = np.stack(totals) / np.array(counts)[:, None]
    if not np.isfinite(errors.min(axis=1)).all():
        raise ValueError(
            "`ridge` must include a value with a finite error; received none: the "
            "layers below may overflow"
        )
    return errors / np.array([[each.statistics.outputs] for each in solutions])
