"""TFLite: one file that the LiteRT interpreter of a phone runs, with builtin ops."""

import os
import re
import tempfile
from pathlib import Path

import keras
import numpy as np

from keras_rnnkit.convert import from_keras, has_stock_layers
from keras_rnnkit.export.checks import (
    CALIBRATED,
    TOLERANCE,
    check_answers,
    check_arguments,
    check_form,
    check_ops,
    check_scales,
    check_types,
)
from keras_rnnkit.export.content import inspect_tflite
from keras_rnnkit.export.converter import CONVERTER
from keras_rnnkit.export.errors import layers_in
from keras_rnnkit.export.files import check_target, whole
from keras_rnnkit.export.finish import finished
from keras_rnnkit.export.names import by_signature
from keras_rnnkit.export.policy import STATES, TFLitePolicy
from keras_rnnkit.export.prepared import prepared
from keras_rnnkit.export.proof import prove
from keras_rnnkit.export.report import ExportReport
from keras_rnnkit.export.rescale import CONFLICT, rescale_joins
from keras_rnnkit.export.samples import calls_of, samples
from keras_rnnkit.export.saved_model import write
from keras_rnnkit.export.served import Answers, Forecast, Whole
from keras_rnnkit.export.streamed import Streamed

LETTERS = 300  # of what the converter says


