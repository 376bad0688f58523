"""The proof that a file gives the answers of its model."""

import numpy as np

TIMED = 30
TINY = 1e-30  # keeps an output of zeros from a division by zero


def prove(served, content, calls, tolerance, quantize) -> dict:
    """Runs a file against its model, call by call, on one interpreter.

    Args:
        served: `Whole` or `Streamed`.
        content: the file, bytes.
        calls: list of dicts, the inputs by name.
        tolerance: float, for `max_relative`, or for `rms_relative` of quantized values.
        quantize: as in `export_tflite`.

    Returns:
        `calls`, `max_absolute`, `max_relative`, `rms_relative` and `latency` of the
        report.

    Raises:
        ValueError: a larger difference.
    """
    file, results = served.received(content, calls)
    outputs = {}
    for received, expected in zip(results, served.expected(calls), strict=True):
        for name, y in expected.items():
            if received[name].shape != y.shape:
                raise ValueError(
                    f"the file must return `{name}` of shape {y.shape}, as "
                    f"`{served.model.name}` does; received {received[name].shape}: "
                    f"nothing was written{served.hint}"
                )
            difference = np.ravel(received[name].astype("float64") - y)
            outputs.setdefault(name, []).append((difference, np.ravel(y)))
    figures = [
        measure(*map(np.concatenate, zip(*each, strict=True)))
        for each in outputs.values()
    ]
    absolute, relative, rms = map(float, np.max(figures, axis=0))  # not a number stays
    found, kind = (rms, "mean") if quantize else (relative, "largest")
    if not found <= tolerance:
        raise ValueError(
            f"the file must agree with `{served.model.name}` to {tolerance:.0e} of the "
            f"outputs; received a {kind} difference of {found:.1e}: nothing was "
            f"written{served.hint}"
        )
    return {
        "calls": len(calls),
        "max_absolute": absolute,
        "max_relative": relative,
        "rms_relative": rms,
        "latency": served.seconds(file, calls[-1], TIMED),
    }


def measure(difference, y):
    """The largest difference, over the largest output too, and of root mean squares."""
    if not y.size:
        return 0.0, 0.0, 0.0
    largest = abs(difference).max()
    rms = np.sqrt(np.mean(difference**2) / max(np.mean(np.square(y)), TINY))
    return largest, largest / max(abs(y).max(), TINY), rms
