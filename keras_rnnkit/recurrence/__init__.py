"""The loop over time.

`loop` defines what it computes, and runs it in ordinary ops. `plan` decides whether it
is compiled; an export's `policy` can decide otherwise. The compiled loop is in `step`
(one step), `compiled` (all steps of some rows) and `fast` (all rows on all cores); all
three take `inputs`. `masks`, `padding` and `often` handle sequences of several lengths.
"""

from keras_rnnkit.recurrence.by_rows import RowFunction
from keras_rnnkit.recurrence.fast import FastLoop, is_known_zero, pad_steps
from keras_rnnkit.recurrence.gradient import forget_gradients, gradients
from keras_rnnkit.recurrence.inputs import LoopInputs, reverse_time
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
from keras_rnnkit.recurrence.residuals import save_residual
from keras_rnnkit.recurrence.shards import LENGTH_BUCKETS, pad, side_by_side
from keras_rnnkit.recurrence.step import (
    analyze_step,
    are_only_summed,
    specs_of_step,
    wide,
)

keep = save_residual  # its name before 0.2

__all__ = [
    "DEFAULT",
    "LENGTH_BUCKETS",
    "LOOPS",
    "FastLoop",
    "Loop",
    "LoopInputs",
    "Place",
    "Plan",
    "Policy",
    "RowFunction",
    "Stream",
    "analyze_step",
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
    "make_plan",
    "ordinary_function",
    "ordinary_ops",
    "pad",
    "pad_rows",
    "pad_steps",
    "padded",
    "reverse_time",
    "run",
    "run_each",
    "save_residual",
    "side_by_side",
    "specs_of_step",
    "unused",
    "wide",
    "written_out",
]
