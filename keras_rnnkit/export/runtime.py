"""Running a TFLite file from Python, as a phone would."""

import timeit
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


class File:
    """A TFLite file in the LiteRT interpreter, with its signatures.

    Values of quantized files are taken and returned as float.
    """

    def __init__(self, source, names, instead):
        if not isinstance(source, bytes):
            source = Path(source).read_bytes()
        self._content = source
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
        self._interpreter.allocate_tensors()
        self._runners = {
            name: self._interpreter.get_signature_runner(name) for name in signatures
        }
        self._signature = signature
        self._inputs = self._runners[signature].get_input_details()

    def run(self, signature, **inputs) -> dict[str, np.ndarray]:
        """Runs a signature; inputs and outputs by name, cast to the file's types."""
        runner = self._runners[signature]
        details = runner.get_input_details()
        if set(inputs) != set(details):
            raise ValueError(
                f"the inputs must be {sorted(details)}; received {sorted(inputs)}"
            )
        given = {name: quantized(x, details[name]) for name, x in inputs.items()}
        for name, x in given.items():
            shape = tuple(int(n) for n in details[name]["shape_signature"])
            fits = len(shape) == x.ndim and all(
                n in (-1, m) for n, m in zip(shape, x.shape, strict=True)
            )
            if not fits:
                raise ValueError(
                    f"input `{name}` must have shape {shape}, where -1 is any size; "
                    f"received {x.shape}"
                )
        details = runner.get_output_details()
        return {n: dequantized(y, details[n]) for n, y in runner(**given).items()}

    def seconds(self, signature, calls: int, **inputs) -> float:
        """The median time of a call of the file's first signature, without Python's
        part in it."""
        interpreter = Interpreter(model_content=self._content)
        details = self._runners[signature].get_input_details()
        for name, x in inputs.items():
            interpreter.resize_tensor_input(details[name]["index"], x.shape)
        interpreter.allocate_tensors()
        for name, x in inputs.items():
            interpreter.set_tensor(details[name]["index"], quantized(x, details[name]))
        interpreter.invoke()
        return median(timeit.repeat(interpreter.invoke, number=1, repeat=calls))


class TFLiteModel(File):
    """A TFLite file in the LiteRT interpreter, called with NumPy arrays.

    Args:
        source: the file's path, or its content as bytes.

    Attributes:
        input_names: list of str.
        batch_size: int, the rows that a call takes, or None for any number.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TFLite file, or one that streams.
    """

    def __init__(self, source):
        names = SIGNATURE, FORECAST, GENERATE
        super().__init__(source, names, ": `rk.StreamingModel` runs it")
        self.input_names = list(self._inputs)
        rows = [int(d["shape_signature"][0]) for d in self._inputs.values()]
        self.batch_size = None if rows[0] == -1 else rows[0]

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs one batch; inputs and outputs by name."""
        return self.run(self._signature, **inputs)

    def predict(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs any number of rows, `batch_size` at a time."""
        rows = len(next(iter(inputs.values())))
        step = self.batch_size or max(rows, 1)
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


class StreamingModel(File):
    """A TFLite file written with `streaming=True`, run some steps at a time.

    Args:
        source: the file's path, or its content as bytes.

    Attributes:
        states: dict of arrays by name, what the steps so far have left; None until
            `reset` gets the inputs that it takes, if it takes any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TFLite file, or one that does not stream.
    """

    def __init__(self, source):
        super().__init__(source, (STEP,), "")
        signature = RESET if RESET in self._runners else STEP
        outputs = self._runners[signature].get_output_details()
        self._state_names = [name for name in self._inputs if name in outputs]
        self.states = None
        if not self.reset_names:
            self.reset()

    @property
    def input_names(self) -> list[str]:
        """The inputs of a step, without the states."""
        return [name for name in self._inputs if name not in self._state_names]

    @property
    def reset_names(self) -> list[str]:
        """The inputs that the first states are computed from."""
        if RESET not in self._runners:
            return []
        return list(self._runners[RESET].get_input_details())

    def reset(self, **inputs):
        """Begins a new sequence.

        Args:
            inputs: what the first states are computed from, if the model does that.
        """
        if RESET in self._runners:
            self.states = self.run(RESET, **inputs)
            return
        self.states = {  # of a file quantized to integers
            name: np.zeros(self._inputs[name]["shape"], "float32")
            for name in self._state_names
        }

    def step(self, x=None, **inputs) -> np.ndarray | dict[str, np.ndarray]:
        """Takes the next steps.

        Args:
            x: `(batch, steps, ...)`, the only input; or
            inputs: these by name.

        Returns:
            The output for these steps; a dict of them by name if there are several.
        """
        if x is not None:
            if len(self.input_names) != 1 or inputs:
                raise ValueError(
                    f"inputs must be given by name, {self.input_names}; received one "
                    f"without a name and {sorted(inputs)}"
                )
            inputs = {self.input_names[0]: x}
        outputs = self.run_step(**inputs)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run_step(self, **inputs) -> dict[str, np.ndarray]:
        """Takes the next steps; the outputs always by name."""
        if self.states is None:
            raise ValueError(
                f"`reset` must be given {self.reset_names} before the first step"
            )
        outputs = self.run(STEP, **inputs, **self.states)
        self.states = {name: outputs.pop(name) for name in self.states}
        return outputs


def quantized(x, details):
    """An array in the type of a file's input."""
    dtype, (scale, zero) = details["dtype"], details["quantization"]
    if not scale:
        return np.asarray(x, dtype)
    limits = np.iinfo(dtype)
    steps = np.rint(np.asarray(x) / scale) + zero
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def dequantized(y, details):
    """A file's output as float, or as it is."""
    scale, zero = details["quantization"]
    return ((y.astype("float32") - zero) * scale).astype("float32") if scale else y
