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
from keras_rnnkit.reservoir.body import body_of
from keras_rnnkit.reservoir.data import Batches
from keras_rnnkit.reservoir.replicas import Replicas, current_strategy
from keras_rnnkit.reservoir.rows import Progress, Rows
from keras_rnnkit.reservoir.sums import Ridge, Sums
from keras_rnnkit.summary import Summarized
from keras_rnnkit.threads import few_threads


@dataclass(frozen=True, repr=False)
class Readout(Summarized):
    """What `fit_readout` found.

    Attributes:
        ridge: the ridge taken, a float, or a list of one for each output.
        errors: dict of the mean squared error by ridge, over all outputs: of steps left
            out one at a time, or of the validation data. Empty for a single ridge.
        count: the steps that were fitted, or the sum of their weights.
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

    φ is what the layers below give, for every step if they give a sequence. The data
    are gone through once (twice to choose a ridge), in memory that does not grow with
    them: sequences too are run some steps at a time where all layers can. A model of
    several outputs has each of its `Dense` layers solved. Under a `tf.distribute`
    strategy, replicas share the rows of each batch and their sums are reduced.

    Args:
        model: a built functional or sequential model that ends with linear `Dense`
            layers, all other layers frozen, as reservoirs are. An intercept is solved
            where the layer has a bias.
        x: array `(rows, steps, features)`; a list of `(steps, features)` of several
            lengths, of which each begins anew; or one sequence `(steps, features)`.
            Tables such as pandas's and a `tf.RaggedTensor` too, and `(steps,)` for a
            series of one feature. Of several inputs, a list or dict of one for each.
            Or a `tf.data.Dataset`, `keras.utils.PyDataset` or iterable of batches
            `(x, y)` or `(x, y, sample_weight)`.
        y: in the form of `x`, `(rows, steps, outputs)` for a sequence, else `(rows,
            outputs)`; a list or dict of one for each output.
        ridge: float >= 0, λ, or a list of which the best is taken: by validation data,
            or else by the exact error of leaving out one step at a time.
        washout: int >= 0, the steps at the start of every sequence that do not count.
        sample_weight: array `(rows,)` or `(rows, steps)`, or a list of `(steps,)`.
            Masked steps never count.
        validation_data: as `x`, or a tuple `(x, y)`.
        batch_size: int, rows of arrays or of a list that are run side by side.
        training: bool, whether layers run as in training; None if one has noise.
        verbose: 1 for a progress bar, 0 for none, "auto" for one after two seconds.

    Returns:
        `Readout`.

    Raises:
        ValueError: a wrong argument, model or shape, data that are not finite, with the
            row. The model's weights are then as they were.

    Source: Jaeger 2001; Lukoševičius 2012, A practical guide to applying ESNs.
    """
    ridges = list(ridge) if isinstance(ridge, (list, tuple, np.ndarray)) else [ridge]
    for each in ridges:
        check_at_least("ridge", each, 0)
    check_count("washout", washout)
    check_choice("verbose", verbose, ("auto", 0, 1))
    body = body_of(model)
    if training is None:
        training = any(getattr(layer, "noise", 0) for layer in all_layers(model))
    check_positive_integer("batch_size", batch_size)
    batches = Batches(body, x, y, sample_weight, batch_size)
    choose = len(ridges) > 1
    if not ridges or (choose and validation_data is None and not batches.repeats):
        raise ValueError(
            "`ridge` must be a number or, with data that can be gone through twice or "
            f"`validation_data`, a list of them; received {ridge!r} and "
            f"{type(x).__name__}"
        )
    rows = Rows(body, washout, training, verbose)
    sums = sum_up(rows, batches)
    solutions = [Ridge(each, ridges) for each in sums]
    best, errors = np.zeros(len(solutions), int), {}
    if choose:
        score = Ridge.left_out
        if validation_data is not None:
            pair = validation_data
            pair = pair if isinstance(pair, tuple) else (pair,)
            batches = Batches(body, *pair, batch_size=batch_size)
            rows, score = Rows(body, washout, False, verbose), Ridge.squares
        found = mean_errors(rows, batches, solutions, score)
        best = found.argmin(axis=1)
        errors = dict(zip(map(float, ridges), found.mean(axis=0).tolist(), strict=True))
    for dense, solution, number in zip(body.readouts, solutions, best, strict=True):
        dense.kernel.assign(solution.kernels[number])
        if dense.use_bias:
            dense.bias.assign(solution.biases[number])
    taken = [float(ridges[number]) for number in best]
    taken = taken if len(taken) > 1 else taken[0]
    return Readout(taken, errors, float(sums[0].count))


def sum_up(rows, batches) -> list[Sums]:
    """The sums of each readout, over all data."""
    sums = [None] * len(rows.body.readouts)

    def add(parts, into):
        for number, part in enumerate(parts):
            if part is None or not len(part[0]):
                continue
            if sums[number] is None:
                intercept = rows.body.readouts[number].use_bias
                sums[number] = Sums.about(*part[:2], intercept)
            if into:
                sums[number].add(*part)

    if strategy := current_strategy():
        replicas = Replicas(strategy, rows)
        with Progress(rows.verbose) as progress:
            for batch in rows.checked(batches):
                if None in sums:
                    for parts in rows.parts_of(batch):
                        add(parts, into=False)
                for found in replicas.grams(sums, batch):
                    for each, gram in zip(sums, found, strict=True):
                        if each is not None:
                            each.gram += gram
                    progress.advance()
    else:
        for parts in rows.parts(batches):
            add(parts, into=True)
    if not all(each is not None and each.count > 0 for each in sums):
        raise ValueError(
            "the data must hold a step that counts; received none but masked ones, "
            f"those of weight zero and `washout={rows.washout}`"
        )
    return sums


def mean_errors(rows, batches, solutions, score):
    """Mean squared errors `(readouts, ridges)`.

    Args:
        score: method of `Ridge` that sums up the errors of rows.
    """
    totals, counts = [0.0] * len(solutions), [0.0] * len(solutions)
    for parts in rows.parts(batches):
        for number, part in enumerate(parts):
            if part is not None:
                features, _, weights = part
                work = len(features) * solutions[number].sums.gram.size
                with np.errstate(all="ignore"), few_threads(work):
                    totals[number] = totals[number] + score(solutions[number], *part)
                counts[number] += len(features) if weights is None else weights.sum()
    if min(counts) <= 0:
        raise ValueError(
            "`validation_data` must hold a step that counts; received none"
        )
    errors = np.stack(totals) / np.array(counts)[:, None]
    if not np.isfinite(errors.min(axis=1)).all():
        raise ValueError(
            "`ridge` must hold one of finite error; received none: the layers below may"
            " overflow"
        )
    return errors / np.array([[each.sums.outputs] for each in solutions])
