"""Exports a model to TFLite: one file of builtin operations."""

import os
import re
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_rnnkit.convert import from_keras, has_stock_layers
from keras_rnnkit.export.atomic_writes import atomic_write, check_target
from keras_rnnkit.export.checks import (
    CALIBRATED,
    TOLERANCE,
    check_arguments,
    check_form,
    check_ops,
    check_scales,
    check_seq2seq,
    check_types,
)
from keras_rnnkit.export.converter import CONVERTER
from keras_rnnkit.export.errors import layers_in
from keras_rnnkit.export.flatbuffer import inspect_tflite
from keras_rnnkit.export.graph_rewrites import SCALE_CONFLICT, rescale_joins
from keras_rnnkit.export.names import by_signature
from keras_rnnkit.export.policy import STATES, TFLitePolicy
from keras_rnnkit.export.postprocess import postprocess
from keras_rnnkit.export.prepare import with_prepared_model
from keras_rnnkit.export.report import ExportReport
from keras_rnnkit.export.samples import samples, split_into_calls
from keras_rnnkit.export.saved_model import write_saved_model
from keras_rnnkit.export.signatures import (
    ForecastSignatures,
    GenerateSignatures,
    SequenceSignatures,
)
from keras_rnnkit.export.streaming import StreamingSignatures
from keras_rnnkit.export.verification import verify_tflite

MAX_CHARACTERS = 300  # quoted from the converter


@with_prepared_model(for_tflite=True)
def export_tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    batch_size: int | None = 1,
    time_steps: str | int | dict[str, int | None] | None = "model",
    quantize: str | None = None,
    representative_data=None,
    form: str | dict[str, str] = "auto",
    streaming: bool = False,
    forecast: int | None = None,
    max_length: int | None = None,
    check=True,
    tolerance: float | None = None,
) -> ExportReport:
    """Exports a model as a TFLite file of builtin operations, and verifies it.

    Before the file appears under `path`, the LiteRT interpreter runs it several times
    in a row with different inputs, and its outputs are compared with those of the
    model.

    Args:
        model: a built model: functional, sequential, a `Seq2Seq`, or a subclassed model
            that was called once. Recurrent layers of Keras, also within your own
            layers, are traced on the loops of this package. Other dtypes than float32,
            and layers quantized by Keras, are written in float32. `model` does not
            change.
        path: str or path-like, the file to write. An existing file stays if the export
            fails.
        batch_size: int, number of sequences in a call, or None for any. Default: 1.
        time_steps: the size of the axis that the recurrent layers run along, which is
            found in the model's graph; other axes do not change. "model" for that of
            the model's inputs, an int, or None for any. A dict of these by input name,
            such as `{"frames": None}`, changes only the inputs that it names. With
            `streaming` it is the number of steps in a call, and "model" means 1.
            Default: "model".
        quantize: None for float32; "dynamic" for 8-bit weights; "float16" for 16-bit
            weights; "int8" for 8-bit weights and values; "int16x8" for 8-bit weights
            and 16-bit values. Default: None.
        representative_data: inputs to measure the ranges of values on, in the form of
            `check`; required for "int8" and "int16x8". Default: None.
        form: how recurrent layers are written, one form for all or a dict by layer
            name. "fused": the operation `UNIDIRECTIONAL_SEQUENCE_LSTM`, for plain LSTMs
            (also bidirectional and stacked) with a known batch size and without mask.
            "loop": a `WHILE` operation, for any length. "unrolled": one step after the
            other, for a known number of steps. "auto": of the forms that are exact for
            the layer, the fastest here, or a small one with `quantize`.
            Default: "auto".
        streaming: bool, whether to write a file for `StreamingModel`, with two
            signatures: `step` takes some steps and the states by name, and returns the
            outputs and the new states; `reset` returns the initial states. Causal
            convolutions keep their last inputs as a state. If the model computes the
            initial states of a layer from other inputs, `reset` takes these.
            Default: False.
        forecast: int or None; if given, writes a file that continues sequences by that
            many steps, with one signature, `forecast`; see `rk.forecast`. `time_steps`
            are those of `warmup`, and "model" means any number. Default: None.
        max_length: int, the maximum number of tokens of an answer; required for a
            `Seq2Seq`. Its file has one signature, `generate`, which answers `source` by
            greedy search; "model" means any number of steps. Default: None.
        check: data to compare on: an array, a list with one per input, or a dict of
            them by name, whose rows are taken `batch_size` at a time. True for
            `representative_data` or else random data, of several sizes if the file
            takes any (integer inputs get zeros and ones). Default: True.
        tolerance: float, the bound on the difference: the largest difference over the
            largest output, 1e-5 by default; with `quantize` the root mean square of
            differences over that of the outputs, by default 0.01 for "float16", 0.1 for
            "dynamic" and "int16x8", 0.2 for "int8". It applies to each output and,
            beyond what rounding and chance explain, to each feature, each step, and the
            rows of small, middling and large inputs (without `quantize`, a hundred
            times the tolerance). The scale of each of these may be off by half of it.
            Default: None, for these values.

    Returns:
        `ExportReport`, which prints as a table.

    Raises:
        ValueError: an argument is invalid; the model has not been built, or cannot be
            written or streamed as requested, with the layer and the reason; or a
            difference exceeds `tolerance`.
        RuntimeError: TFLite's converter crashed.
        OSError: `path` cannot be written; see `check_target`.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    model = keras.Sequential([keras.Input((8, 3), name="x"), rk.GRU(4)])
    report = rk.export_tflite(model, "model.tflite")
    print(report.max_relative < report.tolerance)  # True
    ```
    """
    check_arguments(quantize, batch_size, time_steps, representative_data, check)
    check_target(path)
    if streaming and forecast is not None:
        raise ValueError(
            "a file must either stream or forecast; received `streaming=True` and "
            f"`forecast={forecast}`"
        )
    check_seq2seq(model, max_length, streaming, forecast)
    check_form(model, form)
    check_types(model)
    CONVERTER.start()
    if forecast is not None and has_stock_layers(model):
        model = from_keras(model)  # as a closed loop walks through the layers
    arguments = model, batch_size, time_steps, quantize in CALIBRATED
    signatures = make_signatures(arguments, streaming, forecast, max_length)
    if quantize == "int16x8" and not all(s.dtype.is_floating for s in signatures.specs):
        raise ValueError(
            "`quantize='int16x8'` needs inputs of floats; received "
            f"{[s.dtype.name for s in signatures.specs]}: use 'int8' or 'dynamic'"
        )
    data, calls = choose_calls(signatures, model, representative_data, check)
    policy = TFLitePolicy(form, quantized=quantize)
    if quantize in CALIBRATED:
        data = signatures.calibration_calls(data, policy)
    tolerance = TOLERANCE[quantize] if tolerance is None else tolerance
    with atomic_write(path) as new:
        flatbuffer = write_flatbuffer(model, signatures, policy, quantize, data)
        content = inspect_tflite(flatbuffer)
        check_ops(content.counted, policy)
        check_scales(flatbuffer)
        new.write_bytes(flatbuffer)
        CONVERTER.run(str(new))
        try:
            figures = verify_tflite(signatures, flatbuffer, calls, tolerance, quantize)
        except RuntimeError as error:
            raise RuntimeError(
                f"LiteRT cannot run the file for `{model.name}`: nothing was written. "
                f"It says: {error}"
            ) from error
        return ExportReport(
            path=str(path),
            size=content.size,
            parameters=model.count_params(),
            quantize=quantize,
            tolerance=tolerance,
            layers=policy.layers,
            ops=content.counted,
            signatures=content.signatures,
            **figures,
        )


