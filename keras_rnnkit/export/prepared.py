"""A model made ready for an export, and its own again after it."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

from keras_rnnkit.export.errors import explained
from keras_rnnkit.export.floats import OTHERS, in_float32
from keras_rnnkit.export.stand_ins import stand_ins
from keras_rnnkit.export.whole_model import check_kind, with_inputs
from keras_rnnkit.seq2seq import Seq2Seq

Arguments = ParamSpec("Arguments")
Written = TypeVar("Written")


def prepared(
    *, for_tflite: bool
) -> Callable[[Callable[Arguments, Written]], Callable[Arguments, Written]]:
    """Has an exporter, whose first argument is a model, receive one that it can trace.

    Args:
        for_tflite: bool, whether the model has to be written in what TFLite knows:
            loops of this package, and float32.
    """

    def decorate(export):
        @wraps(export)
        def run(model, *args, **kwargs):
            check_kind(model)
            with ExitStack() as stack:
                stack.enter_context(explained(model))
                if for_tflite:
                    stack.enter_context(in_float32(model))
                stack.enter_context(stand_ins(model, recurrent=for_tflite))
                if not isinstance(model, Seq2Seq):
                    model = with_inputs(model, OTHERS if for_tflite else ())
                return export(model, *args, **kwargs)

        return run

    return decorate
