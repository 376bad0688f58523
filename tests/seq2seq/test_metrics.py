"""Edits are the fewest there are, and rates count them as scoring of words does."""

import functools

import numpy as np
import pytest

from keras_rnnkit.seq2seq.metrics import edit_distance, error_rates


@functools.cache
def fewest_edits(a, b):
    """By trying every edit of the first token."""
    if not a or not b:
        return len(a) + len(b)
    return min(
        fewest_edits(a[1:], b[1:]) + (a[0] != b[0]),
        fewest_edits(a[1:], b) + 1,
        fewest_edits(a, b[1:]) + 1,
    )


def draw(rng, longest=7):
    return tuple(rng.integers(0, 3, rng.integers(0, longest + 1)).tolist())


def test_edits_are_the_fewest_that_a_search_finds(rng):
    for _ in range(500):
        a, b = draw(rng), draw(rng)
        assert edit_distance(a, b) == fewest_edits(a, b)


@pytest.mark.parametrize(
    ("a", "b", "edits"),
    [
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("", "", 0),
        ("", "abc", 3),
        ("abc", [], 3),
        (["HH", "AH", "L", "OW"], ("HH", "EH", "L", "OW"), 1),
        (np.array([1, 2, 3]), [2, 3, 4, 5], 3),
        ([None, "a"], [None, "b"], 1),
    ],
)
def test_edits_by_hand(a, b, edits):
    for distance in edit_distance(a, b), edit_distance(b, a):
        assert distance == edits
        assert type(distance) is int


def test_rates_are_those_of_the_nearest_references(rng):
    predicted = [draw(rng) for _ in range(200)]
    references = [[draw(rng) for _ in range(rng.integers(1, 4))] for _ in predicted]
    edits = tokens = right = 0
    for said, listed in zip(predicted, references, strict=True):
        fewest = min(fewest_edits(said, r) for r in listed)
        edits += fewest
        tokens += max(len(r) for r in listed if fewest_edits(said, r) == fewest)
        right += said in listed
    expected = edits / tokens, 1 - right / 200
    assert error_rates(predicted, references) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("predicted", "references", "rates"),
    [
        ([list("abc")], [[list("abc")]], (0, 0)),
        ([list("abc")], [[tuple("abd"), tuple("abc")]], (0, 0)),
        ([[]], [["abcd", "ab"]], (1, 1)),  # 2 of 2, not 4 of 4
        (["ab"], [["a", "abc"]], (1 / 3, 1)),  # one edit to each: the longer counts
        (["ab"], [["abc", "a"]], (1 / 3, 1)),
        (["abcdef", "x"], [["a"], ["x"]], (5 / 2, 1 / 2)),
        ([[], "a"], [[""], ["a"]], (0, 0)),
        (["ab", "cd"], [["ab"], ["cx", "dd", "cdef"]], (1 / 4, 1 / 2)),
    ],
)
def test_rates_by_hand(predicted, references, rates):
    assert error_rates(predicted, references) == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize(
    ("predicted", "references", "message"),
    [
        (["a", "b"], [["a"]], "have the same length >= 1; received 2 and 1"),
        ([], [], "have the same length >= 1; received 0 and 0"),
        (
            ["a", "b"],
            [["a"], []],
            r"`references\[1\]` must hold a sequence; it is empty",
        ),
        (["a"], [[""]], "`references` must contain a token; received none"),
    ],
)
def test_what_has_no_rate_is_refused(predicted, references, message):
    with pytest.raises(ValueError, match=message):
        error_rates(predicted, references)
