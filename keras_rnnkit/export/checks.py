"""What may be asked of an export to TFLite, and what a file must hold."""

import keras
import tensorflow as tf

from keras_rnnkit.arguments import check_choice, check_positive_integer
from keras_rnnkit.export.flatbuffer import OPERATORS, parse
from keras_rnnkit.export.fused import OPERATION
from keras_rnnkit.export.policy import FORMS
from keras_rnnkit.export.scales import faults_of
from keras_rnnkit.export.time_axes import check_time_steps
from keras_rnnkit.internals import all_layers
from keras_rnnkit.seq2seq import Seq2Seq

CALIBRATED = "int8", "int16x8"
# How far a file may be off: see `tolerance` of `export_tflite`
TOLERANCE = {None: 1e-5, "float16": 0.01, "dynamic": 0.1, "int8": 0.2, "int16x8": 0.1}


def check_arguments(quantize, batch_size, time_steps, representative_data, check):
    """Raises `ValueError` for arguments that no model can be exported with."""
    check_choice("quantize", quantize, TOLERANCE)
    if batch_size is not None:
        check_positive_integer("batch_size", batch_size)
    check_time_steps(time_steps)
    if quantize in CALIBRATED and representative_data is None:
        raise ValueError(
            f"`quantize={quantize!r}` needs `representative_data`, inputs to measure "
            "the ranges of values on; received None"
        )
    if check is False or check is None:
        raise ValueError(
            "`check` must be True or data to compare on: a file that was not compared "
            f"is not written; received {check}"
        )


def check_answers(model, max_length, streaming=False, forecast=None) -> bool:
    """Whether it is a `Seq2Seq` whose answers are exported.

    Raises `ValueError` for what it cannot do, and for what it alone can.
    """
    answers = isinstance(model, Seq2Seq)
    if answers and (streaming or forecast is not None):
        asked = "`streaming=True`" if streaming else f"`forecast={forecast}`"
        raise ValueError(
            f"`{model.name}` can neither stream nor forecast, as it answers whole "
            f"sources; received {asked}"
        )
    if answers and max_length is None:
        raise ValueError(
            f"`max_length` must say how long an answer of `{model.name}` may be; "
            "received None"
        )
    if not answers and max_length is not None:
        raise ValueError(
            f"`max_length` is of a `Seq2Seq`, which `{model.name}` is not; received "
            f"{max_length}"
        )
    return answers


def check_form(model, form):
    """Raises `ValueError` unless `form` is one that a loop can have, or a dict."""
    forms = form if isinstance(form, dict) else {None: form}
    for each in forms.values():
        check_choice("form", each, ("auto", *FORMS))
    names = {layer.name for layer in all_layers(model) if hasattr(layer, "cell")}
    if unknown := set(forms) - names - {None}:
        raise ValueError(
            f"`form` must name recurrent layers of the model, {sorted(names)}; "
            f"received {sorted(unknown)}"
        )


def check_types(model):
    """Raises `ValueError` where TFLite has no ops for what a layer computes with."""
    inputs = getattr(model, "inputs", None) or ()  # a `Seq2Seq` has none
    strings = [x.name for x in inputs if x.dtype == "string"]
    tables = [
        layer.name
        for layer in all_layers(model)
        if not isinstance(layer, keras.Model) and resources_of(layer)
    ]
    if strings or tables:
        what = "looks up words" if tables else "is an input of strings"
        raise ValueError(
            f"`{(tables or strings)[0]}` {what}, for which TFLite has no builtin "
            "operations: export the model from the token ids on, and look these up "
            "before"
        )


def resources_of(layer) -> list:
    """What a layer uses beside its variables, such as lookup tables."""
    within = tf.train.TrackableView(layer).descendants()
    kind = tf.saved_model.experimental.TrackableResource
    return [each for each in within if isinstance(each, kind)]


def check_ops(ops: dict[str, int], policy):
    """Raises `RuntimeError` unless the file has what was asked for and no more."""
    strange = [name for name in ops if "Flex" in name or name not in OPERATORS.values()]
    if strange:
        raise RuntimeError(f"the file must have builtin ops only; received {strange}")
    fused = sum(layer["form"] == "fused" for layer in policy.layers.values())
    if ops.get(OPERATION, 0) != fused:
        raise RuntimeError(
            f"the file must have {fused} fused LSTMs; received {ops.get(OPERATION, 0)}"
        )


def check_scales(content: bytes):
    """Raises `RuntimeError` if an operation has scales that make its result wrong."""
    if faults := faults_of(parse(content)):
        more = f", and {len(faults) - 1} more" * (len(faults) > 1)
        raise RuntimeError(
            "every operation of the file must have the scales that its kernel needs; "
            f"received a file in which {faults[0]}{more}: nothing was written"
        )
