"""Running a TFLite file from Python, as a phone would."""

import os
import threading
import timeit
import weakref
from pathlib import Path
from statistics import median

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_rnnkit.export.saved_model import (
    FORECAST,
    GENERATE,
    RESET,
    SIGNATURE,
    STEP,
)

NO_NUMBERS = "OSUMmc"  # kinds of NumPy's types: objects, text, dates, complex numbers


class File:
    """A TFLite file in the LiteRT interpreter, with its signatures.

    Values of quantized files are taken and returned as float.

    One object serves several threads: an interpreter takes one call at a time, so calls
    wait for each other. For calls side by side make one object for each thread. It can
    be pickled, and used after a fork: each process has an interpreter of its own.
    """

    def __init__(self, source, names, instead):
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
                f"{sorted(signatures)}{instead if STEP in signatures else ''}"
            )
        self._take(self._interpreter)
        self._details = {
            name: (runner.get_input_details(), runner.get_output_details())
            for name, runner in self._runners.items()
        }
        self._signature = signature
        self._inputs = self._details[signature][0]
        FILES.add(self)

    def _take(self, interpreter):
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
        """The names of the inputs."""
        return list(self._inputs)

    @property
    def output_steps(self) -> dict[str, float]:
        """The scales of its outputs by name, 0 for values that stand for themselves."""
        _, returned = self._details[self._signature]
        return {name: float(each["quantization"][0]) for name, each in returned.items()}

    def run(self, signature, **inputs) -> dict[str, np.ndarray]:
        """Runs a signature; inputs and outputs by name, cast to the file's types."""
        taken, returned = self._details[signature]
        if set(inputs) != set(taken):
            raise ValueError(
                f"the inputs must be {sorted(taken)}; received {sorted(inputs)}"
            )
        given = {name: quantized(name, x, taken[name]) for name, x in inputs.items()}
        for name, x in given.items():
            shape = tuple(int(n) for n in taken[name]["shape_signature"])
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
                self._take(Interpreter(model_content=self._content))
            outputs = self._runners[signature](**given)
        return {name: dequantized(y, returned[name]) for name, y in outputs.items()}

    def named(self, x, inputs: dict) -> dict:
        """The inputs by name.

        Args:
            x: the only input; or a list in the order of `input_names`, or a dict by
                name; or None for `inputs`.
            inputs: dict, what was given by name.
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
        """Whether a list of one holds the only input, rather than one row of it."""
        (details,) = (self._inputs[name] for name in self.input_names)
        return np.ndim(x[0]) == len(details["shape_signature"])

    def seconds(self, signature, calls: int, **inputs) -> float:
        """The median time of a call of the file's first signature, without Python's
        part in it."""
        interpreter = Interpreter(model_content=self._content)
        details = self._details[signature][0]
        for name, x in inputs.items():
            interpreter.resize_tensor_input(details[name]["index"], x.shape)
        interpreter.allocate_tensors()
        for name, x in inputs.items():
            given = quantized(name, x, details[name])
            interpreter.set_tensor(details[name]["index"], given)
        interpreter.invoke()
        return median(timeit.repeat(interpreter.invoke, number=1, repeat=calls))


FILES = weakref.WeakSet()


def after_fork():
    """Another thread may have been in the midst of a call, and is not there now."""
    for file in list(FILES):
        file._lock = threading.RLock()
        file._interpreter = file._runners = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)


class TFLiteModel(File):
    """A TFLite file in the LiteRT interpreter, called with NumPy arrays.

    One object serves several threads, whose calls wait for each other, and several
    processes: it can be pickled, and used after a fork.

    Args:
        source: the file's path, or its content as bytes.

    Attributes:
        input_names: list of str.
        batch_size: int, the rows that a call takes, or None for any number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TFLite file, or one that streams.
    """

    def __init__(self, source: bytes | str | os.PathLike[str]) -> None:
        names = SIGNATURE, FORECAST, GENERATE
        super().__init__(source, names, ": `rk.StreamingModel` runs it")
        rows = [int(d["shape_signature"][0]) for d in self._inputs.values()]
        self.batch_size = None if rows[0] == -1 else rows[0]

    def __call__(self, x=None, /, **inputs) -> dict[str, np.ndarray]:
        """Runs one batch.

        Args:
            x: the only input, or a list of the inputs in the order of `input_names`; or
            inputs: these by name.

        Returns:
            The outputs by name.

        Raises:
            ValueError: wrong names, shapes or values, with those of the file.
        """
        return self.run(self._signature, **self.named(x, inputs))

    def predict(self, x=None, /, **inputs) -> dict[str, np.ndarray]:
        """Runs any number of rows, `batch_size` at a time; arguments as of a call.

        The last batch is filled up with copies of its last row, whose outputs are left
        out.
        """
        arrays = {n: as_numbers(n, x) for n, x in self.named(x, inputs).items()}
        counts = {name: len(x) if x.ndim else None for name, x in arrays.items()}
        if len(set(counts.values())) != 1 or None in counts.values():
            raise ValueError(
                f"the inputs, {self.input_names}, must have the same number of rows; "
                f"received {counts}"
            )
        (rows,) = set(counts.values())
        step = self.batch_size or max(rows, 1)
        missing = -rows % step if rows else step
        if missing:
            arrays = {name: filled(x, missing) for name, x in arrays.items()}
        calls = [
            self(**{name: x[i : i + step] for name, x in arrays.items()})
            for i in range(0, rows + missing, step)
        ]
        outputs = {n: np.concatenate([c[n] for c in calls]) for n in calls[0]}
        return {name: y[: len(y) - missing] for name, y in outputs.items()}


class StreamingModel(File):
    """A TFLite file written with `streaming=True`, run some steps at a time.

    One object is one stream. Threads may share it: each step is taken whole, in the
    order of the calls. Pickled, or in another process after a fork, it is a stream of
    its own that goes on from the same states.

    Args:
        source: the file's path, or its content as bytes.

    Attributes:
        states: dict of arrays by name, what the steps so far have left; None until
            `reset` gets the inputs that it takes, if it takes any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TFLite file, or one that does not stream.
    """

    def __init__(self, source: bytes | str | os.PathLike[str]) -> None:
        super().__init__(source, (STEP,), "")
        signature = RESET if RESET in self._runners else STEP
        outputs = self._runners[signature].get_output_details()
        self._state_names = [name for name in self._inputs if name in outputs]
        self.states: dict[str, np.ndarray] | None = None
        if not self.reset_names:
            self.reset()

    @property
    def input_names(self) -> list[str]:
        """The inputs of a step, without the states."""
        return [name for name in self._inputs if name not in self._state_names]

    def __reduce__(self):
        with self._lock:
            return *super().__reduce__(), {"states": self.states}

    @property
    def reset_names(self) -> list[str]:
        """The inputs that the first states are computed from."""
        return list(self._details[RESET][0]) if RESET in self._details else []

    def reset(self, **inputs) -> None:
        """Begins a new sequence.

        Args:
            inputs: what the first states are computed from, if the model does that.
        """
        with self._lock:
            if RESET in self._details:
                self.states = self.run(RESET, **inputs)
                return
            self.states = {  # of a file quantized to integers
                name: np.zeros(self._inputs[name]["shape"], "float32")
                for name in self._state_names
            }

    def step(self, x=None, /, **inputs) -> np.ndarray | dict[str, np.ndarray]:
        """Takes the next steps.

        Args:
            x: `(batch, steps, ...)`, the only input, or a list of the inputs in the
                order of `input_names`; or
            inputs: these by name.

        Returns:
            The output for these steps; a dict of them by name if there are several.
        """
        outputs = self.run_step(**self.named(x, inputs))
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run_step(self, **inputs) -> dict[str, np.ndarray]:
        """Takes the next steps; the outputs always by name."""
        if set(inputs) != set(self.input_names):
            raise ValueError(
                f"the inputs must be {self.input_names}; received {sorted(inputs)}"
            )
        with self._lock:
            if self.states is None:
                raise ValueError(
                    f"`reset` must be given {self.reset_names} before the first step"
                )
            outputs = self.run(STEP, **inputs, **self.states)
            self.states = {name: outputs.pop(name) for name in self.states}
        return outputs


def as_numbers(name, x) -> np.ndarray:
    """An array; raises `ValueError` for what is none, or holds no numbers."""
    try:
        x = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise ValueError(f"input `{name}` must be an array; {error}") from error
    if x.dtype.kind in NO_NUMBERS:
        raise ValueError(f"input `{name}` must hold numbers; received {x.dtype}")
    return x


def filled(x, missing):
    """An array with so many more rows, copies of the last one, or zeros."""
    if not len(x):
        return np.zeros((missing, *x.shape[1:]), x.dtype)
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])


def quantized(name, x, details):
    """An array in the type of a file's input."""
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


def dequantized(y, details):
    """A file's output as float, or as it is."""
    scale, zero = details["quantization"]
    return ((y.astype("float32") - zero) * scale).astype("float32") if scale else y
