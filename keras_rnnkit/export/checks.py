"""Checks of the arguments of an export, and of the file that it writes."""

import keras
import tensorflow as tf

from keras_rnnkit.arguments import check_choice, check_positive_integer
from keras_rnnkit.export.flatbuffer import OPERATORS, parse
from keras_rnnkit.export.fused import OPERATION
from keras_rnnkit.export.policy import FORMS
from keras_rnnkit.export.scales import find_scale_errors
from keras_rnnkit.export.time_axes import check_time_steps
from keras_rnnkit.internals import all_layers
from keras_rnnkit.seq2seq import Seq2Seq

CALIBRATED = "int8", "int16x8"
# Default of the argument `tolerance` of `export_tflite`
TOLERANCE = {None: 1e-5, "float16": 0.01, "dynamic": 0.1, "int8": 0.2, "int16x8": 0.1}


def check_arguments(quantize, batch_size, time_steps, representative_data, check):
    """Raises `ValueError` for arguments that are invalid for every model."""
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
            "`check` must be True or data to compare on, as every file is verified; "
            f"received {check}"
        )


def check_seq2seq(model, max_length, streaming=False, forecast=None):
    """Raises `ValueError` for arguments that a `Seq2Seq` does not support, or that only
    a `Seq2Seq` supports."""
    is_seq2seq = isinstance(model, Seq2Seq)
    if is_seq2seq and (streaming or forecast is not None):
        requested = "`streaming=True`" if streaming else f"`forecast={forecast}`"
        raise ValueError(
            f"`{model.name}` can neither stream nor forecast, as it answers "
            f"complete sources; received {requested}"
        )
    if is_seq2seq and max_length is None:
        raise ValueError(
            f"`max_length` must say how long an answer of `{model.name}` may be; "
            "received None"
        )
    if not is_seq2seq and max_length is not None:
        raise ValueError(
            f"`max_length` requires a `Seq2Seq`, which `{model.name}` is not; received "
            f"{max_length}"
        )


def check_form(model, form):
    """Raises `ValueError` unless `form` is valid: one form, or a dict of forms."""
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
    """Raises `ValueError` for layers that need operations that TFLite lacks."""
    inputs = getattr(model, "inputs", None) or ()  # a `Seq2Seq` has none
    strings = [x.name for x in inputs if x.dtype == "string"]
    tables = [
        layer.name
        for layer in all_layers(model)
        if not isinstance(layer, keras.Model) and tracked_resources(layer)
    ]
    if strings or tables:
        what = "looks up words" if tables else "is an input of strings"
        raise ValueError(
            f"`{(tables or strings)[0]}` {what}, for which TFLite has no builtin "
            "operations: export a model of token ids, and look these up before"
        )


def tracked_resources(layer) -> list:
    """Returns the resources of a layer other than variables, such as lookup tables."""
    within = tf.train.TrackableView(layer).descendants()
    kind = tf.saved_model.experimental.TrackableResource
    return [each for each in within if isinstance(each, kind)]


def check_ops(ops: dict[str, int], policy):
    """Raises `RuntimeError` unless the file has builtin ops only, and fused LSTMs where
    requested."""
    unknown = [name for name in ops if "Flex" in name or name not in OPERATORS.values()]
    if unknown:
        raise RuntimeError(f"the file must have builtin ops only; received {unknown}")
    fused = sum(layer["form"] == "fused" for layer in policy.layers.values())
    if ops.get(OPERATION, 0) != fused:
        raise RuntimeError(
            f"the file must have {fused} fused LSTMs; received {ops.get(OPERATION, 0)}"
        )


def check_scales(flatbuffer: bytes):
    """Raises `RuntimeError` if an operation has scales that make its result wrong."""
    if errors := find_scale_errors(parse(flatbuffer)):
        more = f", and {len(errors) - 1} more" * (len(errors) > 1)
        raise RuntimeError(
            "every operation of the file must have the scales that its kernel needs; "
            f"received a file in which {errors[0]}{more}: nothing was written"
        )
