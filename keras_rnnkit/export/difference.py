"""How far the outputs of a file are from those of its model, and how far they may be.

A mean over all outputs hides a fault in some of them. So each output is compared in
parts: each feature, which tells the directions of a `Bidirectional` apart; each step;
and the rows of small, middling and large inputs. In each part two things are bounded:

    the error   √(Σ(ŷ - y)² / Σy²)            as a share of what the model returns
    the gain    cov(ŷ - y, y) / var(y)        by how much a part is too large or small

Rounding to 8 bits gives an error, but hardly a gain; a wrong scale gives a gain.
"""

import dataclasses
import math

import numpy as np

TINY = 1e-30  # keeps an output of zeros from a division by zero
# Of a float file, whose bound is on the largest difference: that of a part, over it
OF_A_PART = 100.0
# Of a quantized file: the steps of an output's scale that no part can be held to
STEPS = 2
SIGNIFICANT = 3.0  # deviations
FEWEST_CALLS = 9  # to be told apart by the size of their inputs
PROBABLE = 1e-3  # how far probabilities may be from a sum of one
SIZES = "small", "middling", "large"


@dataclasses.dataclass(frozen=True)
class Part:
    """The difference in a part of the outputs.

    Attributes:
        name: what part it is.
        error: root mean square of differences over that of the model's outputs.
        excess: the same without what rounding explains.
        gain: by how much the part is too large, without what chance explains.
    """

    name: str
    error: float
    excess: float
    gain: float


class Differences:
    """Takes what a file and its model return, call by call.

    Args:
        model: its name.
        inputs: list of dicts, the inputs of all calls by name.
        steps: dict of the scales of the file's outputs by name, for those that stand
            for other numbers.
    """

    def __init__(self, model: str, inputs: list[dict], steps: dict[str, float]):
        self.model = model
        self.steps = steps
        self.outputs = {}
        self._sizes = iter(sizes_of(inputs))
        self._row = 0

    def add(self, received: dict, expected: dict):
        """Takes the outputs of the next call, by name.

        Raises:
            ValueError: another shape, or one of the two is not finite where the other
                one is.
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
        own = "" if np.isfinite(y[place]) else ", which is no finite number,"
        raise ValueError(
            f"the file must return what `{self.model}` does; received {x[place]} where "
            f"the model itself gives {y[place]}{own} in row {row} of the data compared "
            f"on, `{name}{list(place[1:])}`"
        )

    def worst(self) -> Part:
        """The part of the largest error."""
        parts = [
            part for name, y in self.outputs.items() for part in y.parts(f"`{name}`")
        ]
        return max(parts, key=lambda part: part.error, default=Part("", 0.0, 0.0, 0.0))

    def figures(self) -> dict:
        """The difference as it stands in the report."""
        outputs = self.outputs.values()
        worst = self.worst()
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
        """Raises `ValueError` if a difference is larger than it may be.

        Args:
            tolerance: see `export_tflite`.
            quantized: bool, whether values or weights are.
        """
        allowed = tolerance * (1 if quantized else OF_A_PART)
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
        step: float, of which its values are multiples; 0 if of none.

    Attributes:
        largest: the largest absolute difference.
    """

    def __init__(self, step: float):
        self.step = step
        self.largest = 0.0
        self._scale = 0.0
        self._whole, self._features, self._steps = Sums(), Sums(), Sums()
        self._sizes = {size: Sums() for size in SIZES}
        self._rows = self._same = 0
        self._probable = True

    def add(self, x, y, size):
        """Takes what a file and its model return in a call."""
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
        self._whole.add(terms.reshape(len(terms), -1, 1))
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
        """How many rows have the same largest value, if they are probabilities."""
        if not self._probable or y.ndim < 2 or y.shape[-1] < 2:
            self._probable = False
            return
        self._probable = bool((y >= 0).all() and (abs(y.sum(-1) - 1) < PROBABLE).all())
        same = x.argmax(-1) == y.argmax(-1)
        self._rows, self._same = self._rows + same.size, self._same + int(same.sum())

    @property
    def agreement(self) -> float | None:
        """The share of the largest classes that are the same; None without classes."""
        return self._same / self._rows if self._probable and self._rows else None

    @property
    def relative(self) -> float:
        """The largest difference over the largest output."""
        return self.largest / max(self._scale, TINY)

    @property
    def error(self) -> float:
        """The root mean square of differences over that of outputs."""
        return float(self._whole.error()[0]) if self._whole.count else 0.0

    def parts(self, name) -> list[Part]:
        """The difference in each part that has a value."""
        if not self._whole.count:
            return []
        # Of small probabilities the error is that of their logarithms.
        whole = float(self._whole.size()[0])
        floor = 0.1 * whole if self._probable else 0.0
        named = [
            (self._whole, lambda _: name),
            (self._features, lambda i: f"feature {i} of {name}"),
            (self._steps, lambda i: f"step {i} of {name}"),
            *(
                (sums, lambda _, size=size: f"{name} of the rows of {size} inputs")
                for size, sums in self._sizes.items()
            ),
        ]
        return [
            Part(label(i), *figures)
            for sums, label in named
            if sums.count
            for i, figures in enumerate(sums.figures(whole, floor, self.step))
            if figures
        ]


