"""The readout learned step by step: recursive least squares, and FORCE."""

import keras
import numpy as np
import tensorflow as tf

from keras_rnnkit.arguments import check_positive, check_share
from keras_rnnkit.recurrence import as_arrays, pad_rows
from keras_rnnkit.reservoir.feature_extractor import feature_extractor_of
from keras_rnnkit.reservoir.forecast import external_feature_count
from keras_rnnkit.reservoir.input_formats import read_sequences, read_targets
from keras_rnnkit.reservoir.samples import check_finite
from keras_rnnkit.reservoir.shared_graphs import SharedGraph
from keras_rnnkit.reservoir.streaming import run_chunk


class RLS:
    """Recursive least squares for the last `Dense` layer of a model, step by step.

        g = P φ / (μ + φᵀ P φ),   W += g (y - Wᵀ φ)ᵀ,   P = (P - g φᵀ P) / μ

    φ are the outputs of the layers below, and a one if the readout has a bias. P starts
    as I / λ: from a readout of zeros and with μ = 1, W equals ridge regression with λ
    on weights and bias, after any number of steps. Computed in float64.

    With `feedback=True`, errors of the first steps are fed back too; `forgetting=0.99`
    then works better than 1, as it forgets them.

    Args:
        model: as for `fit_readout`, with one input, and one output at every step.
        ridge: float > 0, λ. Default 1.0.
        forgetting: float in (0, 1], μ, by which the weight of past steps is multiplied
            at each step. Default 1.0, nothing is forgotten.

    Attributes:
        states: dict, the states of the layers below after the steps so far.

    Raises:
        ValueError: as for `fit_readout`, or for a wrong argument.

    Example:

    ```python
    series = rk.datasets.mackey_glass(2001)  # (1, steps, 1)
    model = keras.Sequential(
        [keras.Input((None, 1)), rk.ESN(100, seed=0), keras.layers.Dense(1)]
    )
    online = rk.RLS(model, ridge=1e-6)
    for start in range(0, 2000, 500):
        x, y = series[:, start : start + 500], series[:, start + 1 : start + 501]
        predicted = online.partial_fit(x, y)
    ```

    Source: Sussillo and Abbott 2009, Generating coherent patterns of activity from
    chaotic neural networks, for `feedback=True`.
    """

    def __init__(
        self, model: keras.Model, *, ridge: float = 1.0, forgetting: float = 1.0
    ) -> None:
        check_positive("ridge", ridge)
        check_share("forgetting", forgetting)
        self._extractor = feature_extractor_of(model)
        if not self._extractor.can_stream or len(self._extractor.readouts) != 1:
            raise ValueError(
                f"`{model.name}` must have one output and compute each step from those "
                "before it; received a layer that is stateful or may need the whole "
                f"sequence, or {len(self._extractor.readouts)} outputs"
            )
        (self._dense,) = self._extractor.readouts
        if len(self._dense.input.shape) != 3:
            raise ValueError(
                f"`{model.name}` must have an output at every step; received shape "
                f"{self._dense.output.shape}: pass `return_sequences=True`"
            )
        self.model = model
        self.forgetting = forgetting
        self._inverse = np.eye(len(self._weights())) / ridge
        self.reset()

    def reset(self) -> None:
        """Resets the states, for new sequences; the weights and P stay."""
        self.states, self._last_output = {}, None

    def partial_fit(self, x, y, *, feedback: bool = False) -> np.ndarray:
        """Learns from the next steps, in order; skips masked ones.

        Args:
            x: array `(batch, steps, features)`, a list of `(steps, features)` of
                different lengths, or one sequence; see `fit_readout`. With `feedback`,
                only the features that are not outputs of the model, or None if there
                are none.
            y: array `(batch, steps, outputs)`, or in the format of `x`.
            feedback: bool, whether the model is fed its own output of the previous
                step, as in `forecast`, starting from zeros. Default False.

        Returns:
            Array `(batch, steps, outputs)`, or in the format of `y`: the output at each
            step, before the model learns from it.

        Raises:
            ValueError: wrong shapes, or data that are not finite. Nothing is learned
                then.
        """
        outputs, external = self._dense.units, self.model.inputs[0].shape[-1]
        if feedback:
            external = external_feature_count(self.model)
        x, y, lengths, restore_format = self._read(x, y, external, feedback)
        if x.shape != (*y.shape[:2], external) or y.shape != (*x.shape[:2], outputs):
            raise ValueError(
                f"`x` and `y` must have shapes (batch, steps, {external}) and (batch, "
                f"steps, {outputs}); received {x.shape} and {y.shape}"
            )
        if self._last_output is not None and len(y) != len(self._last_output):
            raise ValueError(
                f"`x` must continue {len(self._last_output)} sequences; received "
                f"{len(y)}: call `reset` before new ones"
            )
        check_finite("x", x)
        check_finite("y", y)
        weights, inverse = self._weights(), self._inverse.copy()
        states, last_output = self.states, self._last_output
        predictions = np.empty_like(y)
        if last_output is None:
            last_output = np.zeros((len(y), outputs))
        x = tf.cast(tf.convert_to_tensor(x), self.model.inputs[0].dtype)
        run = SharedGraph(run_chunk, self._extractor.model, match_names=True)
        start = 0
        for chunk in self._extractor.chunks(x, 1 if feedback else None):
            if feedback:
                fed_back = tf.cast(last_output[:, None], chunk.dtype)
                chunk = tf.concat([chunk, fed_back], -1)
            features, is_within, is_learned, new_states = self._run_chunk(
                run, chunk, states, None if lengths is None else lengths - start
            )
            states = states | new_states
            for t in range(features.shape[1]):
                predictions[:, start + t] = features[:, t] @ weights
                last_output = np.where(
                    is_within[:, t, None], predictions[:, start + t], last_output
                )
                for row in np.flatnonzero(is_learned[:, t]):
                    self._learn(features[row, t], y[row, start + t], weights, inverse)
            start += features.shape[1]
        if not np.isfinite(weights).all():
            raise ValueError(
                "the weights must stay finite; received steps after which they are not:"
                " take a `forgetting` nearer to 1 or a larger `ridge`"
            )
        self._inverse, self.states, self._last_output = inverse, states, last_output
        width = self._dense.kernel.shape[0]
        self._dense.kernel.assign(weights[:width])
        if self._dense.use_bias:
            self._dense.bias.assign(weights[width])
        return restore_format(predictions)

    def _run_chunk(self, run, chunk, states, lengths):
        """Computes the features of a chunk of steps.

        Args:
            run: `SharedGraph` of `run_chunk`.
            lengths: int `(batch,)`, the steps until the end of each row, or None.

        Returns:
            `(features, is_within, is_learned, states)`. Features have a column of ones
            if the readout has a bias; the bool arrays `(batch, steps)` tell which steps
            are not padding, and which are not masked either.
        """
        if lengths is not None:
            lengths = np.maximum(lengths, 0)
        given = None if lengths is None else tf.constant(lengths)
        # Repeated outputs at padded steps are not learned from, so none are carried.
        is_only_chunk = lengths is not None
        (features,), (mask,), states = run(chunk, states, given, False, is_only_chunk)
        features = features.numpy().astype(float)
        is_within = np.ones(features.shape[:2], bool)
        if lengths is not None:
            is_within = np.arange(is_within.shape[1]) < lengths[:, None]
        is_learned = is_within if mask is None else mask.numpy() & is_within
        if self._dense.use_bias:
            ones = np.ones((*features.shape[:2], 1))
            features = np.concatenate([features, ones], axis=-1)
        return features, is_within, is_learned, states

    def _read(self, x, y, external, feedback):
        """Reads the data as arrays with an axis of rows.

        Returns:
            `(x, y, lengths, restore_format)`: lengths of the rows, or None without
            padding; and a callable that brings outputs into the format of `y`.
        """
        units, y = self._dense.units, as_arrays("y", y)
        is_from_y = x is None and feedback
        x = y if is_from_y else None if x is None else as_arrays("x", x)
        is_list = isinstance(x, list) or isinstance(y, list)
        if x is None or not (is_list or np.ndim(x) < 3):
            x = np.zeros((*y.shape[:2], 0)) if is_from_y else np.asarray(x)
            return x, np.asarray(y, float), None, lambda outputs: outputs
        is_series = not isinstance(y, list) and np.ndim(y) == 1
        shape = (None, None, units if is_from_y else external)
        x, is_single = read_sequences("y" if is_from_y else "x", x, shape)
        y = read_targets("y", y, (units, 3), x, is_single)
        if is_from_y:
            x = [each[:, :0] for each in x] if isinstance(x, list) else x[..., :0]
        if not isinstance(x, list):

            def restore_format(outputs):
                outputs = outputs[0] if is_single else outputs
                return outputs[..., 0] if is_single and is_series else outputs

            return np.asarray(x), np.asarray(y, float), None, restore_format
        lengths = np.array([len(each) for each in x], "int32")

        def trim(outputs):
            return [row[:n] for row, n in zip(outputs, lengths, strict=True)]

        return pad_rows(x), pad_rows(y).astype(float), lengths, trim

    def _learn(self, features, target, weights, inverse):
        """Updates the weights and P in place, by one step."""
        with np.errstate(all="ignore"):  # `partial_fit` reports an overflow.
            p = inverse @ features
            gain = p / (self.forgetting + features @ p)
            weights += np.outer(gain, target - features @ weights)
            inverse -= np.outer(gain, p)
            inverse /= self.forgetting

    def _weights(self):
        """The readout's kernel, with its bias as the last row."""
        weights = self._dense.kernel.numpy().astype(float)
        if self._dense.use_bias:
            weights = np.vstack([weights, self._dense.bias.numpy()])
        return weights
