"""How far predicted sequences are from the right ones."""

from collections.abc import Sequence


def edit_distance(a: Sequence, b: Sequence) -> int:
    """The least number of tokens to insert, delete or replace to turn `a` into `b`.

    Source: Levenshtein 1966; Wagner and Fischer 1974.
    """
    row = list(range(len(b) + 1))  # from the tokens of `a` so far to each start of `b`
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            edits = min(corner + bool(x != y), row[j] + 1, row[j - 1] + 1)
            corner, row[j] = row[j], edits
    return row[-1]


def error_rates(
    predicted: Sequence[Sequence], references: Sequence[Sequence[Sequence]]
) -> tuple[float, float]:
    """The share of tokens and the share of sequences that are wrong.

    A sequence is held against the nearest of its references: the one with the fewest
    edits, of several the longest. It is right when it equals one of them. With words
    and their pronunciations these are the phoneme and the word error rate.

    Args:
        predicted: sequences of tokens.
        references: for each of them, the sequences that are right.

    Returns:
        `(token_error_rate, sequence_error_rate)`: the edits to the nearest references
        by the tokens of these, which may exceed 1, and the share of wrong sequences.

    Raises:
        ValueError: no sequence; not as many references; a sequence without a
            reference; no token in the nearest references.
    """
    if len(predicted) != len(references) or not len(predicted):
        raise ValueError(
            "`predicted` and `references` must be of one length of at least 1; "
            f"received {len(predicted)} and {len(references)}"
        )
    edits = tokens = wrong = 0
    for number, (said, right) in enumerate(zip(predicted, references, strict=True)):
        if not len(right):
            raise ValueError(f"`references` must list one each; {number} has none")
        distance, length = min((edit_distance(said, r), -len(r)) for r in right)
        edits, tokens, wrong = edits + distance, tokens - length, wrong + (distance > 0)
    if not tokens:
        raise ValueError("`references` must hold a token; received none")
    return edits / tokens, wrong / len(predicted)