class Sums:
    """Sums over values, for each of some parts."""

    def __init__(self):
        self._sums = np.zeros((6, 0))

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(self._sums[0].sum())

    def add(self, terms):
        """Takes `(6, values, parts)`; later parts may be missing."""
        new = terms.sum(axis=1)
        more = new.shape[1] - self._sums.shape[1]
        if more > 0:
            self._sums = np.pad(self._sums, [[0, 0], [0, more]])
        self._sums[:, : new.shape[1]] += new

    def size(self):
        """The root mean square of what the model returns."""
        n, *_, yy = self._sums
        return np.sqrt(yy / np.maximum(n, 1))

    def error(self):
        """The root mean square of differences, over that."""
        n, _, ee, *_ = self._sums
        return np.sqrt(ee / np.maximum(n, 1)) / np.maximum(self.size(), TINY)

    def figures(self, whole, floor, step):
        """Yields `(error, excess, gain)` for each part, None for one without values.

        Args:
            whole: root mean square of the whole output: a few values may all be small,
                by chance, so that the fewer there are, the more they are measured by
                it.
            floor: the least root mean square to measure by.
            step: of the output's scale.
        """
        for n, e, ee, y, ey, yy in self._sums.T:
            if not n:
                yield None
                continue
            size = math.sqrt(yy / n)
            measure = max(size, floor, whole / n, TINY)
            error = math.sqrt(ee / n)
            spread = math.sqrt(max(yy / n - (y / n) ** 2, 0.0))
            gain = (ey / n - e * y / n**2) / max(spread**2, TINY)
            chance = SIGNIFICANT * error / math.sqrt(n) + step / 2
            chance += 0.1 * max(measure - size, 0.0)
            gain = math.copysign(max(abs(gain) - chance / max(spread, TINY), 0.0), gain)
            yield error / measure, max(error - STEPS * step, 0.0) / measure, gain


def moments(e, y):
    """What `Sums` adds up of differences and outputs, beside their number."""
    return e, e * e, y, e * y, y * y


def is_same(x, y):
    """Where two arrays hold the same, or both what is not a number."""
    return (x == y) | (np.isnan(x) & np.isnan(y))


def sizes_of(calls) -> list[str | None]:
    """Which calls have small, middling and large inputs, a third each; None for all if
    they are few, or have no inputs of floats."""
    sizes = [
        [np.mean(np.square(x)) for x in call.values() if x.dtype.kind == "f" and x.size]
        for call in calls
    ]
    if len(calls) < FEWEST_CALLS or not all(sizes):
        return [None] * len(calls)
    ranks = np.argsort(np.argsort([np.mean(each) for each in sizes], kind="stable"))
    return [SIZES[rank * len(SIZES) // len(calls)] for rank in ranks]
