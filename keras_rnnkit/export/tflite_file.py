"""A TFLite file in the LiteRT interpreter: its signatures, on NumPy arrays."""

import os
import threading
import timeit
import weakref
from pathlib import Path
from statistics import median

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_rnnkit.export.saved_model import STEP

NON_NUMERIC_KINDS = "OSUMmc"  # of dtypes: objects, text, dates, complex numbers


class TFLiteFile:
    """A TFLite file in the LiteRT interpreter, with its signatures.

    Inputs and outputs of quantized files are floats.

    The object is thread-safe: an interpreter runs one call at a time, so calls wait for
    each other. For parallel calls, create one object per thread. It can be pickled, and
    used after a fork: each process has its own interpreter.

    Args:
        source: str or path-like, the file; or bytes, its content.
        names: signatures to use, the first of them that the file has.
        hint: str, what to do instead with a streaming file, for the error.
    """

    def __init__(self, source, names, hint):
        if not isinstance(source, bytes):
            source = Path(source).read_bytes()
        self._content = source
        self._lock = threading.RLock()
        try:
            self._interpreter = Interpreter(model_content=source)
        except ValueError as error:
            raise ValueError(f"the file must be a TFLite file; {error}") from error
        signatures = self._interpreter.get_signature_list()
        signature = next((name for name in names if name in signatures), None)
        if signature is None:
            raise ValueError(
                f"the file must have a signature `{names[0]}`; received "
                f"{sorted(signatures)}{hint if STEP in signatures else ''}"
            )
        self._load(self._interpreter)
        self._details = {
            name: (runner.get_input_details(), runner.get_output_details())
            for name, runner in self._runners.items()
        }
        self._signature = signature
        self._inputs = self._details[signature][0]
        OPEN_FILES.add(self)

    def _load(self, interpreter):
        interpreter.allocate_tensors()
        self._interpreter = interpreter
        self._runners = {
            name: interpreter.get_signature_runner(name)
            for name in interpreter.get_signature_list()
        }

    def __reduce__(self):
        return type(self), (self._content,)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, a list of str."""
        return list(self._inputs)

    @property
    def output_scales(self) -> dict[str, float]:
        """The quantization scales of the outputs by name, 0 for floats."""
        _, outputs = self._details[self._signature]
        return {name: float(each["quantization"][0]) for name, each in outputs.items()}

    def run(self, signature, **inputs) -> dict[str, np.ndarray]:
        """Runs a signature on inputs by name, which are cast to the file's dtypes;
        returns its outputs by name."""
        details, output_details = self._details[signature]
        if set(inputs) != set(details):
            raise ValueError(
                f"the inputs must be {sorted(details)}; received {sorted(inputs)}"
            )
        given = {n: quantize_input(n, x, details[n]) for n, x in inputs.items()}
        for name, x in given.items():
            shape = tuple(int(n) for n in details[name]["shape_signature"])
            fits = len(shape) == x.ndim and all(
                n in (-1, m) for n, m in zip(shape, x.shape, strict=True)
            )
            if not fits or not x.size:
                raise ValueError(
                    f"input `{name}` must have shape {shape}, where -1 is any size "
                    f"from 1; received {x.shape}"
                )
        with self._lock:
            if self._interpreter is None:
                self._load(Interpreter(model_content=self._content))
            outputs = self._runners[signature](**given)
        return {
            name: dequantize_output(y, output_details[name])
            for name, y in outputs.items()
        }

    def inputs_by_name(self, x, inputs: dict) -> dict:
        """Returns the inputs of a call by name.

        Args:
            x: the only input, a list in the order of `input_names`, a dict by name, or
                None for `inputs`.
            inputs: dict of the inputs that were given by name.
        """
        names = self.input_names
        if x is None or (isinstance(x, dict) and not inputs):
            return inputs if x is None else x
        listed = x if isinstance(x, (list, tuple)) else None
        if len(names) == 1 and not (listed and len(listed) == 1 and self._is_list(x)):
            listed = [x]
        if inputs or listed is None or len(listed) != len(names):
            received = "one" if listed is None else str(len(listed))
            raise ValueError(
                f"inputs must be given by name, {names}, or in a list in this order; "
                f"received {received} without a name and {sorted(inputs)}"
            )
        return dict(zip(names, listed, strict=True))

    def _is_list(self, x):
        """Returns whether a list of length one is the only input, not one row of it."""
        (details,) = (self._inputs[name] for name in self.input_names)
        return np.ndim(x[0]) == len(details["shape_signature"])

    def median_latency(self, signature, calls: int, **inputs) -> float:
        """Returns the median seconds of a call of the default signature, without the
        overhead of this class."""
        interpreter = Interpreter(model_content=self._content)
        details = self._details[signature][0]
        for name, x in inputs.items():
            interpreter.resize_tensor_input(details[name]["index"], x.shape)
        interpreter.allocate_tensors()
        for name, x in inputs.items():
            given = quantize_input(name, x, details[name])
            interpreter.set_tensor(details[name]["index"], given)
        interpreter.invoke()
        return median(timeit.repeat(interpreter.invoke, number=1, repeat=calls))


OPEN_FILES = weakref.WeakSet()


def reset_after_fork():
    """Resets locks and interpreters in a child process: the thread that held a lock may
    exist in the parent only."""
    for file in list(OPEN_FILES):
        file._lock = threading.RLock()
        file._interpreter = file._runners = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=reset_after_fork)


def as_numbers(name, x) -> np.ndarray:
    """Returns an array; raises `ValueError` for values that are not numbers."""
    try:
        x = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise ValueError(f"input `{name}` must be an array; {error}") from error
    if x.dtype.kind in NON_NUMERIC_KINDS:
        raise ValueError(f"input `{name}` must hold numbers; received {x.dtype}")
    return x


def quantize_input(name, x, details):
    """Returns an array in the dtype and scale of a file's input."""
    x, dtype = as_numbers(name, x), np.dtype(details["dtype"])
    if dtype.kind not in "iu":
        return x.astype(dtype)
    scale, zero = details["quantization"]
    limits = np.iinfo(dtype)
    if not np.isfinite(x).all():
        raise ValueError(
            f"input `{name}` becomes {dtype} and must be finite; received values that "
            "are not"
        )
    if scale:
        x = np.clip(np.rint(x / scale) + zero, limits.min, limits.max)
    elif x.size and not (limits.min <= x.min() and x.max() <= limits.max):
        raise ValueError(
            f"input `{name}` must be in the range of {dtype}; received {x.min()} to "
            f"{x.max()}"
        )
    return x.astype(dtype)


def dequantize_output(y, details):
    """Returns a file's output as floats, or unchanged if it has no scale."""
    scale, zero = details["quantization"]
    return ((y.astype("float32") - zero) * scale).astype("float32") if scale else y
