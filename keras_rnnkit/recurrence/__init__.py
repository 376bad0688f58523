"""The only time loop and the ways it runs; masks, lengths, reversal, unrolling."""

from keras_rnnkit.recurrence.blocks import TURN, shaped
from keras_rnnkit.recurrence.by_rows import RowFunction
from keras_rnnkit.recurrence.exported import (
    FORMS,
    STATES,
    Export,
    Stream,
    current_export,
    current_stream,
    unused,
)
from keras_rnnkit.recurrence.fast import FastLoop, is_known_zero, pad_steps
from keras_rnnkit.recurrence.fused import OPERATION, fused_lstm
from keras_rnnkit.recurrence.gradient import forget_gradients
from keras_rnnkit.recurrence.keep import keep
from keras_rnnkit.recurrence.loop import run
from keras_rnnkit.recurrence.masks import as_mask, check_lengths_within
from keras_rnnkit.recurrence.often import at_once, elements, is_often
from keras_rnnkit.recurrence.padding import as_arrays, pad_rows, padded
from keras_rnnkit.recurrence.shards import LENGTHS, in_shards, pad, side_by_side
from keras_rnnkit.recurrence.step import are_only_summed, look, specs_of_step, wide
from keras_rnnkit.recurrence.way import WAYS, is_fast
from keras_rnnkit.recurrence.write import write_at

__all__ = [
    "FORMS",
    "LENGTHS",
    "OPERATION",
    "STATES",
    "TURN",
    "WAYS",
    "Export",
    "FastLoop",
    "RowFunction",
    "Stream",
    "are_only_summed",
    "as_arrays",
    "as_mask",
    "at_once",
    "check_lengths_within",
    "current_export",
    "current_stream",
    "elements",
    "forget_gradients",
    "fused_lstm",
    "in_shards",
    "is_fast",
    "is_known_zero",
    "is_often",
    "keep",
    "look",
    "pad",
    "pad_rows",
    "pad_steps",
    "padded",
    "run",
    "shaped",
    "side_by_side",
    "specs_of_step",
    "unused",
    "wide",
    "write_at",
]
