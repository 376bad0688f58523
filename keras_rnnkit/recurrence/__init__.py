"""The only time loop, and what belongs to it: masks, lengths, reversal, unrolling."""

from keras_rnnkit.recurrence.loop import run
from keras_rnnkit.recurrence.masks import as_mask, check_lengths_within

__all__ = ["as_mask", "check_lengths_within", "run"]
