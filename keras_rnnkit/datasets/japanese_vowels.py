"""Japanese vowels: which of nine men is speaking."""

from typing import NamedTuple

import numpy as np

from keras_rnnkit.summary import summary_of

CLASSES = 9
STEPS = 29


class Sequences(NamedTuple):
    """Padded sequences, their lengths and their labels."""

    x: np.ndarray
    lengths: np.ndarray
    y: np.ndarray

    def __repr__(self):
        return summary_of(self)


def japanese_vowels(split: str) -> Sequences:
    """Loads a split of the Japanese vowels of Kudo et al. (1999).

    Real speech: nine men say /ae/, each utterance a sequence of 7 to 29 frames of 12
    linear-prediction cepstrum coefficients. Comes with the package `sktime`.

    Args:
        split: "train" (270 utterances, 30 a speaker) or "test" (370).

    Returns:
        `x` float32 `(utterances, 29, 12)`, zero behind the end of an utterance;
        `lengths` int32 `(utterances,)`; `y` int32 `(utterances,)`, 0 to 8.

    Raises:
        ImportError: `sktime` is not installed.
        ValueError: another `split`.
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
