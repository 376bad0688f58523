"""Matrices that are drawn and then stay: of reservoirs, as Keras initializers."""

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
REWIRED = 0.1  # share of the links of a small world that go anywhere
DENSE = 400  # units up to which all eigenvalues are taken
ROOM = 60  # vectors of the search for the largest eigenvalue
FOUND = 1e-8  # its relative error
NONE = 1e-9  # a spectral radius that is none, over the largest weight


class Drawn(keras.initializers.Initializer):
    """An initializer that draws from its seed alone, the same in every process."""

    def __init__(self, seed=None):
        self.seed = seed
        self._seed = drawn_seed(seed)

    def generator(self):
        return np.random.default_rng(self._seed)

    def get_config(self):
        return {"seed": self.seed}


def drawn_seed(seed) -> int:
    """The seed, or without one another each time, as `keras.utils.set_random_seed`
    has it."""
    if seed is None:
        return keras.initializers.RandomUniform().seed
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"`seed` must be an integer >= 0 or None; received {seed!r}")
    return int(seed)


@keras.saving.register_keras_serializable(PACKAGE)
class SparseUniform(Drawn):
    """Uniform in [-scale, scale], and zero where there is no link.

    Args:
        scale: float >= 0, or a list of one for each row.
        connectivity: float in (0, 1], the probability of a link.
        seed: int or None.
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
        spectral_radius: float > 0, or None to leave a matrix that was given as it is.
        connectivity: float in (0, 1], the share of the units that each unit listens to,
            one at least; of no effect on "ring", "orthogonal" and given matrices.
        topology: "random": normal weights from random units. "ring": each unit listens
            to the one before it, all with one weight (Rodan and Tiňo 2011, the simple
            cycle reservoir). "orthogonal": a random orthogonal matrix, scaled.
            "small_world": normal weights from the nearest units on a ring, one in ten
            of them from anywhere (Watts and Strogatz 1998). Or the matrix itself.
        seed: int or None.

    Raises:
        ValueError: a wrong argument; a matrix that is not square, not finite, or whose
            spectral radius is zero, which cannot be scaled.
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
        self.topology = check_topology(topology)
        given = not isinstance(topology, str)
        if not (given and spectral_radius is None):
            check_positive("spectral_radius", spectral_radius)
        check_share("connectivity", connectivity)

    def sources(self, units: int) -> int | None:
        """How many units each unit listens to; None for all of them."""
        if not isinstance(self.topology, str) or self.topology == "orthogonal":
            return None
        if self.topology == "ring":
            return 1
        count = max(1, round(self.connectivity * units))
        return count if count < units else None

    def __call__(self, shape, dtype=None):
        return keras.ops.convert_to_tensor(self.matrix(shape[0]), dtype)

    def matrix(self, units: int) -> np.ndarray:
        """The matrix, `(units, units)`, in float64."""
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
        """What the units listen to: weights, and the numbers of other units.

        Returns:
            Two arrays `(units, sources)`: unit j gets `values[j, i]` times the state of
            unit `index[j, i]`.
        """
        rng, count = self.generator(), self.sources(units) or units
        own = np.arange(units)
        if self.topology == "ring":
            weights = np.full((units, 1), float(self.spectral_radius))
            return weights, (own[:, None] - 1) % units
        if self.topology == "small_world":
            index = nearest(rng, units, count)
        elif count == units:
            index = np.tile(own, (units, 1))
        else:
            index = np.stack([rng.choice(units, count, replace=False) for _ in own])
        values = rng.normal(size=index.shape)
        return self._scaled(values, index), index

    def _scaled(self, values, index=None):
        """The weights, scaled to the spectral radius asked for."""
        with few_threads():
            radius = spectral_radius(values, index)
        if not radius > NONE * abs(values).max(initial=0):
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
    """Numbers `(units, count)` of the nearest on a ring, some of them drawn anew."""
    away = np.arange(1, count + 1)
    near = away // 2 * np.where(away % 2, -1, 1)  # the unit itself, 1, -1, 2, -2, ...
    index = (np.arange(units)[:, None] + near) % units
    for row in index:
        anew = rng.random(count) < REWIRED
        others = np.setdiff1d(np.arange(units), row[~anew])
        row[anew] = rng.choice(others, anew.sum(), replace=False)
    return index


def spectral_radius(values, index=None) -> float:
    """The largest absolute eigenvalue of a matrix.

    Args:
        values: the matrix, or with `index` the weights of its links.
        index: as `Reservoir.links` gives it.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import ArpackError, eigs

    units = len(values)
    if index is not None:  # transposed, with the same eigenvalues
        own = np.broadcast_to(np.arange(units)[:, None], index.shape)
        values = csr_array(
            (values.ravel(), (own.ravel(), index.ravel())), (units, units)
        )
    if units > DENSE:
        first = np.random.default_rng(0).normal(size=units)
        try:
            found = eigs(
                values,
                k=4,
                ncv=ROOM,
                v0=first,
                tol=FOUND,
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
    """A finite number >= 0, or a list of them."""
    listed = isinstance(value, (list, tuple))
    for each in value if listed else [value]:
        check_at_least(name, each, 0)


def check_topology(topology):
    """A name of `TOPOLOGIES`, or a square matrix, which is returned as an array."""
    if isinstance(topology, str):
        check_choice("topology", topology, TOPOLOGIES)
        return topology
    if isinstance(topology, dict):  # as Keras writes an array
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
