"""Heat maps of attention weights: a matplotlib figure or an HTML page of many."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from keras_rnnkit.plots.figures import ACCENT, INK, MUTED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOLERANCE = 1e-3  # of weights that rounding makes greater than one
LETTER_WIDTH = 0.085  # of a label, in inches
SHADE = ",".join(str(int(ACCENT[i : i + 2], 16)) for i in (1, 3, 5))

PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>%s</title>
<style>
body{{margin:1em;background:#fff;color:{INK};font:15px/1.4 system-ui,sans-serif}}
section{{display:inline-block;vertical-align:top;box-sizing:border-box;\
max-width:100%%;margin:0 1.5em 1.5em 0}}
h1{{font-size:1.3em}}
h2{{font-size:1em;margin:.3em 0;overflow-wrap:anywhere}}
.scroll{{overflow-x:auto;margin-bottom:.5em}}
table{{border-collapse:collapse;font-size:.87em}}
th{{font-weight:400;padding:0 .35em;white-space:nowrap}}
tbody th{{position:sticky;left:0;background:#fff;text-align:right}}
.long thead th{{writing-mode:vertical-rl;transform:rotate(180deg);\
padding:.35em 0;text-align:left}}
td{{min-width:1.5em;height:1.5em;padding:0;border:1px solid #eef1f4;\
background:rgba({SHADE},var(--w,0))}}
.top{{box-shadow:inset 0 0 0 1.5px {INK}}}
</style>
</head>
<body>
%s
<p>Rows are target tokens, columns source tokens. The darker a cell, the greater its \
weight; the greatest of a row has a frame.</p>
%s
</body>
</html>
"""