@prepared(for_tflite=True)
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
    """Writes a model as a TFLite file of builtin ops and proves that it is right.

    The file is run in the LiteRT interpreter, several times in a row with different
    inputs, and compared with the Keras model before it appears under `path`.

    Args:
        model: a built model: functional, sequential, a `Seq2Seq`, or a class of your
            own that was called once. Recurrent layers of Keras, in layers of your own
            too, run on the loops of this package while it is traced; what computes in
            another type than float32, or was quantized by Keras, is written in float32.
            The model itself stays as it is.
        path: the file to write; an earlier one stays if the export fails.
        batch_size: int, the number of sequences that a call takes, or None for any.
        time_steps: "model" for what the model's inputs say, int, or None for any: the
            size of the axis that the recurrent layers run along, which is found in the
            model's graph. All other axes stay. A dict of these by the names of inputs,
            such as `{"frames": None}`, changes the inputs that it names and no others.
            With `streaming` the steps that a call takes, and "model" stands for 1.
        quantize: None; "dynamic": weights in 8 bits; "float16": weights in 16 bits;
            "int8": all in 8 bits; "int16x8": weights in 8 bits, values in 16.
        representative_data: inputs to measure the ranges of values on, as `check`;
            "int8" and "int16x8" need them.
        form: how recurrent layers are written, one for all or a dict by their names.
            "fused": the operation `UNIDIRECTIONAL_SEQUENCE_LSTM`, for a plain LSTM, in
            each direction and layer, of a known batch, without mask. "loop": a `WHILE`,
            for any length. "unrolled": one step after the other, for a known number of
            them. "auto": of those that are exact for the layer the fastest here; with
            `quantize`, a small one.
        streaming: write a file for `StreamingModel`, with two signatures: `step` takes
            some steps and the states by name and returns the outputs and the states,
            `reset` returns the states to begin with. Causal convolutions keep their
            last inputs as a state. If the model computes the first states of a layer
            from other inputs, `reset` takes these.
        forecast: int, write a file that continues sequences by so many steps, with one
            signature, `forecast`; see `rk.forecast`. `time_steps` are those of
            `warmup`, and "model" stands for any number.
        max_length: int, of a `Seq2Seq`, the most tokens of an answer: its file has one
            signature, `generate`, which answers `source` greedily; "model" stands for
            any number of steps.
        check: the data to compare on: an array, or a list of one for each input, or a
            dict of them by name, whose rows are taken `batch_size` at a time. True for
            `representative_data` or else random data, of several sizes where the file
            takes any (integer inputs get zeros and ones).
        tolerance: how far the file may be off. The largest difference over the largest
            output, 1e-5 by default; with `quantize` the root mean square of differences
            over that of outputs, by default 0.01 with "float16", 0.1 with "dynamic" and
            "int16x8", 0.2 with "int8". That holds for each output and, with what
            rounding and chance explain left out, for each of its features, each step,
            and the rows of small, middling and large inputs (without `quantize` to a
            hundred times the tolerance); none of these may be too large or too small
            by half of it.

    Returns:
        `ExportReport`.

    Raises:
        ValueError: a wrong argument; a model that has not been built, or cannot be
            written or streamed as asked for, with the layer and the reason; a
            difference above `tolerance`.
        RuntimeError: TFLite's converter broke down.
    """
    check_arguments(quantize, batch_size, time_steps, representative_data, check)
    check_target(path)
    if streaming and forecast is not None:
        raise ValueError(
            "a file must either stream or forecast; received `streaming=True` and "
            f"`forecast={forecast}`"
        )
    tolerance = TOLERANCE[quantize] if tolerance is None else tolerance
    answers = check_answers(model, max_length, streaming, forecast)
    check_form(model, form)
    check_types(model)
    CONVERTER.start()
    if forecast is not None and has_stock_layers(model):
        model = from_keras(model)  # as a closed loop walks through the layers
    arguments = model, batch_size, time_steps, quantize in CALIBRATED
    if answers:
        served = Answers(*arguments, max_length)
    elif forecast is not None:
        served = Forecast(*arguments, forecast)
    else:
        served = (Streamed if streaming else Whole)(*arguments)
    if quantize == "int16x8" and not all(s.dtype.is_floating for s in served.specs):
        raise ValueError(
            "`quantize='int16x8'` needs inputs of floats; received "
            f"{[s.dtype.name for s in served.specs]}: take 'int8' or 'dynamic'"
        )
    data, calls = None, served.random_calls()
    if representative_data is not None:
        data = by_signature(model, representative_data)
        data = samples("representative_data", data, served.specs)
        data = calls = calls_of(data, served.specs)
    if check is not True:
        check = by_signature(model, check)
        calls = calls_of(samples("check", check, served.specs), served.specs)

    policy = TFLitePolicy(form, quantized=quantize)
    if quantize in CALIBRATED:
        data = served.calibration(data, policy)
    with whole(path) as new, tempfile.TemporaryDirectory() as folder:
        endpoints = served.endpoints(policy)
        write(folder, endpoints, policy)
        if policy.refusals:
            raise ValueError("; ".join(dict.fromkeys(policy.refusals)))
        content = convert(model, folder, endpoints, quantize, data)
        content = finished(content, next(iter(endpoints)), policy.ranges.get(STATES, 0))
        found = inspect_tflite(content)
        check_ops(found.counted, policy)
        check_scales(content)
        new.write_bytes(content)
        CONVERTER.attempt(str(new))
        try:
            figures = prove(served, content, calls, tolerance, quantize)
        except RuntimeError as error:
            raise RuntimeError(
                f"LiteRT cannot run the file for `{model.name}`: nothing was written. "
                f"It says: {error}"
            ) from error
        return ExportReport(
            path=str(path),
            size=found.size,
            parameters=model.count_params(),
            quantize=quantize,
            tolerance=tolerance,
            layers=policy.layers,
            ops=found.counted,
            signatures=found.signatures,
            **figures,
        )


def convert(model, folder, endpoints, quantize, data) -> bytes:
    """Converts a SavedModel; an error names the layer that it comes from."""
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
            if CONFLICT not in str(error):
                raise
            rescale_joins(folder)
            CONVERTER.convert(**request)
    except ValueError as error:
        raise ValueError(
            f"TFLite has no builtin operations for {refused(str(error), model)}"
        ) from error
    return path.read_bytes()


def refused(said: str, model) -> str:
    """The layers and operations that the converter refused, from all that it says."""
    # It tells the place and the operation, and then the whole program.
    said = said.partition("<unknown>:0: note:")[0]
    where = ", ".join(f"`{name}`" for name in layers_in(said, model)) or "a layer"
    ops = dict.fromkeys(re.findall(r"'tf\.(\w+)' op", said))
    why = f"needs {', '.join(ops)}" if ops else " ".join(said.split())[:LETTERS]
    remedy = ""
    if any(op.startswith("TensorList") for op in ops):
        remedy = ": pass `batch_size` and `time_steps`, for a loop of known sizes"
    return f"{where} of `{model.name}`: nothing was written. It {why}{remedy}"
