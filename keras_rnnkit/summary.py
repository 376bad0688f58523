"""Results that are printed in a line, whatever they hold."""

import dataclasses

import numpy as np

FEW = 6  # entries that are shown


class Summarized:
    """A dataclass, made with `repr=False`, whose text is short."""

    def __repr__(self):
        return summary_of(self)


def summary_of(result) -> str:
    """The text of a dataclass or a named tuple, with the shapes of its arrays."""
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
        return f"{{{_few(pairs)}}}"
    if isinstance(value, list):
        return f"[{_few([*map(_short, value[: FEW + 1])], len(value))}]"
    return repr(value)


def _few(texts, count=None):
    count = len(texts) if count is None else count
    if count > FEW:
        texts = [*texts[: FEW - 1], f"... {count} in all"]
    return ", ".join(texts)


def _array(value):
    text = f"{value.dtype} array of shape {value.shape}"
    if value.size and value.dtype.kind in "biuf":
        text += f" from {_short(value.min().item())} to {_short(value.max().item())}"
    return f"<{text}>"
