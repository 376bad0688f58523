"""Measures the difference between the outputs of a file and of its model.

A mean over all outputs hides an error in some of them. So each output is compared in
parts: each feature, which separates the directions of a `Bidirectional`; each step; and
the rows of small, middling and large inputs. Two quantities are bounded in each part:

    the error   √(Σ(ŷ - y)² / Σy²)            relative to the outputs of the model
    the gain    cov(ŷ - y, y) / var(y)        relative excess of the outputs' scale

Rounding to 8 bits causes an error, but hardly a gain; a wrong scale causes a gain.
"""

import dataclasses
import math

import numpy as np

TINY = 1e-30  # avoids a division by zero
# The bound on each part of a float file, over the bound on the largest difference
PART_FACTOR = 100.0
# Rounding error that no part of a quantized file avoids, in steps of the output's scale
ROUNDING_STEPS = 2
SIGNIFICANT = 3.0  # standard deviations
MIN_CALLS = 9  # to group them by the size of their inputs
PROBABILITY_TOLERANCE = 1e-3  # deviation of a sum of probabilities from one
SIZES = "small", "middling", "large"


@dataclasses.dataclass(frozen=True)
class Part:
    """The difference in a part of the outputs.

    Attributes:
        name: str, describes the part.
        error: root mean square of differences over that of the model's outputs.
        excess: the same, minus the error that rounding explains.
        gain: the gain, minus what chance explains.
    """

    name: str
    error: float
    excess: float
    gain: float


class Differences:
    """Accumulates the differences between a file and its model over calls.

    Args:
        model: str, name of the model.
        inputs: list of dicts, the inputs of all calls by name.
        steps: dict of the quantization scales of outputs by name.
    """

    def __init__(self, model: str, inputs: list[dict], steps: dict[str, float]):
        self.model = model
        self.steps = steps
        self.outputs = {}
        self._sizes = iter(input_sizes(inputs))
        self._row = 0

    def add(self, received: dict, expected: dict):
        """Adds the outputs of the next call, by name.

        Raises:
            ValueError: the shapes differ, or only one of the two is finite somewhere.
        """
        size = next(self._sizes)
        for name, y in expected.items():
            if received[name].shape != y.shape:
                raise ValueError(
                    f"the file must return `{name}` of shape {y.shape}, as "
                    f"`{self.model}` does; received {received[name].shape}"
                )
            self._check_finite(name, received[name], y)
            output = self.outputs.setdefault(name, Output(self.steps.get(name, 0.0)))
            output.add(received[name], y, size)
        self._row += len(next(iter(expected.values()))) if expected else 0

    def _check_finite(self, name, x, y):
        if y.dtype.kind != "f":
            return
        wrong = (np.isfinite(x) != np.isfinite(y)) | (~np.isfinite(y) & ~is_same(x, y))
        if not wrong.any():
            return
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        row = self._row + (place[0] if place else 0)
        own = "" if np.isfinite(y[place]) else ", which is not finite,"
        raise ValueError(
            f"the file must return what `{self.model}` does; received {x[place]} where "
            f"the model itself gives {y[place]}{own} in row {row} of the comparison "
            f"data, `{name}{list(place[1:])}`"
        )

    def worst_part(self) -> Part:
        """Returns the part with the largest error."""
        parts = [
            part for name, y in self.outputs.items() for part in y.parts(f"`{name}`")
        ]
        return max(parts, key=lambda part: part.error, default=Part("", 0.0, 0.0, 0.0))

    def summary(self) -> dict:
        """Returns the attributes of `ExportReport` on differences."""
        outputs = self.outputs.values()
        worst = self.worst_part()
        shares = [y.agreement for y in outputs if y.agreement is not None]
        return {
            "max_absolute": max((y.largest for y in outputs), default=0.0),
            "max_relative": max((y.relative for y in outputs), default=0.0),
            "rms_relative": max((y.error for y in outputs), default=0.0),
            "worst_part": worst.name,
            "worst_rms": worst.error,
            "agreement": min(shares, default=None),
        }

    def check(self, tolerance: float, quantized: bool):
        """Raises `ValueError` if a difference exceeds its bound.

        Args:
            tolerance: see `export_tflite`.
            quantized: bool, whether values or weights are quantized.
        """
        allowed = tolerance * (1 if quantized else PART_FACTOR)
        for name, y in self.outputs.items():
            found, kind = (y.error, "mean") if quantized else (y.relative, "largest")
            if not found <= tolerance:
                raise self._too_far(tolerance, f"a {kind} difference of {found:.1e}")
            for part in y.parts(f"`{name}`"):
                if not part.excess <= allowed:
                    raise self._too_far(
                        allowed, f"a mean difference of {part.error:.1e} in {part.name}"
                    )
                if not abs(part.gain) <= allowed / 2:
                    raise self._too_far(
                        allowed / 2,
                        f"{part.name} {abs(part.gain):.1e} too "
                        f"{'large' if part.gain > 0 else 'small'}",
                    )

    def _too_far(self, allowed, received):
        return ValueError(
            f"the file must agree with `{self.model}` to {allowed:.0e} of the outputs; "
            f"received {received}"
        )


