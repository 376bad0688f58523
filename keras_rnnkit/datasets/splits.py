"""Splits by a hash of what is split: the same on every machine."""

from collections.abc import Iterable
from hashlib import sha256

from keras_rnnkit.arguments import check_choice

SPLITS = {"train": (0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1)}


def members(keys: Iterable[str], split: str, seed: int = 0) -> list[int]:
    """The numbers of the keys that are in a split, in the order of their places.

    "train" is what lies below 0.8, "validation" below 0.9, "test" the rest. So the same
    keys are in a split on every machine, and a key stays in its own when others come.
    """
    check_choice("split", split, SPLITS)
    low, high = SPLITS[split]
    places = [place(key, seed) for key in keys]
    inside = [number for number, at in enumerate(places) if low <= at < high]
    return sorted(inside, key=places.__getitem__)


def place(key: str, seed: int) -> float:
    """Where in [0, 1) a key lies: its hash under the seed."""
    digest = sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
