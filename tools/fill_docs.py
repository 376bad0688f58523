"""Runs what README and docs/ show, writes what it prints there and into the examples,
and keeps what it made in saved_models/.

python tools/fill_docs.py [--results]

A block is what stands between `<!-- name -->` and `<!-- /name -->`, in one file.

With `--results`, runs nothing and writes the tables of the benchmarks alone.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS, KEPT = ROOT / "runs", ROOT / "saved_models"
RESULTS = ROOT / "benchmarks" / "results"
# The blocks that are tables: of which benchmark, and the how manieth there.
TABLES = {
    "speed": ("speed", 0),
    "fit": ("fit", 0),
    "files": ("export", 0),
    "quantized": ("export", 1),
    "latency": ("export", 2),
    "scores": ("reservoir", 0),
    "reservoirs": ("reservoir", 1),
    "memory": ("reservoir", 2),
    "decoding": ("attention", 0),
    "attention": ("attention", 1),
}
MODELS = {"with attention": "g2p", "without": "g2p_no_attention"}
# The blocks that are what an example prints: the example, its folder, the first words.
EXAMPLES = {
    "demo": ("quickstart", "quickstart", "Best:"),
    "mobile": ("export_to_mobile", "mobile", "Keras:"),
    "mackey glass": ("mackey_glass", "mackey_glass", "units"),
    "santa fe": ("santa_fe", "santa_fe", "units"),
    "vowels": ("japanese_vowels_esn", "japanese_vowels_esn", "reservoir 0"),
    "pronounced": ("grapheme_to_phoneme", "g2p", "phoneme "),
}
# The table of the README: what, the cell of which table, its unit, where that table is.
FASTER = " times as fast"
LAYERS, FIT = ("layers", "layers"), ("epochs", "epochs-of-fit")
LATENCY, FITTED = ("latency", "latency"), ("reservoirs", "reservoirs")
SEARCH = "sequence to sequence", "sequence-to-sequence"
WORDS = "pronunciation", "pronunciation-of-english-words"
MEAN, WRONG = "geometric mean", "word error, beam"
HEADLINE = [
    ("training step, against Keras", ("speed", "train", "Keras"), FASTER, LAYERS),
    ("prediction, against Keras", ("speed", "predict", "Keras"), FASTER, LAYERS),
    (
        "both, against the faster of Keras and XLA",
        ("speed", "all", "Keras or XLA"),
        FASTER,
        LAYERS,
    ),
    ("both, against PyTorch", ("speed", "all", "PyTorch"), FASTER, LAYERS),
    ("both, LSTM alone, against PyTorch", ("speed", "LSTM", "PyTorch"), FASTER, LAYERS),
    ("epoch of `fit`, against Keras", ("fit", MEAN, "Keras"), FASTER, FIT),
    (
        "its first epoch, which compiles",
        ("fit", MEAN, "Keras, first epoch"),
        FASTER,
        FIT,
    ),
    ("TFLite call, against PyTorch", ("latency", MEAN, "PyTorch"), FASTER, LATENCY),
    (
        "states of 500 units, against ReservoirPy",
        ("reservoirs", "500", "states"),
        FASTER,
        FITTED,
    ),
    (
        "`generate`, against a loop in Python",
        ("decoding", "30", FASTER.strip()),
        FASTER,
        SEARCH,
    ),
    ("CMUdict: words pronounced wrong", ("g2p", "with attention", WRONG), "", WORDS),
]
PRINTS = re.compile(r"It prints.*?:\n\n")


def page(name: str) -> Path:
    """The file that has a block."""
    opening = f"<!-- {name} -->\n"
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [path for path in pages for _ in range(path.read_text().count(opening))]
    if len(found) != 1:
        where = [path.relative_to(ROOT).as_posix() for path in found]
        raise ValueError(f"block {name!r} must exist once; it is in {where}")
    return found[0]


def pattern(name: str) -> re.Pattern:
    """Matches a block: its opening, its text, its end."""
    fence = r"```\w*\n"
    return re.compile(
        rf"(<!-- {name} -->\n(?:{fence})?)(.*?)((?:{fence})?<!-- /{name} -->)",
        re.DOTALL,
    )


def block(name: str) -> str:
    """The text of a block."""
    return pattern(name).search(page(name).read_text())[2]


def fill(name: str, content: str):
    """Writes another text into a block."""
    path = page(name)
    text = path.read_text()
    text = pattern(name).sub(lambda match: match[1] + content + match[3], text)
    path.write_text(text)


def result(name: str) -> str:
    """A table of results, by the name of its block."""
    if name in MADE:
        return MADE[name]()
    benchmark, number = TABLES[name]
    text = (RESULTS / f"{benchmark}.md").read_text()
    tables = re.finditer(r"^\|.*?\|\n(?!\|)", text, re.DOTALL | re.MULTILINE)
    return [match[0] for match in tables][number]


def cell(name: str, row: str, column: str) -> str:
    """A number of a table: the first row that begins with `row`."""
    head, _, *rows = (
        [each.strip() for each in line.strip("|").split("|")]
        for line in result(name).splitlines()
    )
    return next(each for each in rows if each[0] == row)[head.index(column)]


def headline() -> str:
    """The table of a few numbers of all kinds."""
    rows = [["what", "how much", "table"], ["---"] * 3]
    for what, number, unit, (title, anchor) in HEADLINE:
        link = f"[{title}](docs/benchmarks.md#{anchor})"
        rows.append([what, cell(*number) + unit, link])
    return as_table(rows)


def as_table(rows) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def pronunciations() -> str:
    """The table of the models of `examples/grapheme_to_phoneme.py`."""
    searches = "greedy", "beam"
    head = ["model", "parameters", "training"]
    head += [f"{kind} error, {each}" for each in searches for kind in ("phone", "word")]
    rows = [head, ["---"] * len(head)]
    for model, folder in MODELS.items():
        found = json.loads((KEPT / folder / "report.json").read_text())
        errors = [100 * rate for each in searches for rate in found[each].values()]
        rows.append(
            [
                model,
                f"{found['parameters']:,}",
                f"{found['training_minutes']:.0f} min",
                *(f"{error:.1f}%" for error in errors),
            ]
        )
    return as_table(rows)


MADE = {"g2p": pronunciations, "headline": headline}  # of other tables, or of reports


def example(name: str) -> Path:
    """The file of an example."""
    return ROOT / "examples" / f"{name}.py"


def run(*arguments: str, cwd) -> str:
    """What a Python program prints."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(arguments)}` failed:\n{done.stderr}")
    return done.stdout


