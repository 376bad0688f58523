"""Loaders of small real data sets, and benchmark series for reservoirs."""

from keras_rnnkit.datasets.cmudict import PHONES, Pronunciations, cmudict
from keras_rnnkit.datasets.japanese_vowels import Sequences, japanese_vowels
from keras_rnnkit.datasets.sentences import Pairs, sentence_pairs
from keras_rnnkit.datasets.series import mackey_glass, narma, santa_fe

__all__ = [
    "PHONES",
    "Pairs",
    "Pronunciations",
    "Sequences",
    "cmudict",
    "japanese_vowels",
    "mackey_glass",
    "narma",
    "santa_fe",
    "sentence_pairs",
]
