"""The only time loop and the ways it runs; masks, lengths, reversal, unrolling."""

from keras_rnnkit.recurrence.fast import FastLoop
from keras_rnnkit.recurrence.loop import run
from keras_rnnkit.recurrence.masks import as_mask, check_lengths_within
from keras_rnnkit.recurrence.shards import in_shards, side_by_side
from keras_rnnkit.recurrence.step import look, specs_of_step
from keras_rnnkit.recurrence.way import WAYS, is_fast, only_portable

__all__ = [
    "WAYS",
    "FastLoop",
    "as_mask",
    "check_lengths_within",
    "in_shards",
    "is_fast",
    "look",
    "only_portable",
    "run",
    "side_by_side",
    "specs_of_step",
]
