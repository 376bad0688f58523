"""The results of `speed.py` as Markdown, JSON and a picture."""

import io
import json
from pathlib import Path

from cases import Case, shape_label
from checkpoint import write
from peers import KERAS, OURS, TORCH, XLA
from timing import geometric_mean

from keras_rnnkit.plots import ACCENT, INK, MUTED, new_figure

NONE = "–"
LIBRARIES = {"tensorflow": "TensorFlow", "keras": "Keras", "torch": "PyTorch"}
RATIOS = {
    "Keras": lambda ms: ms[KERAS] / ms[OURS],
    "Keras or XLA": lambda ms: min(ms[KERAS], ms[XLA]) / ms[OURS],
    "PyTorch": lambda ms: ms[TORCH] / ms[OURS] if TORCH in ms else None,
}


def write_speed(folder: Path, name: str, entries: list[dict], metadata: dict):
    """Writes `name`.md, .json and .png."""
    write(
        folder / f"{name}.json", json.dumps(metadata | {"entries": entries}, indent=1)
    )
    write(folder / f"{name}.png", picture(entries))
    write(folder / f"{name}.md", markdown(name, entries, metadata))


def markdown(name: str, entries: list[dict], metadata: dict) -> str:
    """Returns the summary, the picture and a row for each case."""
    least = min(entries, key=lambda entry: RATIOS["Keras"](entry["ms"]))
    first = [
        entry["first_ms"][OURS] / entry["first_ms"][KERAS]
        for entry in entries
        if entry["job"] == "train"
    ]
    return "\n".join(
        [
            "# Speed",
            "",
            f"{version_line(metadata['versions'])}. {metadata['cores']} cores, "
            "float32.",
            "",
            "The time of each over that of `keras_rnnkit`: above 1, `keras_rnnkit` is "
            "the faster. Keras is run as `fit` and `predict` run it on a CPU; Keras or "
            "XLA is the faster of that and of `jit_compile=True`.",
            "",
            table(["geometric mean over", *RATIOS], summary(entries)),
            "",
            f"- Least ratio of Keras: {number(RATIOS['Keras'](least['ms']))} "
            f"({case_of(least)}).",
            "- First call of the training function, trace and compilation, "
            f"`keras_rnnkit` over Keras: {number(geometric_mean(first))} "
            f"({number(min(first))} to {number(max(first))}).",
            "",
            f"![Speed]({name}.png)",
            "",
            "Share: the rate of the matrix products of a case over that of a product "
            "of 1024 × 1024 matrices.",
            "",
            table(
                [
                    *("cell", "batch × time × features → units", "job", "mask"),
                    *RATIOS,
                    *("first call", "share", "share of Keras"),
                ],
                [row(entry, metadata) for entry in entries],
            ),
            "",
        ]
    )


def summary(entries: list[dict]) -> list[list[str]]:
    """Returns the rows of geometric means."""
    groups = {
        "all": entries,
        "train": [e for e in entries if e["job"] == "train"],
        "predict": [e for e in entries if e["job"] == "predict"],
        "without mask": [e for e in entries if not e["masked"]],
        "with mask": [e for e in entries if e["masked"]],
    }
    for cell in dict.fromkeys(entry["cell"] for entry in entries):
        groups[cell] = [e for e in entries if e["cell"] == cell]
    groups["batch of 1"] = [e for e in entries if e["batch"] == 1]
    groups["1000 steps"] = [e for e in entries if e["time"] == 1000]
    rows = []
    for name, group in groups.items():
        ratios = [[ratio(e["ms"]) for e in group] for ratio in RATIOS.values()]
        means = [geometric_mean(r for r in each if r) for each in ratios]
        rows.append([name, *map(number, means)])
    return [row for row in rows if set(row[1:]) != {NONE}]


def row(entry: dict, metadata: dict) -> list[str]:
    """Returns the table row of a case."""
    ms, case, first = entry["ms"], case_of(entry), entry["first_ms"]
    rate = max(metadata["product_gflops"].values())
    shares = [entry["flops"] / 1e6 / ms[name] / rate for name in (OURS, KERAS)]
    return [
        *(case.cell, case.shape, case.job, "yes" if case.masked else "no"),
        *(number(ratio(ms)) for ratio in RATIOS.values()),
        number(first[OURS] / first[KERAS]) if case.job == "train" else NONE,
        *(f"{share:.1%}" for share in shares),
    ]


def picture(entries: list[dict]) -> bytes:
    """Draws a bar for each case, the time of Keras over ours; returns a PNG."""
    heights, labels = {}, {}
    for entry in entries:
        cell, shape = row_key(entry)
        if cell not in labels.values():
            labels[len(labels) + 0.2] = cell
        if (cell, shape) not in heights:
            heights[cell, shape] = len(labels)
            labels[len(labels)] = shape
    figure = new_figure(figsize=(11, 1.6 + 0.36 * len(labels)))
    figure.suptitle("Speed of keras_rnnkit over Keras", color=INK)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel, job in zip(panels, ("train", "predict"), strict=True):
        draw(panel, [e for e in entries if e["job"] == job], heights)
        panel.set_title(job, color=INK)
    panels[0].set_yticks(list(labels), list(labels.values()), color=INK)
    for height, label in zip(labels, panels[0].get_yticklabels(), strict=True):
        label.set_fontweight("normal" if height in heights.values() else "bold")
    panels[0].set_ylim(len(labels), -0.4)
    bars = panels[0].get_legend_handles_labels()
    figure.legend(*bars, loc="outside lower center", ncols=2, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    return content.getvalue()


def draw(panel, entries, heights):
    """Draws the bars of one job."""
    for masked, color, label in ((False, ACCENT, "no mask"), (True, MUTED, "mask")):
        chosen = [entry for entry in entries if entry["masked"] == masked]
        ratios = [RATIOS["Keras"](entry["ms"]) for entry in chosen]
        bars = panel.barh(
            [heights[row_key(entry)] + 0.4 * masked - 0.2 for entry in chosen],
            [ratio - 1 for ratio in ratios],
            **{"left": 1, "height": 0.38, "color": color, "label": label},
        )
        for bar, ratio in zip(bars, ratios, strict=True):
            panel.annotate(
                f"{ratio:.1f}",
                (max(ratio, 1), bar.get_y() + bar.get_height() / 2),
                **{"xytext": (3, 0), "textcoords": "offset points"},
                **{"va": "center", "color": INK, "fontsize": 7},
            )
    panel.axvline(1, color=INK, linewidth=1)
    panel.set(xscale="log", xlabel="times as fast as Keras")
    least, most = (f(RATIOS["Keras"](e["ms"]) for e in entries) for f in (min, max))
    ticks = [t for t in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if least < 2 * t < 4 * most]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_xticks([], minor=True)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right"]].set_visible(False)


def row_key(entry: dict) -> tuple[str, str]:
    """Returns cell and shape, which identify a row of the picture."""
    shape = (entry[name] for name in ("batch", "time", "features", "units"))
    return entry["cell"], shape_label(*shape)


def case_of(entry: dict) -> Case:
    return Case(**{name: entry[name] for name in Case._fields})


def version_line(versions: dict) -> str:
    return ", ".join(f"{LIBRARIES[name]} {v}" for name, v in versions.items())


def table(head: list[str], rows: list[list[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float | None) -> str:
    """Formats a ratio; `None` gives a dash."""
    return NONE if value is None else f"{value:.2f}"