class Output:
    """The difference in one output.

    Args:
        step: float, the quantization scale of its values; 0 for floats.

    Attributes:
        largest: the largest absolute difference.
    """

    def __init__(self, step: float):
        self.step = step
        self.largest = 0.0
        self._scale = 0.0
        self._total, self._features, self._steps = Sums(), Sums(), Sums()
        self._sizes = {size: Sums() for size in SIZES}
        self._rows = self._same = 0
        self._is_probability = True

    def add(self, x, y, size):
        """Adds the outputs of a file and its model for one call."""
        has_parts = y.dtype.kind == "f"
        x, y = x.astype("float64"), y.astype("float64")
        self._count_classes(x, y)
        finite = np.isfinite(y)
        x, y = np.where(finite, x, 0), np.where(finite, y, 0)
        if y.size:
            self.largest = max(self.largest, float(abs(x - y).max()))
            self._scale = max(self._scale, float(abs(y).max()))
        n = finite.astype("float64")
        terms = np.stack(np.broadcast_arrays(n, *moments(x - y, y)))
        self._total.add(terms.reshape(len(terms), -1, 1))
        if not has_parts:
            return
        if size:
            self._sizes[size].add(terms.reshape(len(terms), -1, 1))
        if y.ndim > 1:
            self._features.add(terms.reshape(len(terms), -1, y.shape[-1]))
        if y.ndim > 2:
            by_step = np.moveaxis(terms, 2, -1)
            self._steps.add(by_step.reshape(len(terms), -1, y.shape[1]))

    def _count_classes(self, x, y):
        """Counts rows with the same most probable class, if these are probabilities."""
        if not self._is_probability or y.ndim < 2 or y.shape[-1] < 2:
            self._is_probability = False
            return
        self._is_probability = bool(
            (y >= 0).all() and (abs(y.sum(-1) - 1) < PROBABILITY_TOLERANCE).all()
        )
        same = x.argmax(-1) == y.argmax(-1)
        self._rows, self._same = self._rows + same.size, self._same + int(same.sum())

    @property
    def agreement(self) -> float | None:
        """The share of rows whose most probable class agrees; None without classes."""
        return self._same / self._rows if self._is_probability and self._rows else None

    @property
    def relative(self) -> float:
        """The largest difference over the largest output."""
        return self.largest / max(self._scale, TINY)

    @property
    def error(self) -> float:
        """The root mean square of differences over that of outputs."""
        return float(self._total.error()[0]) if self._total.count else 0.0

    def parts(self, name) -> list[Part]:
        """Returns the difference in each part that is not empty."""
        if not self._total.count:
            return []
        # The relative error of a small probability is the error of its logarithm.
        total = float(self._total.size()[0])
        floor = 0.1 * total if self._is_probability else 0.0
        named = [
            (self._total, lambda _: name),
            (self._features, lambda i: f"feature {i} of {name}"),
            (self._steps, lambda i: f"step {i} of {name}"),
            *(
                (sums, lambda _, size=size: f"{name} of the rows of {size} inputs")
                for size, sums in self._sizes.items()
            ),
        ]
        return [
            Part(label(i), *values)
            for sums, label in named
            if sums.count
            for i, values in enumerate(sums.differences(total, floor, self.step))
            if values
        ]


class Sums:
    """Sums over values, separately for each part of an output."""

    def __init__(self):
        self._sums = np.zeros((6, 0))

    @property
    def count(self) -> int:
        """The number of values."""
        return int(self._sums[0].sum())

    def add(self, terms):
        """Adds terms, `(6, values, parts)`; the last parts may be missing."""
        new = terms.sum(axis=1)
        more = new.shape[1] - self._sums.shape[1]
        if more > 0:
            self._sums = np.pad(self._sums, [[0, 0], [0, more]])
        self._sums[:, : new.shape[1]] += new

    def size(self):
        """Returns the root mean square of the model's outputs."""
        n, *_, yy = self._sums
        return np.sqrt(yy / np.maximum(n, 1))

    def error(self):
        """Returns the root mean square of differences, over `size`."""
        n, _, ee, *_ = self._sums
        return np.sqrt(ee / np.maximum(n, 1)) / np.maximum(self.size(), TINY)

    def differences(self, total, floor, step):
        """Yields `(error, excess, gain)` for each part, None for an empty one.

        Args:
            total: root mean square of the whole output. The values of a small part may
                all be small by chance, so `total` weighs more the fewer there are.
            floor: minimum of the root mean square that errors are relative to.
            step: the quantization scale of the output.
        """
        for n, e, ee, y, ey, yy in self._sums.T:
            if not n:
                yield None
                continue
            size = math.sqrt(yy / n)
            measure = max(size, floor, total / n, TINY)
            error = math.sqrt(ee / n)
            spread = math.sqrt(max(yy / n - (y / n) ** 2, 0.0))
            gain = (ey / n - e * y / n**2) / max(spread**2, TINY)
            chance = SIGNIFICANT * error / math.sqrt(n) + step / 2
            chance += 0.1 * max(measure - size, 0.0)
            gain = math.copysign(max(abs(gain) - chance / max(spread, TINY), 0.0), gain)
            yield (
                error / measure,
                max(error - ROUNDING_STEPS * step, 0.0) / measure,
                gain,
            )


def moments(e, y):
    """Returns the terms that `Sums` adds up, of differences and outputs."""
    return e, e * e, y, e * y, y * y


def is_same(x, y):
    """Returns where two arrays are equal, or both NaN."""
    return (x == y) | (np.isnan(x) & np.isnan(y))


def input_sizes(calls) -> list[str | None]:
    """Groups calls by the size of their inputs: a third each is small, middling and
    large. All are None if there are few calls or no float inputs."""
    sizes = [
        [np.mean(np.square(x)) for x in call.values() if x.dtype.kind == "f" and x.size]
        for call in calls
    ]
    if len(calls) < MIN_CALLS or not all(sizes):
        return [None] * len(calls)
    ranks = np.argsort(np.argsort([np.mean(each) for each in sizes], kind="stable"))
    return [SIZES[rank * len(SIZES) // len(calls)] for rank in ranks]