def run_example() -> str:
    """What the README's example prints."""
    with tempfile.TemporaryDirectory() as folder:
        return run("-c", block("example"), cwd=folder)


def main():
    for name in (*TABLES, *MADE):
        fill(name, result(name))
    if "--results" in sys.argv[1:]:
        return
    fill("output", run_example())
    for name, (file, folder, first) in EXAMPLES.items():
        printed = run(str(example(file)), cwd=ROOT)
        shutil.copytree(RUNS / folder, KEPT / folder, dirs_exist_ok=True)
        shown = printed[printed.index(first) :]
        fill(name, shown)
        fill_docstring(example(file), shown)
    fill_kept()


def fill_kept():
    """Writes the numbers of the demo's model into the list of those kept."""
    report = json.loads((KEPT / "quickstart" / "report.json").read_text())
    row = report["formats"]["model.tflite"]
    cells = (
        f"{row['accuracy']:.4f}",
        f"{row['parameters']:,}",
        f"{row['kilobytes']:.0f} kB",
        f"{row['max_difference']:.1e}",
    )
    lines = (KEPT / "README.md").read_text().splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.startswith("| `quickstart/` "):
            head = line.split("|")[1:4]
            lines[number] = f"|{'|'.join(head)}| {' | '.join(cells)} |\n"
    (KEPT / "README.md").write_text("".join(lines))


def fill_docstring(path: Path, shown: str):
    """Ends the docstring of an example with what it prints."""
    head, _, rest = path.read_text().partition('"""\n\nimport ')
    head = head[: PRINTS.search(head).end()]
    shown = textwrap.indent(shown.rstrip() + "\n", "    ")
    path.write_text(f'{head}{shown}"""\n\nimport {rest}')


if __name__ == "__main__":
    main()