def make_signatures(arguments, streaming, forecast, max_length) -> SequenceSignatures:
    """Returns the signatures of the file.

    Args:
        arguments: tuple of the arguments of `SequenceSignatures`.
        streaming, forecast, max_length: as in `export_tflite`.
    """
    if max_length is not None:
        return GenerateSignatures(*arguments, max_length)
    if forecast is not None:
        return ForecastSignatures(*arguments, forecast)
    return (StreamingSignatures if streaming else SequenceSignatures)(*arguments)


def choose_calls(signatures, model, representative_data, check):
    """Returns the calls to calibrate on, or None, and the calls to compare on."""
    data, calls = None, signatures.random_calls()
    if representative_data is not None:
        rows = by_signature(model, representative_data)
        rows = samples("representative_data", rows, signatures.specs)
        data = calls = split_into_calls(rows, signatures.specs)
    if check is not True:
        rows = samples("check", by_signature(model, check), signatures.specs)
        calls = split_into_calls(rows, signatures.specs)
    return data, calls


def write_flatbuffer(model, signatures, policy, quantize, data) -> bytes:
    """Traces and converts a model; returns the TFLite file.

    Args:
        model: a model, prepared by `with_prepared_model`.
        signatures: `SequenceSignatures` or a subclass.
        policy: `TFLitePolicy`.
        quantize: as in `export_tflite`.
        data: list of dicts, the calls to calibrate on, or None.
    """
    with tempfile.TemporaryDirectory() as folder:
        endpoints = signatures.endpoints(policy)
        write_saved_model(folder, endpoints, policy)
        if policy.refusals:
            raise ValueError("; ".join(dict.fromkeys(policy.refusals)))
        flatbuffer = convert(model, folder, endpoints, quantize, data)
    default, largest_state = next(iter(endpoints)), policy.ranges.get(STATES, 0)
    return postprocess(flatbuffer, default, largest_state)


def convert(model, folder, endpoints, quantize, data) -> bytes:
    """Converts a SavedModel; an error names the layer that causes it."""
    request = {"saved": folder, "signatures": list(endpoints), "quantize": quantize}
    samples = Path(folder) / "samples.npz"
    if quantize in CALIBRATED:
        arrays = {f"{n}:{i}": x for i, call in enumerate(data) for n, x in call.items()}
        np.savez(samples, **arrays)
    path = Path(folder) / "model.tflite"
    request |= {"data": str(samples), "path": str(path)}
    try:
        try:
            CONVERTER.convert(**request)
        except ValueError as error:
            if SCALE_CONFLICT not in str(error):
                raise
            rescale_joins(folder)
            CONVERTER.convert(**request)
    except ValueError as error:
        rejected = describe_rejection(str(error), model)
        raise ValueError(f"TFLite has no builtin operations for {rejected}") from error
    return path.read_bytes()


def describe_rejection(message: str, model) -> str:
    """Returns the layers and operations that the converter rejected."""
    # The message has the location and the operation, followed by the whole program.
    message = message.partition("<unknown>:0: note:")[0]
    where = ", ".join(f"`{name}`" for name in layers_in(message, model)) or "a layer"
    ops = dict.fromkeys(re.findall(r"'tf\.(\w+)' op", message))
    reason = (
        f"needs {', '.join(ops)}" if ops else " ".join(message.split())[:MAX_CHARACTERS]
    )
    remedy = ""
    if any(op.startswith("TensorList") for op in ops):
        remedy = ": pass `batch_size` and `time_steps`, for a loop of known sizes"
    return f"{where} of `{model.name}`: nothing was written. It {reason}{remedy}"
