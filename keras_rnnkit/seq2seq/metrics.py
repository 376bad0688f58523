"""Metrics of predicted sequences: edit distance and error rates."""

from collections.abc import Sequence


def edit_distance(a: Sequence, b: Sequence) -> int:
    """Returns the Levenshtein distance: the minimum number of insertions, deletions and
    substitutions of tokens that turn `a` into `b`.

    Args:
        a, b: sequences of comparable tokens, such as strings.

    Source: Levenshtein 1966; Wagner and Fischer 1974.

    Example:

    ```python
    import keras_rnnkit as rk

    print(rk.seq2seq.edit_distance("kitten", "sitting"))  # 3
    ```
    """
    row = list(range(len(b) + 1))  # distances of a prefix of `a` to each prefix of `b`
    for i, x in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            edits = min(corner + bool(x != y), row[j] + 1, row[j - 1] + 1)
            corner, row[j] = row[j], edits
    return row[-1]


def error_rates(
    predicted: Sequence[Sequence], references: Sequence[Sequence[Sequence]]
) -> tuple[float, float]:
    """Returns the token error rate and the sequence error rate.

    Each sequence is compared with its nearest reference: the one with the smallest edit
    distance, and of equally near ones the longest. It is correct if it equals one of
    its references. For the pronunciations of words, these are the phoneme error rate
    and the word error rate.

    Args:
        predicted: sequences of tokens.
        references: for each of these, a list of correct sequences.

    Returns:
        `(token_error_rate, sequence_error_rate)`: the sum of edit distances divided by
        the number of tokens in the nearest references, which may exceed 1, and the
        fraction of incorrect sequences.

    Raises:
        ValueError: there is no sequence, the lengths differ, a sequence has no
            reference, or the nearest references hold no token.

    Example:

    ```python
    import keras_rnnkit as rk

    print(rk.seq2seq.error_rates(["cat", "dig"], [["cat"], ["dog", "dug"]]))
    # (0.1666..., 0.5)
    ```
    """
    if len(predicted) != len(references) or not len(predicted):
        raise ValueError(
            "`predicted` and `references` must have the same length >= 1; "
            f"received {len(predicted)} and {len(references)}"
        )
    edits = tokens = wrong = 0
    pairs = zip(predicted, references, strict=True)
    for number, (sequence, correct) in enumerate(pairs):
        if not len(correct):
            raise ValueError(
                f"`references[{number}]` must hold a sequence; it is empty"
            )
        nearest = min((edit_distance(sequence, each), -len(each)) for each in correct)
        edits, tokens = edits + nearest[0], tokens - nearest[1]
        wrong += nearest[0] > 0
    if not tokens:
        raise ValueError("`references` must contain a token; received none")
    return edits / tokens, wrong / len(predicted)
