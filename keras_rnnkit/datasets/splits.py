"""Splits by the hash of each example, the same on every machine."""

from collections.abc import Iterable
from hashlib import sha256

from keras_rnnkit.arguments import check_choice

SPLITS = {"train": (0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1)}


def split_indices(keys: Iterable[str], split: str, seed: int = 0) -> list[int]:
    """Returns the indices of the keys in a split, sorted by the hashes of the keys.

    Keys with a hash below 0.8 are in "train", below 0.9 in "validation", the others in
    "test". A split is the same on every machine, and a key keeps its split when keys
    are added.
    """
    check_choice("split", split, SPLITS)
    low, high = SPLITS[split]
    hashes = [unit_hash(key, seed) for key in keys]
    inside = [index for index, value in enumerate(hashes) if low <= value < high]
    return sorted(inside, key=hashes.__getitem__)


def unit_hash(key: str, seed: int) -> float:
    """The hash of a key with a seed, as a number in [0, 1)."""
    digest = sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
