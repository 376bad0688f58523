"""The loop over time.

`loop` says what it computes, and runs it in ordinary ops. `plan` decides whether it is
compiled, `policy` lets an export decide otherwise. `step`, `compiled` and `fast` are
the compiled loop: one step, all steps of some rows, and all rows on all cores. `masks`,
`padding` and `often` handle sequences of several lengths.
"""

from keras_rnnkit.recurrence.by_rows import RowFunction
from keras_rnnkit.recurrence.fast import FastLoop, is_known_zero, pad_steps
from keras_rnnkit.recurrence.gradient import forget_gradients, gradients
from keras_rnnkit.recurrence.keep import keep
from keras_rnnkit.recurrence.loop import run, run_each, written_out
from keras_rnnkit.recurrence.masks import as_mask, check_lengths_within
from keras_rnnkit.recurrence.often import (
    at_once,
    both_ways,
    compiled_function,
    elements,
    is_often,
    ordinary_function,
)
from keras_rnnkit.recurrence.padding import as_arrays, pad_rows, padded
from keras_rnnkit.recurrence.plan import LOOPS, Place, Plan, make_plan, ordinary_ops
from keras_rnnkit.recurrence.policy import (
    DEFAULT,
    Loop,
    Policy,
    Stream,
    current_policy,
    current_stream,
    unused,
)
from keras_rnnkit.recurrence.shards import LENGTHS, pad, side_by_side
from keras_rnnkit.recurrence.step import are_only_summed, look, specs_of_step, wide
from keras_rnnkit.recurrence.write import write_at

__all__ = [
    "DEFAULT",
    "LENGTHS",
    "LOOPS",
    "FastLoop",
    "Loop",
    "Place",
    "Plan",
    "Policy",
    "RowFunction",
    "Stream",
    "are_only_summed",
    "as_arrays",
    "as_mask",
    "at_once",
    "both_ways",
    "check_lengths_within",
    "compiled_function",
    "current_policy",
    "current_stream",
    "elements",
    "forget_gradients",
    "gradients",
    "is_known_zero",
    "is_often",
    "keep",
    "look",
    "make_plan",
    "ordinary_function",
    "ordinary_ops",
    "pad",
    "pad_rows",
    "pad_steps",
    "padded",
    "run",
    "run_each",
    "side_by_side",
    "specs_of_step",
    "unused",
    "wide",
    "write_at",
    "written_out",
]