def attention(
    source_tokens: Sequence, target_tokens: Sequence, weights, title: str = ""
) -> "Figure":
    """Draws a heat map of which source tokens each target token attends to.

    A dot marks the greatest weight of a row.

    Args:
        source_tokens: sequence of tokens, the columns; a string is a sequence of
            characters.
        target_tokens: sequence of tokens, the rows.
        weights: array `(target, source)`, or `(heads, target, source)` for one panel
            per head, from 0 to 1. Weights beyond the tokens belong to padding and are
            ignored.
        title: str, above the map; default none.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no token, or `weights` has another rank, is smaller than
            the tokens, or holds a value that is not finite or not in 0 to 1.

    Example:

    ```python
    import numpy as np
    import keras_rnnkit as rk

    weights = np.eye(3)[::-1]
    rk.plots.attention("abc", "cba", weights).savefig("attention.png")
    ```
    """
    source, target = _labels(source_tokens), _labels(target_tokens)
    heads = _cropped_weights(weights, source, target)
    for name, tokens in {"source_tokens": source, "target_tokens": target}.items():
        if not tokens:
            raise ValueError(f"`{name}` must hold a token; received none")
    side = max(len(source), len(target)) * len(heads) ** 0.5
    cell = np.clip(10 / side, 0.2, 0.34)
    above = LETTER_WIDTH * max(map(len, source)) if _must_rotate(source) else 0.2
    width = cell * len(source) + LETTER_WIDTH * max(map(len, target)) + 0.6
    height = cell * len(target) + above + 0.7
    columns = round((len(heads) * height / width) ** 0.5)  # makes about a square
    columns = min(max(columns, 1), len(heads))
    rows = -(-len(heads) // columns)
    size = max(columns * width + 0.7, 3), max(rows * height + 0.3, 2)
    figure = new_figure(figsize=size)
    figure.suptitle(title, color=INK)
    for number, head in enumerate(heads, 1):
        panel = figure.add_subplot(rows, columns, number)
        image = _draw(panel, source, target, head)
        if np.ndim(weights) == 3:
            panel.set_title(f"head {number}", color=INK)
    bar = figure.colorbar(
        image, ax=figure.axes, ticks=[0, 0.5, 1], shrink=0.6, aspect=25, label="weight"
    )
    bar.outline.set_visible(False)
    return figure


def attention_html(examples: Iterable[tuple], title: str = "") -> str:
    """Returns a self-contained HTML page of heat maps.

    Hovering over a cell shows its weight; a frame marks the greatest weight of a row.

    Args:
        examples: iterable of `(source_tokens, target_tokens, weights)`, as for
            `attention`; each head is a table.
        title: str, the heading of the page; default none.

    Returns:
        str, the HTML.

    Raises:
        ValueError: the `weights` of an example have another rank, are smaller than its
            tokens, or hold a value that is not finite or not in 0 to 1.

    Example:

    ```python
    from pathlib import Path
    import numpy as np
    import keras_rnnkit as rk

    examples = [("abc", "cba", np.eye(3)[::-1]), ("ab", "ba", np.eye(2)[::-1])]
    page = rk.plots.attention_html(examples, title="Reversed words")
    Path("attention.html").write_text(page, "utf-8")
    ```
    """
    sections = []
    for number, (source_tokens, target_tokens, weights) in enumerate(examples):
        source, target = _labels(source_tokens), _labels(target_tokens)
        heads = _cropped_weights(weights, source, target, f" of example {number}")
        heading = f"{_joined_tokens(source_tokens)} → {_joined_tokens(target_tokens)}"
        tables = "\n".join(_table(source, target, head) for head in heads)
        sections.append(f"<section>\n<h2>{heading}</h2>\n{tables}\n</section>")
    heading = f"<h1>{escape(title)}</h1>" if title else ""
    return PAGE % (escape(title or "Attention"), heading, "\n".join(sections))


def _labels(tokens):
    """The text of each token, with a visible symbol for blank ones."""
    texts = [str(token) for token in tokens]
    return [text if text.strip() else "␣" for text in texts]


def _must_rotate(labels):
    """Whether column labels are too long to stand side by side."""
    return max(map(len, labels), default=0) > 2


def _cropped_weights(weights, source, target, where=""):
    """The weights of the tokens without padding, `(heads, target, source)`."""
    weights = np.asarray(weights, float)
    if weights.ndim not in (2, 3) or 0 in weights.shape[:-2]:
        raise ValueError(
            f"`weights`{where} must be `(target, source)` or `(heads, target, source)`;"
            f" received shape {weights.shape}"
        )
    if weights.shape[-2] < len(target) or weights.shape[-1] < len(source):
        raise ValueError(
            f"`weights`{where} must cover {len(target)} target and {len(source)} "
            f"source tokens; received shape {weights.shape}"
        )
    weights = weights[..., : len(target), : len(source)]
    bad = weights[~((weights >= 0) & (weights <= 1 + TOLERANCE))]
    if bad.size:
        raise ValueError(
            f"`weights`{where} must be finite and lie in [0, 1]; received {bad[0]}"
        )
    return weights if weights.ndim == 3 else weights[None]


def _draw(panel, source, target, weights):
    image = panel.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    rows = np.flatnonzero(weights.any(axis=1))
    colors = ["white" if w > 0.5 else INK for w in weights[rows].max(axis=1)]
    panel.scatter(weights[rows].argmax(axis=1), rows, s=5, c=colors, linewidths=0)
    rotation = {"rotation": 90} if _must_rotate(source) else {}
    panel.set_xticks(range(len(source)), source, parse_math=False, **rotation)
    panel.set_yticks(range(len(target)), target, parse_math=False)
    panel.tick_params(labelsize=9, length=0, labelcolor=INK)
    panel.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
    panel.set_xticks(np.arange(len(source) + 1) - 0.5, minor=True)
    panel.set_yticks(np.arange(len(target) + 1) - 0.5, minor=True)
    panel.tick_params(which="minor", length=0)
    panel.grid(which="minor", color="#e4e7eb", linewidth=0.5)
    panel.xaxis.set_label_position("top")
    panel.set_xlabel("source", color=MUTED)
    panel.set_ylabel("target", color=MUTED)
    panel.spines[:].set_visible(False)
    return image


def _joined_tokens(tokens):
    """HTML of the tokens as text: characters without spaces, words with spaces."""
    texts = [str(token) for token in tokens]
    separator = "" if all(len(text) == 1 for text in texts) else " "
    return f"<bdi>{escape(separator.join(texts))}</bdi>"


def _table(source, target, weights):
    head = "".join(f"<th>{escape(label)}</th>" for label in source)
    kind = ' class="long"' if _must_rotate(source) else ""
    lines = [f'<div class="scroll"><table{kind}>', f"<thead><tr><th></th>{head}</tr>"]
    lines.append("</thead><tbody>")
    for label, row in zip(target, weights, strict=True):
        top = row.argmax() if row.any() else None
        cells = (_cell(f"{w:.2f}", i == top) for i, w in enumerate(row))
        lines.append(f"<tr><th>{escape(label)}</th>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _cell(weight, is_top):
    shade = f' style="--w:{weight}"' if weight != "0.00" else ""
    mark = ' class="top"' if is_top else ""
    return f'<td{mark}{shade} title="{weight}"></td>'
