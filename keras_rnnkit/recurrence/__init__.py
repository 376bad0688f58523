"""The only time loop, and what belongs to it: masks, lengths, reversal, unrolling."""

from keras_rnnkit.recurrence.loop import run
from keras_rnnkit.recurrence.masks import as_mask

__all__ = ["as_mask", "run"]
