"""Ridge regression from sums, which take any number of rows in constant memory."""

import numpy as np

from keras_rnnkit.threads import few_threads

ALONE = 1e-10  # share of a row's error that is left, if it determines its own fit


class Sums:
    """The sums over rows that ridge regression needs, in float64.

    For features φ and targets y, weights w, and a shift that keeps the sums exact:

        G = Σ w [φ-s, y-t, 1]ᵀ [φ-s, y-t, 1]

    Args:
        shift: array, `[s, t]`; zeros without an intercept.
        outputs: int, the number of targets.
        intercept: bool, whether the regression has one, which no ridge holds down.
    """

    def __init__(self, shift, outputs, intercept):
        self.shift = shift
        self.outputs = outputs
        self.intercept = intercept
        self.gram = np.zeros((len(shift) + 1,) * 2)

    @classmethod
    def about(cls, features, targets, intercept):
        """Sums to be, shifted by the means of the first rows."""
        with np.errstate(all="ignore"):  # What overflows is told when it is solved.
            shift = np.concatenate(
                [each.mean(axis=0, dtype=float) for each in (features, targets)]
            )
            shift = shift if intercept else 0 * shift
        return cls(shift, targets.shape[1], intercept)

    def rows(self, features, targets, weights=None):
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
        """Takes rows `(n, width)` and `(n, outputs)`, and weights `(n,)`."""
        with np.errstate(all="ignore"), few_threads(len(features) * self.gram.size):
            rows = self.rows(features, targets, weights)
            self.gram += rows.T @ rows

    @property
    def count(self):
        """The sum of the weights."""
        return self.gram[-1, -1]

    def centred(self):
        """The means of `[φ-s, y-t]`, and the sums about them."""
        gram, count = self.gram[:-1, :-1], self.count
        if not self.intercept:
            return np.zeros(len(gram)), gram
        mean = self.gram[-1, :-1] / count
        return mean, gram - count * np.outer(mean, mean)


class Ridge:
    """Solves `(Σ φφᵀ + λ I) W = Σ φyᵀ` for several λ.

    Args:
        sums: `Sums`.
        ridges: list of floats >= 0.

    Attributes:
        kernels: `(ridges, width, outputs)`.
        biases: `(ridges, outputs)`, of features as they are, zero without intercept.

    Raises:
        ValueError: λ is 0, and the features depend linearly on each other.
    """

    def __init__(self, sums, ridges):
        if not np.isfinite(sums.gram).all():
            raise ValueError(
                "the features must be finite; received sums that are not: the layers "
                "below overflow, as reservoirs of a spectral radius above 1 may"
            )
        self.sums = sums
        self.ridges = np.asarray(ridges, float)
        width = len(sums.shift) - sums.outputs
        self.mean, gram = sums.centred()
        self._a, b = gram[:width, :width], gram[:width, width:]
        self.values = self.vectors = None
        with few_threads(len(gram) ** 3):
            self.kernels = self._solved_at_once(self._a, b)
            if self.kernels is None:
                self._decompose()
                share = 1 / (self.values + self.ridges[:, None])
                self.kernels = self.vectors @ (share[..., None] * (self.vectors.T @ b))
        offset = self.mean + sums.shift
        self.biases = offset[width:] - offset[:width] @ self.kernels
        if not sums.intercept:
            self.biases = np.zeros_like(self.biases)

    def _solved_at_once(self, a, b):
        if len(self.ridges) > 1 or not self.ridges[0]:
            return None
        a = a + self.ridges[0] * np.eye(len(a))
        try:
            np.linalg.cholesky(a)  # or else rounding has the better of a small ridge
        except np.linalg.LinAlgError:
            return None
        return np.linalg.solve(a, b)[None]

    def _decompose(self):
        values, self.vectors = np.linalg.eigh(self._a)
        self.values = np.maximum(values, 0)
        least = len(values) * np.finfo(float).eps * self.values.max()
        if self.ridges.min() == 0 and self.values.min() <= least:
            raise ValueError(
                "`ridge` must be > 0 where features depend linearly on each other; "
                "received 0"
            )

    def left_out(self, features, targets, weights=None):
        """Squared errors of each row if it had been left out, summed by λ."""
        if self.values is None:
            self._decompose()
        w = np.ones(len(features)) if weights is None else weights
        centre = (self.mean + self.sums.shift)[: features.shape[1]]
        along = np.square((features - centre) @ self.vectors)
        levers = along @ (1 / (self.values + self.ridges[:, None])).T
        if self.sums.intercept:
            levers += 1 / self.sums.count
        kept = (1 - w[:, None] * levers).T[..., None]
        alone = kept < ALONE  # Nothing else tells of what such a row says.
        errors = np.where(alone, np.inf, self.errors(features, targets))
        return np.einsum("n,lno->l", w, np.square(errors / np.where(alone, 1, kept)))

    def squares(self, features, targets, weights=None):
        """Squared errors, summed by λ."""
        errors = np.square(self.errors(features, targets)).sum(axis=-1)
        return errors.sum(axis=1) if weights is None else errors @ weights

    def errors(self, features, targets):
        """`(ridges, rows, outputs)`."""
        return targets - features @ self.kernels - self.biases[:, None]
