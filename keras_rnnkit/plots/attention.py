"""Pictures of what an attention looked at: a figure of one, a page of many."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from keras_rnnkit.plots.figures import ACCENT, INK, MUTED, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOVE_ONE = 1e-3  # by how much rounding may lift a weight
LETTER = 0.085  # inches of a label
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
    """Draws which source tokens each target token attends to, as a heat map.

    A dot marks the greatest weight of a row.

    Args:
        source_tokens: the columns; a string is its characters.
        target_tokens: the rows.
        weights: array `(target, source)`, or `(heads, target, source)` for a panel a
            head, from 0 to 1. What reaches beyond the tokens is padding and left out.
        title: str, above the map.

    Returns:
        `matplotlib.figure.Figure`.

    Raises:
        ValueError: no token; `weights` of another rank, fewer than there are tokens,
            not finite or outside 0 to 1.
    """
    source, target = _labels(source_tokens), _labels(target_tokens)
    heads = _cut(weights, source, target)
    for name, tokens in {"source_tokens": source, "target_tokens": target}.items():
        if not tokens:
            raise ValueError(f"`{name}` must hold a token; received none")
    side = max(len(source), len(target)) * len(heads) ** 0.5
    cell = np.clip(10 / side, 0.2, 0.34)
    above = LETTER * max(map(len, source)) if _is_long(source) else 0.2
    width = cell * len(source) + LETTER * max(map(len, target)) + 0.6
    height = cell * len(target) + above + 0.7
    wide = round((len(heads) * height / width) ** 0.5)  # about a square in all
    columns = min(max(wide, 1), len(heads))
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
    """Writes a page of many heat maps: one HTML file that needs nothing else.

    A cell says its weight when pointed at; a frame marks the greatest of a row.

    Args:
        examples: tuples `(source_tokens, target_tokens, weights)` as for `attention`;
            several heads are several tables.
        title: str, above the page.

    Returns:
        The page, the same for the same examples.

    Raises:
        ValueError: the `weights` of an example are of another rank, fewer than its
            tokens, not finite or outside 0 to 1.
    """
    sections = []
    for number, (source_tokens, target_tokens, weights) in enumerate(examples):
        source, target = _labels(source_tokens), _labels(target_tokens)
        heads = _cut(weights, source, target, f" of example {number}")
        heading = f"{_line(source_tokens)} → {_line(target_tokens)}"
        tables = "\n".join(_table(source, target, head) for head in heads)
        sections.append(f"<section>\n<h2>{heading}</h2>\n{tables}\n</section>")
    heading = f"<h1>{escape(title)}</h1>" if title else ""
    return PAGE % (escape(title or "Attention"), heading, "\n".join(sections))


def _labels(tokens):
    """A string for each token, one that is seen for each that is blank."""
    texts = [str(token) for token in tokens]
    return [text if text.strip() else "␣" for text in texts]


def _is_long(labels):
    """Whether labels of columns must be turned to have room."""
    return max(map(len, labels), default=0) > 2


def _cut(weights, source, target, where=""):
    """Returns the weights between tokens, `(heads, target, source)`."""
    weights = np.asarray(weights, float)
    if weights.ndim not in (2, 3) or 0 in weights.shape[:-2]:
        raise ValueError(
            f"`weights`{where} must be `(target, source)` or `(heads, target, source)`;"
            f" received shape {weights.shape}"
        )
    if weights.shape[-2] < len(target) or weights.shape[-1] < len(source):
        raise ValueError(
            f"`weights`{where} must reach over {len(target)} target and {len(source)} "
            f"source tokens; received shape {weights.shape}"
        )
    cut = weights[..., : len(target), : len(source)]
    bad = cut[~((cut >= 0) & (cut <= 1 + ABOVE_ONE))]
    if bad.size:
        raise ValueError(
            f"`weights`{where} must be finite and lie in [0, 1]; received {bad[0]}"
        )
    return cut if cut.ndim == 3 else cut[None]


def _draw(panel, source, target, weights):
    image = panel.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    rows = np.flatnonzero(weights.any(axis=1))
    colors = ["white" if w > 0.5 else INK for w in weights[rows].max(axis=1)]
    panel.scatter(weights[rows].argmax(axis=1), rows, s=5, c=colors, linewidths=0)
    turned = {"rotation": 90} if _is_long(source) else {}
    panel.set_xticks(range(len(source)), source, parse_math=False, **turned)
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


def _line(tokens):
    """The tokens as they are read: characters together, words apart."""
    texts = [str(token) for token in tokens]
    between = "" if all(len(text) == 1 for text in texts) else " "
    return f"<bdi>{escape(between.join(texts))}</bdi>"


def _table(source, target, weights):
    head = "".join(f"<th>{escape(label)}</th>" for label in source)
    kind = ' class="long"' if _is_long(source) else ""
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
