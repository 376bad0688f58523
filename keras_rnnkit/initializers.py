"""Random matrices of reservoirs, as Keras initializers."""

import numbers
from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt

from keras_rnnkit.arguments import (
    PACKAGE,
    check_at_least,
    check_choice,
    check_positive,
    check_share,
)
from keras_rnnkit.threads import few_threads

TOPOLOGIES = "random", "ring", "orthogonal", "small_world"
REWIRED_SHARE = 0.1  # share of a small world's links that go to random units
DENSE_UNITS = 400  # up to this size, all eigenvalues are computed
KRYLOV_VECTORS = 60  # of ARPACK's search for the largest eigenvalue
TOLERANCE = 1e-8  # its relative error
ZERO_RADIUS = 1e-9  # a spectral radius is zero below this share of the largest weight


class Drawn(keras.initializers.Initializer):
    """The base class of initializers that depend on their seed alone.

    Args:
        seed: int >= 0, which gives the same values in every process and at every call,
            or None, default, for a random seed.

    Raises:
        ValueError: `seed` is not an integer >= 0.
    """

    def __init__(self, seed=None):
        self.seed = seed
        self._seed = drawn_seed(seed)

    def generator(self) -> np.random.Generator:
        """Returns a new random generator, which starts from the seed."""
        return np.random.default_rng(self._seed)

    def get_config(self):
        return {"seed": self.seed}


def drawn_seed(seed) -> int:
    """Returns the seed, or for None a random one, after `keras.utils.set_random_seed`.

    Raises:
        ValueError: the seed is not an integer >= 0.
    """
    if seed is None:
        return keras.initializers.RandomUniform().seed
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"`seed` must be an integer >= 0 or None; received {seed!r}")
    return int(seed)


