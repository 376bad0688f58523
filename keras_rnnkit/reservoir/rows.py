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
                for parts in self.parts_of(*batch):
                    yield parts
                    progress.advance()

    def parts_of(self, x, ys, w):
        """The same of one batch."""
        for start, features, masks in self.body.features(x, None, self.training):
            more = self.body.has_more(x, start)
            yield [
                self._part(f.numpy(), mask, y, w, start, more)
                for f, mask, y in zip(features, masks, ys, strict=True)
            ]

    def checked(self, batches):
        """Yields batches `(x, [y], w)` of the right shapes, tensors and arrays."""
        done, readouts = 0, self.body.readouts
        for x, y, w in batches:
            x = keras.tree.map_structure(tf.convert_to_tensor, x)
            ys = self._targets(y)
            first = max(keras.tree.flatten(x), key=lambda each: len(each.shape))
            for y, dense, name in zip(ys, readouts, self.body.names, strict=True):
                shape = (*first.shape[: len(dense.output.shape) - 1], dense.units)
                if y.shape != shape:
                    raise ValueError(
                        f"`y` of `{name}` must have shape {shape}; received "
                        f"shape {y.shape}"
                    )
                if self.washout and (len(shape) < 3 or self.washout >= shape[1]):
                    steps = "one output a sequence" if len(shape) < 3 else shape[1]
                    raise ValueError(
                        f"`washout` must be less than the steps of the data, {steps}; "
                        f"received {self.washout}"
                    )
            w = None if w is None else np.asarray(w, float)
            if w is not None and w.shape not in (first.shape[:1], first.shape[:2]):
                raise ValueError(
                    f"`sample_weight` must have shape {tuple(first.shape[:1])} or "
                    f"{tuple(first.shape[:2])}; received shape {w.shape}"
                )
            given = {"x": keras.tree.flatten(x), "y": ys, "sample_weight": [w]}
            for name, arrays in given.items():
                for array in arrays:
                    check_finite(name, array, done)
            if w is not None and w.min(initial=0) < 0:
                raise ValueError(f"`sample_weight` must be >= 0; received {w.min()}")
            done += len(first)
            yield x, ys, w

    def _targets(self, y):
        """The targets as arrays in the order of the readouts."""
        names = self.body.names
        if isinstance(y, dict):
            if set(y) != set(names):
                raise ValueError(f"`y` must have the keys {names}; received {[*y]}")
            y = [y[name] for name in names]
        ys = list(y) if isinstance(y, (list, tuple)) and len(names) > 1 else [y]
        if len(ys) != len(names):
            raise ValueError(
                f"`y` must be a list or dict of {len(names)}, one for each of {names}; "
                f"received {len(ys)}"
            )
        ys = [np.asarray(each) for each in ys]
        return [
            each[..., None]
            if dense.units == 1 and each.ndim == len(dense.input.shape) - 1
            else each
            for each, dense in zip(ys, self.body.readouts, strict=True)
        ]

    def _part(self, features, mask, y, w, start, more):
        if features.ndim == 2:
            if more:
                return None
            return features, y, w if w is None or w.ndim == 1 else w[:, -1]
        steps = slice(start, start + features.shape[1])
        if not more and steps.stop != y.shape[1]:
            raise ValueError(
                "the layers below a readout must keep the number of steps; received "
                f"{steps.stop} for {y.shape[1]}"
            )
        y = y[:, steps]
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


def check_finite(name, array, before=0):
    """Raises `ValueError` with the first row that is not finite."""
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
    raise ValueError(
        f"`{name}` must be finite; received {value} in row {before + row}{place}"
    )
