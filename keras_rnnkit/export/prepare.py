"""Prepares a model for an export, and restores it afterwards."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

from keras_rnnkit.export.errors import explain_errors
from keras_rnnkit.export.float32 import OTHER_DTYPES, compute_in_float32
from keras_rnnkit.export.layer_overrides import override_layer_calls
from keras_rnnkit.export.model_inputs import as_functional, check_kind
from keras_rnnkit.seq2seq import Seq2Seq

Arguments = ParamSpec("Arguments")
Report = TypeVar("Report")


def with_prepared_model(
    *, for_tflite: bool
) -> Callable[[Callable[Arguments, Report]], Callable[Arguments, Report]]:
    """Decorates an exporter, so that its first argument is a model that can be traced.

    Args:
        for_tflite: bool, whether to use what TFLite supports: the loops of this package
            and float32.
    """

    def decorate(export):
        @wraps(export)
        def run(model, *args, **kwargs):
            check_kind(model)
            with ExitStack() as stack:
                stack.enter_context(explain_errors(model))
                if for_tflite:
                    stack.enter_context(compute_in_float32(model))
                stack.enter_context(override_layer_calls(model, recurrent=for_tflite))
                if not isinstance(model, Seq2Seq):
                    model = as_functional(model, OTHER_DTYPES if for_tflite else ())
                return export(model, *args, **kwargs)

        return run

    return decorate
