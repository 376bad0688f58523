"""Short texts of results, on one line."""

import dataclasses

import numpy as np

MAX_ENTRIES = 6  # shown of a list or dict


class Summarized:
    """The base of dataclasses with `repr=False` that have a short text."""

    def __repr__(self):
        return summary_of(self)


def summary_of(result) -> str:
    """Returns the text of a dataclass or named tuple, with its arrays as shapes."""
    names = getattr(result, "_fields", None) or [
        field.name for field in dataclasses.fields(result)
    ]
    parts = ", ".join(f"{name}={_short(getattr(result, name))}" for name in names)
    return f"{type(result).__name__}({parts})"


def _short(value) -> str:
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, dict):
        pairs = [f"{_short(key)}: {_short(each)}" for key, each in value.items()]
        return f"{{{_joined(pairs)}}}"
    if isinstance(value, list):
        return f"[{_joined([*map(_short, value[: MAX_ENTRIES + 1])], len(value))}]"
    return repr(value)


def _joined(texts, count=None):
    count = len(texts) if count is None else count
    if count > MAX_ENTRIES:
        texts = [*texts[: MAX_ENTRIES - 1], f"... {count} in all"]
    return ", ".join(texts)


def _array(value):
    text = f"{value.dtype} array of shape {value.shape}"
    if value.size and value.dtype.kind in "biuf":
        text += f" from {_short(value.min().item())} to {_short(value.max().item())}"
    return f"<{text}>"
