"""Rows of features and targets: what a readout is solved from."""

import math
import time

import keras
import numpy as np
import tensorflow as tf

PATIENCE = 2.0  # seconds without a progress bar


class Rows:
    """Runs data through a body, and hands on the steps that count.

    Args:
        body: `Body`.
        washout: int, the steps at the start of each sequence that do not count.
        training: bool.
        verbose: 1, 0 or "auto"; see `fit_readout`.
    """

    def __init__(self, body, washout, training, verbose):
        self.body = body
        self.washout = washout
        self.training = training
        self.verbose = verbose

    def parts(self, batches):
        """Yields, chunk by chunk, a list of one for each readout: `(features, targets,
        weights)` of rows, weights maybe None, or None where the output is still to
        come."""
        with Progress(self.verbose) as progress:
            for batch in self.checked(batches):
                for parts in self.parts_of(batch):
                    yield parts
                    progress.advance()

    def parts_of(self, batch):
        """The same of one batch."""
        x = batch.x
        for start, features, masks in self.body.features(
            x, batch.lengths, self.training
        ):
            more = self.body.has_more(x, start)
            yield [
                self._part(f.numpy(), mask, y, batch, start, more)
                for f, mask, y in zip(features, masks, batch.ys, strict=True)
            ]

    def checked(self, batches):
        """Yields each `Batch` with the right shapes, tensors and arrays."""
        readouts = self.body.readouts
        for batch in batches:
            x = keras.tree.map_structure(tf.convert_to_tensor, batch.x)
            first = max(keras.tree.flatten(x), key=lambda each: len(each.shape))
            ys = [
                self._targets(*each, first)
                for each in zip(batch.ys, readouts, self.body.names, strict=True)
            ]
            w = None if batch.weights is None else np.asarray(batch.weights, float)
            if w is not None and w.shape not in (first.shape[:1], first.shape[:2]):
                raise ValueError(
                    f"`sample_weight` must have shape {tuple(first.shape[:1])} or "
                    f"{tuple(first.shape[:2])}; received shape {w.shape}"
                )
            batch = batch._replace(x=x, ys=ys, weights=w)
            self._check_washout(batch, first)
            given = {"x": keras.tree.flatten(x), "y": ys, "sample_weight": [w]}
            for name, arrays in given.items():
                for array in arrays:
                    check_finite(name, array, batch.rows)
            if w is not None and w.min(initial=0) < 0:
                raise ValueError(f"`sample_weight` must be >= 0; received {w.min()}")
            yield batch

    def _targets(self, y, dense, name, x):
        """The targets of a readout as an array of the right shape."""
        y = np.asarray(y)
        if dense.units == 1 and y.ndim == len(dense.input.shape) - 1:
            y = y[..., None]
        shape = (*x.shape[: len(dense.output.shape) - 1], dense.units)
        if y.shape != shape:
            raise ValueError(
                f"`y` of `{name}` must have shape {shape}; received shape {y.shape}"
            )
        return y

    def _check_washout(self, batch, x):
        if not self.washout:
            return
        steps = "one output a sequence"
        if all(y.ndim > 2 for y in batch.ys):
            lengths = batch.lengths
            steps = x.shape[1] if lengths is None else lengths.min()
            if self.washout < steps:
                return
            if lengths is not None:
                steps = f"{steps} of `x[{batch.rows[lengths.argmin()]}]`"
        raise ValueError(
            f"`washout` must be less than the steps of the data, {steps}; received "
            f"{self.washout}"
        )

    def _part(self, features, mask, y, batch, start, more):
        if features.ndim == 2:
            return None if more else (features, y, batch.weights_of_last())
        w = batch.weights
        steps = slice(start, start + features.shape[1])
        if not more and steps.stop != y.shape[1]:
            raise ValueError(
                "the layers below a readout must keep the number of steps; received "
                f"{steps.stop} for {y.shape[1]}"
            )
        y = y[:, steps]
        mask = within(mask, batch.lengths, steps)
        if w is not None:
            w = np.broadcast_to(w[:, None] if w.ndim == 1 else w[:, steps], y.shape[:2])
        keep = slice(max(0, self.washout - start), None)
        features, y = features[:, keep], y[:, keep]
        w = None if w is None else w[:, keep].reshape(-1)
        features = features.reshape(-1, features.shape[-1])
        y = y.reshape(-1, y.shape[-1])
        if mask is not None:
            kept = np.asarray(mask)[:, keep].reshape(-1)
            features, y = features[kept], y[kept]
            w = None if w is None else w[kept]
        return features, y, w


def within(mask, lengths, steps):
    """The mask of some steps of a batch, False where the sequences have ended."""
    if lengths is None:
        return mask
    there = np.arange(steps.start, steps.stop) < lengths[:, None]
    return there if mask is None else np.asarray(mask) & there


class Progress:
    """A progress bar, which with `verbose="auto"` comes only if it takes long."""

    def __init__(self, verbose):
        self._patience = {0: math.inf, 1: 0.0, "auto": PATIENCE}[verbose]
        self._chunks, self._bar = 0, None

    def __enter__(self):
        return self

    def advance(self):
        """One chunk more is done."""
        self._chunks += 1
        if self._chunks == 1:  # which compiles
            self._start = time.monotonic()
        if self._bar is None and time.monotonic() - self._start >= self._patience:
            self._bar = keras.utils.Progbar(None, unit_name="chunk")
        if self._bar is not None:
            self._bar.update(self._chunks)

    def __exit__(self, *error):
        if self._bar is not None and not any(error):
            self._bar.update(self._chunks, finalize=True)


def check_finite(name, array, rows=None):
    """Raises `ValueError` with the first row that is not finite.

    Args:
        rows: the numbers of the rows; default those of the array.
    """
    array = None if array is None else np.asarray(array)
    if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
        return
    finite = np.isfinite(array).reshape(len(array), -1)
    row = int(np.flatnonzero(~finite.all(axis=1))[0])
    value = array.reshape(len(array), -1)[row, np.argmin(finite[row])]
    place = ""
    if array.ndim > 2 or (name == "sample_weight" and array.ndim > 1):
        steps = np.isfinite(array[row]).reshape(array.shape[1], -1).all(axis=1)
        place = f", step {int(np.argmin(steps))}"
    number = row if rows is None else rows[row]
    raise ValueError(
        f"`{name}` must be finite; received {value} in row {number}{place}"
    )
