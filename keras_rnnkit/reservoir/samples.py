"""The samples that a readout is fitted on: the features and targets of steps."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.reservoir.progress_bar import ProgressBar


class SampleReader:
    """Computes the features of data and selects the steps to fit.

    Washout, masked and padded steps are left out.

    Args:
        extractor: `FeatureExtractor`.
        washout: int, the steps to leave out at the start of each sequence.
        training: bool, whether layers run in training mode.
        verbose: 1, 0 or "auto"; see `fit_readout`.
    """

    def __init__(self, extractor, washout, training, verbose):
        self.extractor = extractor
        self.washout = washout
        self.training = training
        self.verbose = verbose

    def samples(self, batches):
        """Yields a list for each chunk of steps, with one entry for each readout.

        An entry is `(features, targets, weights)`, where weights may be None. It is
        None while a readout of the last step waits for later chunks.
        """
        with ProgressBar(self.verbose) as progress:
            for batch in self.checked_batches(batches):
                for samples in self.samples_of(batch):
                    yield samples
                    progress.advance()

    def samples_of(self, batch):
        """Yields what `samples` does, for one batch."""
        x = batch.x
        for start, features, masks in self.extractor.extract(
            x, batch.lengths, self.training
        ):
            has_next = self.extractor.has_next_chunk(x, start)
            yield [
                self._select(f.numpy(), mask, y, batch, start, has_next)
                for f, mask, y in zip(features, masks, batch.ys, strict=True)
            ]

    def checked_batches(self, batches):
        """Yields each `Batch` with checked shapes and values: `x` as tensors, the rest
        as arrays."""
        readouts = self.extractor.readouts
        for batch in batches:
            x = keras.tree.map_structure(tf.convert_to_tensor, batch.x)
            sequences = max(keras.tree.flatten(x), key=lambda each: len(each.shape))
            ys = [
                self._as_targets(*each, sequences)
                for each in zip(batch.ys, readouts, self.extractor.names, strict=True)
            ]
            w = None if batch.weights is None else np.asarray(batch.weights, float)
            if w is not None and w.shape not in (
                sequences.shape[:1],
                sequences.shape[:2],
            ):
                raise ValueError(
                    f"`sample_weight` must have shape {tuple(sequences.shape[:1])} or "
                    f"{tuple(sequences.shape[:2])}; received shape {w.shape}"
                )
            batch = batch._replace(x=x, ys=ys, weights=w)
            self._check_washout(batch, sequences)
            given = {"x": keras.tree.flatten(x), "y": ys, "sample_weight": [w]}
            for name, arrays in given.items():
                for array in arrays:
                    check_finite(name, array, batch.row_numbers)
            if w is not None and w.min(initial=0) < 0:
                raise ValueError(f"`sample_weight` must be >= 0; received {w.min()}")
            yield batch

    def _as_targets(self, y, dense, name, x):
        """The targets of a readout as an array, with its shape checked."""
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
        """Raises `ValueError` unless each sequence has steps after the washout."""
        if not self.washout:
            return
        steps = "one output per sequence"
        if all(y.ndim > 2 for y in batch.ys):
            lengths = batch.lengths
            steps = x.shape[1] if lengths is None else lengths.min()
            if self.washout < steps:
                return
            if lengths is not None:
                steps = f"{steps} of `x[{batch.row_numbers[lengths.argmin()]}]`"
        raise ValueError(
            f"`washout` must be less than the steps of the data, {steps}; received "
            f"{self.washout}"
        )

    def _select(self, features, mask, y, batch, start, has_next):
        """The samples of a chunk for one readout; see `samples`."""
        if features.ndim == 2:
            return None if has_next else (features, y, batch.last_step_weights())
        w = batch.weights
        steps = slice(start, start + features.shape[1])
        if not has_next and steps.stop != y.shape[1]:
            raise ValueError(
                "the layers below a readout must keep the number of steps; received "
                f"{steps.stop} for {y.shape[1]}"
            )
        y = y[:, steps]
        mask = valid_steps(mask, batch.lengths, steps)
        if w is not None:
            w = np.broadcast_to(w[:, None] if w.ndim == 1 else w[:, steps], y.shape[:2])
        after_washout = slice(max(0, self.washout - start), None)
        features, y = features[:, after_washout], y[:, after_washout]
        w = None if w is None else w[:, after_washout].reshape(-1)
        features = features.reshape(-1, features.shape[-1])
        y = y.reshape(-1, y.shape[-1])
        if mask is not None:
            selected = np.asarray(mask)[:, after_washout].reshape(-1)
            features, y = features[selected], y[selected]
            w = None if w is None else w[selected]
        return features, y, w


def valid_steps(mask, lengths, steps):
    """The mask of a slice of steps, False after the end of each sequence, or None."""
    if lengths is None:
        return mask
    is_within = np.arange(steps.start, steps.stop) < lengths[:, None]
    return is_within if mask is None else np.asarray(mask) & is_within


def check_finite(name, array, row_numbers=None):
    """Raises `ValueError` that names the first row of an array that is not finite.

    Args:
        row_numbers: the numbers of the rows in the data; default those in the array.
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
    number = row if row_numbers is None else row_numbers[row]
    raise ValueError(
        f"`{name}` must be finite; received {value} in row {number}{place}"
    )
