"""The readout learned step by step: recursive least squares, and FORCE."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.arguments import check_positive, check_share
from keras_rnnkit.recurrence import as_arrays, pad_rows
from keras_rnnkit.reservoir.body import body_of, features_of
from keras_rnnkit.reservoir.forecast import check_closed
from keras_rnnkit.reservoir.forms import sequences, targets
from keras_rnnkit.reservoir.rows import check_finite
from keras_rnnkit.reservoir.traced import Traced


class RLS:
    """Recursive least squares for the last `Dense` layer of a model, step by step.

        g = P φ / (μ + φᵀ P φ),   W += g (y - Wᵀ φ)ᵀ,   P = (P - g φᵀ P) / μ

    φ is what the layers below give, and a one where the readout has a bias. P begins
    with I / λ: from a readout of zeros and without forgetting, W is after any number of
    steps what ridge regression with λ on weights and bias finds. In float64.

    Args:
        model: as for `fit_readout`, of one input and of one output for every step.
        ridge: float > 0, λ.
        forgetting: float in (0, 1], μ: what a step counts after each step that follows.

    Attributes:
        states: dict, what the steps so far have left in the layers below.

    Raises:
        ValueError: as for `fit_readout`.

    With `feedback=True` a model that is fed its own output forgets the errors of its
    beginning: 0.99 for `forgetting` serves better there than 1.

    Source: Sussillo and Abbott 2009, Generating coherent patterns of activity from
    chaotic neural networks, for `feedback=True`.
    """

    def __init__(
        self, model: keras.Model, *, ridge: float = 1.0, forgetting: float = 1.0
    ) -> None:
        check_positive("ridge", ridge)
        check_share("forgetting", forgetting)
        self._body = body_of(model)
        if not self._body.streams or len(self._body.readouts) != 1:
            raise ValueError(
                f"`{model.name}` must have one output and compute each step from those "
                "before it; received a layer that is stateful or may need the whole "
                f"sequence, or {len(self._body.readouts)} outputs"
            )
        (self._dense,) = self._body.readouts
        if len(self._dense.input.shape) != 3:
            raise ValueError(
                f"`{model.name}` must have an output for every step; received shape "
                f"{self._dense.output.shape}: pass `return_sequences=True`"
            )
        self.model = model
        self.forgetting = forgetting
        self._inverse = np.eye(len(self._weights())) / ridge
        self.reset()

    def reset(self) -> None:
        """Begins new sequences; what was learned stays."""
        self.states, self._last = {}, None

    def partial_fit(self, x, y, *, feedback: bool = False) -> np.ndarray:
        """Learns from the next steps, one after the other, but for masked ones.

        Args:
            x: array `(batch, steps, features)`, a list of `(steps, features)` of
                several lengths, or one sequence; see `fit_readout`. With `feedback`
                those features alone that come from outside; None if there are none.
            y: array `(batch, steps, outputs)`, or in the form of `x`.
            feedback: bool, whether the model is fed its own output of the step before,
                as it is in `forecast`; the first one is zero.

        Returns:
            Array `(batch, steps, outputs)`, or in the form of `y`: the output for each
            step before it is learned from.

        Raises:
            ValueError: wrong shapes, or data that are not finite; nothing is learned
                then.
        """
        outputs, outside = self._dense.units, self.model.inputs[0].shape[-1]
        if feedback:
            outside = check_closed(self.model)
        x, y, lengths, form = self._read(x, y, outside, feedback)
        if x.shape != (*y.shape[:2], outside) or y.shape != (*x.shape[:2], outputs):
            raise ValueError(
                f"`x` and `y` must have shapes (batch, steps, {outside}) and (batch, "
                f"steps, {outputs}); received {x.shape} and {y.shape}"
            )
        if self._last is not None and len(y) != len(self._last):
            raise ValueError(
                f"`x` must go on with {len(self._last)} sequences; received {len(y)}: "
                "call `reset` before new ones"
            )
        check_finite("x", x)
        check_finite("y", y)
        weights, inverse = self._weights(), self._inverse.copy()
        states, last, said = self.states, self._last, np.empty_like(y)
        if last is None:
            last = np.zeros((len(y), outputs))
        x = tf.cast(tf.convert_to_tensor(x), self.model.inputs[0].dtype)
        run, start = Traced(features_of, self._body.model, named=True), 0
        for chunk in self._body.chunks(x, 1 if feedback else None):
            if feedback:
                chunk = tf.concat([chunk, tf.cast(last[:, None], chunk.dtype)], -1)
            left = None if lengths is None else np.maximum(lengths - start, 0)
            given = None if left is None else tf.constant(left)
            alone = left is not None  # what masks hold is not learned from
            (features,), (mask,), new = run(chunk, states, given, False, alone)
            states = states | new
            features = features.numpy().astype(float)
            there = np.ones(features.shape[:2], bool)
            if left is not None:
                there = np.arange(there.shape[1]) < left[:, None]
            kept = there if mask is None else mask.numpy() & there
            if self._dense.use_bias:
                ones = np.ones((*features.shape[:2], 1))
                features = np.concatenate([features, ones], axis=-1)
            for t in range(features.shape[1]):
                said[:, start + t] = features[:, t] @ weights
                last = np.where(there[:, t, None], said[:, start + t], last)
                for row in np.flatnonzero(kept[:, t]):
                    self._learn(features[row, t], y[row, start + t], weights, inverse)
            start += features.shape[1]
        if not np.isfinite(weights).all():
            raise ValueError(
                "the weights must stay finite; received steps after which they are not:"
                " take a `forgetting` nearer to 1 or a larger `ridge`"
            )
        self._inverse, self.states, self._last = inverse, states, last
        width = self._dense.kernel.shape[0]
        self._dense.kernel.assign(weights[:width])
        if self._dense.use_bias:
            self._dense.bias.assign(weights[width])
        return form(said)

    def _read(self, x, y, outside, feedback):
        """The data as arrays with an axis of rows.

        Returns:
            `(x, y, lengths, form)`: the steps of each row, or None if all count; and a
            callable that brings outputs into the form of `y`.
        """
        units, y = self._dense.units, as_arrays("y", y)
        from_y = x is None and feedback
        x = y if from_y else None if x is None else as_arrays("x", x)
        listed = isinstance(x, list) or isinstance(y, list)
        if x is None or not (listed or np.ndim(x) < 3):
            x = np.zeros((*y.shape[:2], 0)) if from_y else np.asarray(x)
            return x, np.asarray(y, float), None, lambda said: said
        series = not isinstance(y, list) and np.ndim(y) == 1
        width = units if from_y else outside
        x, one = sequences("y" if from_y else "x", x, (None, None, width))
        y = targets("y", y, (units, 3), x, one)
        if from_y:
            x = [each[:, :0] for each in x] if isinstance(x, list) else x[..., :0]
        if not isinstance(x, list):

            def form(said):
                said = said[0] if one else said
                return said[..., 0] if one and series else said

            return np.asarray(x), np.asarray(y, float), None, form
        lengths = np.array([len(each) for each in x], "int32")
        x, y = pad_rows(x), pad_rows(y).astype(float)
        return (
            x,
            y,
            lengths,
            lambda said: [
                row[:steps] for row, steps in zip(said, lengths, strict=True)
            ],
        )

    def _learn(self, phi, target, weights, inverse):
        """Changes the weights and P by one step."""
        with np.errstate(all="ignore"):  # What overflows is told in the end.
            p = inverse @ phi
            gain = p / (self.forgetting + phi @ p)
            weights += np.outer(gain, target - phi @ weights)
            inverse -= np.outer(gain, p)
            inverse /= self.forgetting

    def _weights(self):
        """The readout's weights, with its bias below them."""
        weights = self._dense.kernel.numpy().astype(float)
        if self._dense.use_bias:
            weights = np.vstack([weights, self._dense.bias.numpy()])
        return weights
