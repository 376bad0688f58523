"""Runs a TFLite file from Python, as a phone does."""

import os

import numpy as np

from keras_rnnkit.export.saved_model import (
    FORECAST,
    GENERATE,
    RESET,
    SIGNATURE,
    STEP,
)
from keras_rnnkit.export.tflite_file import TFLiteFile, as_numbers


class TFLiteModel(TFLiteFile):
    """A TFLite file in the LiteRT interpreter, called with NumPy arrays.

    The object is thread-safe, though calls wait for each other. It can be pickled, and
    used after a fork.

    Args:
        source: str or path-like, the file; or bytes, its content.

    Attributes:
        input_names: list of str, names of the inputs.
        batch_size: int, number of rows in a call, or None for any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a TFLite file, or it is a streaming file.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_rnnkit as rk

    model = keras.Sequential([keras.Input((8, 3), name="x"), rk.GRU(4)])
    rk.export_tflite(model, "model.tflite")
    lite = rk.TFLiteModel("model.tflite")
    print(lite.predict(np.zeros((5, 8, 3)))["output_0"].shape)  # (5, 4)
    ```
    """

    def __init__(self, source: bytes | str | os.PathLike[str]) -> None:
        names = SIGNATURE, FORECAST, GENERATE
        super().__init__(source, names, ": `rk.StreamingModel` runs it")
        rows = [int(d["shape_signature"][0]) for d in self._inputs.values()]
        self.batch_size = None if rows[0] == -1 else rows[0]

    def __call__(self, x=None, /, **inputs) -> dict[str, np.ndarray]:
        """Runs one batch.

        Args:
            x: array, the only input; or a list of arrays in the order of `input_names`,
                or a dict of them by name. Default: None, for `inputs`.
            inputs: arrays, the inputs by name.

        Returns:
            dict of output arrays by name.

        Raises:
            ValueError: names, shapes or values do not fit the file.
        """
        return self.run(self._signature, **self.inputs_by_name(x, inputs))

    def predict(self, x=None, /, **inputs) -> dict[str, np.ndarray]:
        """Runs any number of rows, `batch_size` at a time.

        The last batch is padded with copies of its last row, whose outputs are dropped.

        Args:
            x: as in `__call__`.
            inputs: as in `__call__`.

        Returns:
            dict of output arrays by name.

        Raises:
            ValueError: names, shapes or values do not fit the file, or the inputs have
                different numbers of rows.
        """
        given = self.inputs_by_name(x, inputs)
        arrays = {name: as_numbers(name, x) for name, x in given.items()}
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
            arrays = {name: pad_rows(x, missing) for name, x in arrays.items()}
        calls = [
            self(**{name: x[i : i + step] for name, x in arrays.items()})
            for i in range(0, rows + missing, step)
        ]
        outputs = {n: np.concatenate([c[n] for c in calls]) for n in calls[0]}
        return {name: y[: len(y) - missing] for name, y in outputs.items()}


class StreamingModel(TFLiteFile):
    """A TFLite file written with `streaming=True`, run some steps at a time.

    Each object is one stream. It is thread-safe: steps are atomic, and run in the order
    of the calls. A pickled copy, or the object in a forked process, is a separate
    stream that continues from the same states.

    Args:
        source: str or path-like, the file; or bytes, its content.

    Attributes:
        states: dict of arrays by name, the states after the last step. None until
            `reset` is called, if that needs inputs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a TFLite file, or not a streaming file.

    Example:

    ```python
    import keras
    import numpy as np
    import keras_rnnkit as rk

    gru = rk.GRU(4, return_sequences=True)
    model = keras.Sequential([keras.Input((None, 3), name="x"), gru])
    rk.export_tflite(model, "live.tflite", streaming=True)
    live = rk.StreamingModel("live.tflite")
    print(live.step(np.zeros((1, 1, 3))).shape)  # (1, 1, 4)
    ```
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
        """Names of the inputs of a step, without the states, a list of str."""
        return [name for name in self._inputs if name not in self._state_names]

    def __reduce__(self):
        with self._lock:
            return *super().__reduce__(), {"states": self.states}

    @property
    def reset_names(self) -> list[str]:
        """Names of the inputs of `reset`, a list of str; empty for most models."""
        return list(self._details[RESET][0]) if RESET in self._details else []

    def reset(self, **inputs) -> None:
        """Starts a new sequence.

        Args:
            inputs: arrays by name that the initial states depend on; see `reset_names`.

        Raises:
            ValueError: names, shapes or values do not fit the file.
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
        """Runs the next steps.

        Args:
            x: array, `(batch, steps, ...)`, the only input; or a list of arrays in the
                order of `input_names`, or a dict of them by name. Default: None, for
                `inputs`.
            inputs: arrays, the inputs by name.

        Returns:
            The output array for these steps; a dict of arrays by name if there are
            several.

        Raises:
            ValueError: names, shapes or values do not fit the file, or `reset` must be
                called first.
        """
        outputs = self.run_step(**self.inputs_by_name(x, inputs))
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run_step(self, **inputs) -> dict[str, np.ndarray]:
        """Runs the next steps, as `step` does, with inputs and outputs by name.

        Args:
            inputs: arrays, the inputs by name.

        Returns:
            dict of output arrays by name.

        Raises:
            ValueError: as in `step`.
        """
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


def pad_rows(x, missing):
    """Appends rows to an array: copies of the last one, or zeros if there is none."""
    if not len(x):
        return np.zeros((missing, *x.shape[1:]), x.dtype)
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)])
