"""TFLite: one file that the LiteRT interpreter of a phone runs, with builtin ops."""

import tempfile
import time
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_rnnkit.arguments import check_positive_integer
from keras_rnnkit.export.files import whole
from keras_rnnkit.export.report import ExportReport
from keras_rnnkit.export.saved_model import (
    SIGNATURE,
    export_saved_model,
    input_signature,
    serve,
)

TOLERANCE = 1e-5
TINY = 1e-30  # keeps an output of zeros from a division by zero


def export_tflite(model: keras.Model, path, *, batch_size=1, check=True):
    """Writes the model as a TFLite file of builtin ops and proves that it is right.

    The file is run in the LiteRT interpreter, several times in a row with different
    inputs, and compared with the Keras model before it appears under `path`.

    Args:
        model: a built functional or sequential model with known numbers of steps.
        path: the file to write; an earlier one stays if the export fails.
        batch_size: int, the number of sequences that a call takes.
        check: the data to compare on: an array, or a list of one for each input, or a
            dict of them by name, whose rows are taken `batch_size` at a time; True for
            random data (integer inputs get zeros and ones).

    Returns:
        `ExportReport`.

    Raises:
        ValueError: the model has not been built, computes in another type than float32,
            an axis beside the batch is unknown, `check` has fewer than `batch_size`
            rows, or the largest difference is above 1e-5 of the largest output.
    """
    check_positive_integer("batch_size", batch_size)
    for spec in input_signature(model, batch_size):
        if None in spec.shape:
            raise ValueError(
                f"input `{spec.name}` must have a known shape to be exported to "
                f"TFLite; received {tuple(spec.shape)}"
            )
    check_types(model)
    calls = _calls(model, batch_size, check)
    with whole(path) as new, tempfile.TemporaryDirectory() as folder:
        saved = export_saved_model(model, Path(folder) / "model", batch_size=batch_size)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            str(saved), signature_keys=[SIGNATURE]
        )
        content = converter.convert()
        report = _prove(model, content, calls, str(path))
        new.write_bytes(content)
    return report


def check_types(model):
    """Raises `ValueError` where TFLite has no ops for the type of a layer."""
    for layer in model.layers:
        if layer.compute_dtype in ("float16", "bfloat16", "float64"):
            raise ValueError(
                f"`{layer.name}` must compute in float32 to be exported to TFLite; "
                f"received {layer.compute_dtype}: build the model with the dtype "
                "policy 'float32' and give it the weights"
            )


class TFLiteModel:
    """A TFLite file in the LiteRT interpreter, called with NumPy arrays.

    Args:
        source: the file's path, or its content as bytes.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def __init__(self, source):
        if not isinstance(source, bytes):
            source = Path(source).read_bytes()
        self._interpreter = Interpreter(model_content=source)
        self._interpreter.allocate_tensors()
        self._run = self._interpreter.get_signature_runner(SIGNATURE)
        self.input_names = list(self._run.get_input_details())
        self.batch_size = int(
            next(iter(self._run.get_input_details().values()))["shape"][0]
        )

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs one batch; inputs and outputs by name, cast to the file's types."""
        types = {n: d["dtype"] for n, d in self._run.get_input_details().items()}
        unknown = set(inputs) ^ set(types)
        if unknown:
            raise ValueError(
                f"the inputs must be {sorted(types)}; received {sorted(inputs)}"
            )
        return self._run(**{n: np.asarray(x, types[n]) for n, x in inputs.items()})

    def predict(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs any number of rows, `batch_size` at a time."""
        rows = len(next(iter(inputs.values())))
        step = self.batch_size
        if rows % step:
            raise ValueError(
                f"the number of rows must be a multiple of the file's batch size, "
                f"{step}; received {rows}"
            )
        calls = [
            self(**{name: x[i : i + step] for name, x in inputs.items()})
            for i in range(0, rows, step)
        ]
        return {name: np.concatenate([c[name] for c in calls]) for name in calls[0]}


def _prove(model, content, calls, path) -> ExportReport:
    """Runs the file against the model, call by call, on one interpreter."""
    lite = TFLiteModel(content)
    keras_model = tf.function(lambda **inputs: serve(model, **inputs))
    absolute, relative, seconds = [], [], []
    for inputs in calls:
        start = time.perf_counter()
        outputs = lite(**inputs)
        seconds.append(time.perf_counter() - start)
        for name, expected in keras_model(**inputs).items():
            difference = np.abs(outputs[name] - expected.numpy()).max(initial=0)
            largest = np.abs(expected.numpy()).max(initial=0)
            absolute.append(float(difference))
            relative.append(float(difference / max(largest, TINY)))
    if not max(relative) <= TOLERANCE:
        raise ValueError(
            f"the file for `{path}` must agree with `{model.name}` to "
            f"{TOLERANCE:.0e}; received a relative difference of {max(relative):.1e}: "
            "nothing was written"
        )
    return ExportReport(
        path=path,
        size=len(content),
        parameters=model.count_params(),
        ops=count_ops(content),
        calls=len(calls),
        max_absolute=max(absolute),
        max_relative=max(relative),
        latency=float(np.median(seconds)),
    )


def count_ops(content: bytes) -> dict[str, int]:
    """Counts the operations of a TFLite file, those within loops too; most first."""
    names = {
        code: name
        for name, code in vars(schema.BuiltinOperator).items()
        if not name.startswith("_")
    }
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    codes = [
        (code.customCode or b"CUSTOM").decode()
        if code.builtinCode == schema.BuiltinOperator.CUSTOM
        else names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]
    ops = [op for graph in model.subgraphs for op in graph.operators or ()]
    return dict(Counter(codes[op.opcodeIndex] for op in ops).most_common())


def _calls(model, batch_size, check):
    """Three or more dicts of inputs to compare on."""
    specs = input_signature(model, batch_size)
    if check is True:
        rng = np.random.default_rng(0)
        return [{spec.name: _random(rng, spec) for spec in specs} for _ in range(3)]
    if isinstance(check, dict):
        check = [check[spec.name] for spec in specs if spec.name in check]
    arrays = check if isinstance(check, (list, tuple)) else [check]
    arrays = [
        np.asarray(x, s.dtype.as_numpy_dtype)
        for x, s in zip(arrays, specs, strict=False)
    ]
    rows = min(map(len, arrays), default=0)
    if rows < batch_size or len(arrays) != len(specs):
        raise ValueError(
            f"`check` must hold {len(specs)} arrays of at least `batch_size` = "
            f"{batch_size} rows; received {len(arrays)} of {rows}"
        )
    calls = [
        {s.name: x[i : i + batch_size] for s, x in zip(specs, arrays, strict=True)}
        for i in range(0, rows - batch_size + 1, batch_size)
    ]
    return calls * (3 if len(calls) < 3 else 1)


def _random(rng, spec):
    if spec.dtype.is_floating:
        return rng.normal(size=spec.shape).astype(spec.dtype.as_numpy_dtype)
    return rng.integers(0, 2, spec.shape).astype(spec.dtype.as_numpy_dtype)
