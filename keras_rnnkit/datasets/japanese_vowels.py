"""Japanese vowels: which of nine speakers says a vowel."""

from typing import NamedTuple

import numpy as np

from keras_rnnkit.summary import summary_of

CLASSES = 9
STEPS = 29


class Sequences(NamedTuple):
    """Padded sequences, their lengths and their labels.

    Attributes:
        x: float32 `(sequences, steps, features)`.
        lengths: int32 `(sequences,)`.
        y: int32 `(sequences,)`.
    """

    x: np.ndarray
    lengths: np.ndarray
    y: np.ndarray

    def __repr__(self):
        return summary_of(self)


def japanese_vowels(split: str) -> Sequences:
    """Loads a split of the Japanese vowels of Kudo et al. (1999).

    Nine male speakers say /ae/. Each utterance is a sequence of 7 to 29 frames of 12
    linear-prediction cepstrum coefficients. The package `sktime` ships the data.

    Args:
        split: "train" (270 utterances, 30 a speaker) or "test" (370).

    Returns:
        `Sequences`: `x`, float32 `(utterances, 29, 12)`, zero after the end of an
        utterance, `lengths`, int32 `(utterances,)`, and `y`, int32 `(utterances,)`, the
        speaker, 0 to 8.

    Raises:
        ImportError: `sktime` is not installed.
        ValueError: another `split`.

    Example:

    ```python
    import keras_rnnkit as rk

    x, lengths, y = rk.datasets.japanese_vowels("train")
    print(x.shape, lengths.shape, y.shape)  # (270, 29, 12) (270,) (270,)
    ```
    """
    if split not in ("train", "test"):
        raise ValueError(f"`split` must be 'train' or 'test'; received {split!r}")
    try:
        from sktime.datasets import load_japanese_vowels
    except ImportError as error:
        raise ImportError(
            "`japanese_vowels` needs the package `sktime`, which ships the data: "
            "pip install 'keras_rnnkit[datasets]'"
        ) from error
    frame, labels = load_japanese_vowels(split=split)
    rows = [np.stack([np.asarray(v) for v in row], axis=1) for row in frame.to_numpy()]
    x = np.zeros((len(rows), STEPS, rows[0].shape[1]), np.float32)
    for padded, row in zip(x, rows, strict=True):
        padded[: len(row)] = row
    lengths = np.array([len(row) for row in rows], np.int32)
    return Sequences(x, lengths, labels.astype(np.int32) - 1)