@keras.saving.register_keras_serializable(PACKAGE)
class SparseUniform(Drawn):
    """Uniform in [-scale, scale], with a share of the weights set to zero.

    Args:
        scale: float >= 0, default 1, or a list of scales, one for each row.
        connectivity: float in (0, 1], default 1. The probability that a weight is not
            zero.
        seed: int or None, default None for a random seed.

    Raises:
        ValueError: an argument is out of range, or the number of scales is not that of
            the rows.

    Example:

    ```python
    initializer = rk.initializers.SparseUniform(0.5, connectivity=0.1, seed=0)
    kernel = initializer((3, 100))  # (3, 100)
    ```
    """

    def __init__(
        self,
        scale: float | Sequence[float] = 1.0,
        connectivity: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.scale = scale
        self.connectivity = connectivity
        check_scale("scale", scale)
        check_share("connectivity", connectivity)

    def __call__(self, shape, dtype=None):
        rng = self.generator()
        values = rng.uniform(-1, 1, shape)
        values *= rng.random(shape) < self.connectivity
        scale = np.asarray(self.scale, float)
        if scale.ndim and len(scale) != shape[0]:
            raise ValueError(
                f"`scale` must be a number or {shape[0]} of them, one for each row; "
                f"received {len(scale)}"
            )
        return keras.ops.convert_to_tensor(values * scale[..., None], dtype)

    def get_config(self):
        return super().get_config() | {
            "scale": self.scale,
            "connectivity": self.connectivity,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class Reservoir(Drawn):
    """The recurrent matrix of an echo state network, with a given spectral radius.

    Entry (i, j) is the weight from unit i to unit j. The spectral radius is the largest
    absolute eigenvalue.

    Args:
        spectral_radius: float > 0, default 0.9. None leaves a matrix given as
            `topology` unscaled.
        connectivity: float in (0, 1], default 0.1. The share of the units that each
            unit gets input from, at least one unit. Ignored by "ring", "orthogonal" and
            given matrices.
        topology: str or matrix, default "random". "random": normal weights from random
            units. "ring": each unit gets input from the previous one, all with the same
            weight (Rodan and Tiňo 2011, the simple cycle reservoir). "orthogonal": a
            scaled random orthogonal matrix. "small_world": normal weights from the
            nearest units on a ring, one in ten of them from a random unit (Watts and
            Strogatz 1998). Or the matrix itself.
        seed: int or None, default None for a random seed.

    Raises:
        ValueError: an argument is out of range; a matrix is not square, not finite, or
            has a spectral radius of zero and cannot be scaled.

    Example:

    ```python
    initializer = rk.initializers.Reservoir(0.95, topology="ring")
    initializer((100, 100))  # (100, 100)
    rk.initializers.spectral_radius(initializer.matrix(100))  # 0.95
    ```
    """

    def __init__(
        self,
        spectral_radius: float | None = 0.9,
        connectivity: float = 0.1,
        topology: str | npt.ArrayLike = "random",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.spectral_radius = spectral_radius
        self.connectivity = connectivity
        self.topology = as_topology(topology)
        is_matrix = not isinstance(topology, str)
        if not (is_matrix and spectral_radius is None):
            check_positive("spectral_radius", spectral_radius)
        check_share("connectivity", connectivity)

    def sources(self, units: int) -> int | None:
        """Returns how many units each unit gets input from, or None for all of them."""
        if not isinstance(self.topology, str) or self.topology == "orthogonal":
            return None
        if self.topology == "ring":
            return 1
        count = max(1, round(self.connectivity * units))
        return count if count < units else None

    def __call__(self, shape, dtype=None):
        return keras.ops.convert_to_tensor(self.matrix(shape[0]), dtype)

    def matrix(self, units: int) -> np.ndarray:
        """Returns the matrix, `(units, units)`, in float64."""
        if not isinstance(self.topology, str):
            matrix = np.array(self.topology, float)
            if len(matrix) != units:
                raise ValueError(
                    f"`topology` must be a matrix of `units` = {units} rows and columns"
                    f"; received shape {matrix.shape}"
                )
            if self.spectral_radius is None:
                return matrix
            return self._scaled(matrix)
        if self.topology == "orthogonal":
            q, r = np.linalg.qr(self.generator().normal(size=(units, units)))
            return self.spectral_radius * q * np.sign(np.diag(r))
        values, index = self.links(units)
        matrix = np.zeros((units, units))
        matrix[index, np.arange(units)[:, None]] = values
        return matrix

    def links(self, units: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the matrix as its links: their weights and source units.

        Returns:
            Two arrays `(units, sources)`: unit j gets `values[j, i]` times the state of
            unit `index[j, i]`.
        """
        rng, count = self.generator(), self.sources(units) or units
        targets = np.arange(units)
        if self.topology == "ring":
            weights = np.full((units, 1), float(self.spectral_radius))
            return weights, (targets[:, None] - 1) % units
        if self.topology == "small_world":
            index = nearest(rng, units, count)
        elif count == units:
            index = np.tile(targets, (units, 1))
        else:
            index = np.stack([rng.choice(units, count, replace=False) for _ in targets])
        values = rng.normal(size=index.shape)
        return self._scaled(values, index), index

    def _scaled(self, values, index=None):
        """Returns the weights, scaled to `spectral_radius`."""
        with few_threads():
            radius = spectral_radius(values, index)
        if not radius > ZERO_RADIUS * abs(values).max(initial=0):
            raise ValueError(
                "`topology` must have a spectral radius above 0 to be scaled to "
                f"{self.spectral_radius}; received {radius:.1e}: pass "
                "`spectral_radius=None`"
            )
        return values * (self.spectral_radius / radius)

    def get_config(self):
        topology = self.topology
        return super().get_config() | {
            "spectral_radius": self.spectral_radius,
            "connectivity": self.connectivity,
            "topology": topology if isinstance(topology, str) else topology.tolist(),
        }


def nearest(rng, units, count):
    """Returns the nearest units on a ring, `(units, count)`, some of them rewired."""
    rank = np.arange(1, count + 1)
    offsets = rank // 2 * np.where(rank % 2, -1, 1)  # 0, 1, -1, 2, -2, ...
    index = (np.arange(units)[:, None] + offsets) % units
    for row in index:
        rewired = rng.random(count) < REWIRED_SHARE
        others = np.setdiff1d(np.arange(units), row[~rewired])
        row[rewired] = rng.choice(others, rewired.sum(), replace=False)
    return index


def spectral_radius(values, index=None) -> float:
    """Returns the largest absolute eigenvalue of a matrix.

    Args:
        values: array `(units, units)`, the matrix, or with `index` the weights of its
            links, as from `Reservoir.links`.
        index: the source units of the links; default None for a matrix.

    Example:

    ```python
    rk.initializers.spectral_radius(np.diag([0.5, -2.0]))  # 2.0
    ```
    """
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import ArpackError, eigs

    units = len(values)
    if index is not None:  # the transpose, which has the same eigenvalues
        targets = np.broadcast_to(np.arange(units)[:, None], index.shape)
        values = csr_array(
            (values.ravel(), (targets.ravel(), index.ravel())), (units, units)
        )
    if units > DENSE_UNITS:
        first = np.random.default_rng(0).normal(size=units)
        try:
            found = eigs(
                values,
                k=4,
                ncv=KRYLOV_VECTORS,
                v0=first,
                tol=TOLERANCE,
                maxiter=50 * units,
                return_eigenvectors=False,
            )
            return float(abs(found).max())
        except ArpackError:
            pass
    if index is not None:
        values = values.toarray()
    return float(abs(np.linalg.eigvals(values)).max(initial=0))


def check_scale(name, value):
    """Raises `ValueError` unless `value` is a number >= 0 or a list of them."""
    listed = isinstance(value, (list, tuple))
    for each in value if listed else [value]:
        check_at_least(name, each, 0)


def as_topology(topology):
    """Returns a name of `TOPOLOGIES`, or a square matrix as an array.

    Raises:
        ValueError: the name is unknown, or the matrix is not square or not finite.
    """
    if isinstance(topology, str):
        check_choice("topology", topology, TOPOLOGIES)
        return topology
    if isinstance(topology, dict):  # an array, as Keras serializes it
        topology = keras.saving.deserialize_keras_object(topology)
    allowed = f"`topology` must be one of {TOPOLOGIES} or a square matrix"
    try:
        matrix = np.array(topology, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{allowed}; received {topology!r}") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"{allowed}; received shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise ValueError(
            f"`topology` must be finite; received {matrix[row].tolist()[:5]} in row "
            f"{row}"
        )
    return matrix
