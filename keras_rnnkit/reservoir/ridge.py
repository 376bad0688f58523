"""Ridge regression from sums over samples, in constant memory."""

import numpy as np

from keras_rnnkit.threads import few_threads

# Below this value of 1 - leverage, a sample alone determines its own prediction.
MIN_LEFT_OUT_SHARE = 1e-10


class SufficientStatistics:
    """The weighted Gram matrix of the samples, in float64.

    For features φ, targets y, weights w and a shift [s, t] that limits rounding errors:

        G = Σ w [φ-s, y-t, 1]ᵀ [φ-s, y-t, 1]

    Args:
        shift: array, `[s, t]`; zeros without an intercept.
        outputs: int, the number of targets.
        intercept: bool, whether the regression has an intercept, which is not
            penalized.
    """

    def __init__(self, shift, outputs, intercept):
        self.shift = shift
        self.outputs = outputs
        self.intercept = intercept
        self.gram = np.zeros((len(shift) + 1,) * 2)

    @classmethod
    def shifted_by_mean(cls, features, targets, intercept):
        """Empty statistics, shifted by the mean of the first samples."""
        with np.errstate(all="ignore"):  # `RidgeRegression` reports an overflow.
            shift = np.concatenate(
                [each.mean(axis=0, dtype=float) for each in (features, targets)]
            )
            shift = shift if intercept else 0 * shift
        return cls(shift, targets.shape[1], intercept)

    def weighted_rows(self, features, targets, weights=None):
        """`√w [φ-s, y-t, 1]`."""
        rows = np.empty((len(features), len(self.gram)))
        width = features.shape[1]
        np.subtract(features, self.shift[:width], out=rows[:, :width])
        np.subtract(targets, self.shift[width:], out=rows[:, width:-1])
        rows[:, -1] = 1
        if weights is not None:
            rows *= np.sqrt(weights)[:, None]
        return rows

    def add(self, features, targets, weights=None):
        """Adds samples `(n, width)` and `(n, outputs)` with weights `(n,)`."""
        with np.errstate(all="ignore"), few_threads(len(features) * self.gram.size):
            rows = self.weighted_rows(features, targets, weights)
            self.gram += rows.T @ rows

    @property
    def count(self):
        """The sum of the weights."""
        return self.gram[-1, -1]

    def centered(self):
        """The means of `[φ-s, y-t]`, and the Gram matrix about them."""
        gram, count = self.gram[:-1, :-1], self.count
        if not self.intercept:
            return np.zeros(len(gram)), gram
        mean = self.gram[-1, :-1] / count
        return mean, gram - count * np.outer(mean, mean)


class RidgeRegression:
    """Solves `(Σ φφᵀ + λ I) W = Σ φyᵀ` for several λ.

    Args:
        statistics: `SufficientStatistics`.
        ridges: list of floats >= 0, the values of λ.

    Attributes:
        kernels: `(ridges, width, outputs)`.
        biases: `(ridges, outputs)`, for features without shift; zero without an
            intercept.

    Raises:
        ValueError: the statistics overflow, or λ is 0 and the features are linearly
            dependent.
    """

    def __init__(self, statistics, ridges):
        if not np.isfinite(statistics.gram).all():
            raise ValueError(
                "the features must be finite; received sums that are not: the layers "
                "below overflow, as reservoirs with a spectral radius above 1 may"
            )
        self.statistics = statistics
        self.ridges = np.asarray(ridges, float)
        width = len(statistics.shift) - statistics.outputs
        self.mean, gram = statistics.centered()
        self._feature_gram, b = gram[:width, :width], gram[:width, width:]
        self.eigenvalues = self.eigenvectors = None
        with few_threads(len(gram) ** 3):
            self.kernels = self._solve_single(self._feature_gram, b)
            if self.kernels is None:
                self._decompose()
                inverse = 1 / (self.eigenvalues + self.ridges[:, None])
                self.kernels = self.eigenvectors @ (
                    inverse[..., None] * (self.eigenvectors.T @ b)
                )
        offset = self.mean + statistics.shift
        self.biases = offset[width:] - offset[:width] @ self.kernels
        if not statistics.intercept:
            self.biases = np.zeros_like(self.biases)

    def _solve_single(self, gram, b):
        """The kernel of a single λ > 0, or None if that needs the eigenvalues."""
        if len(self.ridges) > 1 or not self.ridges[0]:
            return None
        gram = gram + self.ridges[0] * np.eye(len(gram))
        try:
            np.linalg.cholesky(gram)  # fails where rounding outweighs a small ridge
        except np.linalg.LinAlgError:
            return None
        return np.linalg.solve(gram, b)[None]

    def _decompose(self):
        """Computes the eigenvalues and eigenvectors of the features' Gram matrix."""
        eigenvalues, self.eigenvectors = np.linalg.eigh(self._feature_gram)
        self.eigenvalues = np.maximum(eigenvalues, 0)
        least = len(eigenvalues) * np.finfo(float).eps * self.eigenvalues.max()
        if self.ridges.min() == 0 and self.eigenvalues.min() <= least:
            raise ValueError(
                "`ridge` must be > 0 where features depend linearly on each other; "
                "received 0"
            )

    def leave_one_out_errors(self, features, targets, weights=None):
        """Summed squared leave-one-out errors of the samples, one sum for each λ."""
        if self.eigenvalues is None:
            self._decompose()
        w = np.ones(len(features)) if weights is None else weights
        center = (self.mean + self.statistics.shift)[: features.shape[1]]
        squares = np.square((features - center) @ self.eigenvectors)
        leverages = squares @ (1 / (self.eigenvalues + self.ridges[:, None])).T
        if self.statistics.intercept:
            leverages += 1 / self.statistics.count
        left_out_share = (1 - w[:, None] * leverages).T[..., None]
        # No other sample predicts one that determines its own prediction.
        is_alone = left_out_share < MIN_LEFT_OUT_SHARE
        errors = np.where(is_alone, np.inf, self.errors(features, targets))
        left_out_share = np.where(is_alone, 1, left_out_share)
        return np.einsum("n,lno->l", w, np.square(errors / left_out_share))

    def squared_errors(self, features, targets, weights=None):
        """Summed squared errors of the samples, one sum for each λ."""
        errors = np.square(self.errors(features, targets)).sum(axis=-1)
        return errors.sum(axis=1) if weights is None else errors @ weights

    def errors(self, features, targets):
        """`(ridges, samples, outputs)`."""
        return targets - features @ self.kernels - self.biases[:, None]
