"""Small loaders of real data."""

from keras_rnnkit.datasets.japanese_vowels import Sequences, japanese_vowels

__all__ = ["Sequences", "japanese_vowels"]
