"""Runs the examples, and writes their output into the docs and their docstrings.

python tools/fill_docs.py [--results]

Files that the examples write are copied to saved_models/. A block is the text between
`<!-- name -->` and `<!-- /name -->`; each name occurs in one file only.

With `--results`, runs no example and writes only the tables of the benchmarks.
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
RUNS, SAVED_MODELS = ROOT / "runs", ROOT / "saved_models"
RESULTS = ROOT / "benchmarks" / "results"
# Blocks that hold a table of a benchmark: the benchmark, and the index of the table.
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
# Blocks that hold the output of an example: the example, its folder, and the text at
# which the block begins.
EXAMPLES = {
    "demo": ("quickstart", "quickstart", "Best:"),
    "mobile": ("export_to_mobile", "mobile", "Keras:"),
    "mackey glass": ("mackey_glass", "mackey_glass", "units"),
    "santa fe": ("santa_fe", "santa_fe", "units"),
    "vowels": ("japanese_vowels_esn", "japanese_vowels_esn", "reservoir 0"),
    "pronounced": ("grapheme_to_phoneme", "g2p", "phoneme "),
}
# Rows of the README's table: what is measured, the cell of which table, its unit, and
# the section of docs/benchmarks.md with that table.
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
    """Returns the file that contains a block."""
    opening = f"<!-- {name} -->\n"
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [path for path in pages for _ in range(path.read_text().count(opening))]
    if len(found) != 1:
        where = [path.relative_to(ROOT).as_posix() for path in found]
        raise ValueError(f"block {name!r} must exist once; it is in {where}")
    return found[0]


def pattern(name: str) -> re.Pattern:
    """Returns a pattern whose groups are the start, the text and the end of a block."""
    fence = r"```\w*\n"
    return re.compile(
        rf"(<!-- {name} -->\n(?:{fence})?)(.*?)((?:{fence})?<!-- /{name} -->)",
        re.DOTALL,
    )


def block(name: str) -> str:
    """Returns the text of a block."""
    return pattern(name).search(page(name).read_text())[2]


def fill(name: str, content: str):
    """Replaces the text of a block."""
    path = page(name)
    text = path.read_text()
    text = pattern(name).sub(lambda match: match[1] + content + match[3], text)
    path.write_text(text)


def result(name: str) -> str:
    """Returns a table of results, by the name of its block."""
    if name in GENERATED:
        return GENERATED[name]()
    benchmark, index = TABLES[name]
    text = (RESULTS / f"{benchmark}.md").read_text()
    tables = re.finditer(r"^\|.*?\|\n(?!\|)", text, re.DOTALL | re.MULTILINE)
    return [match[0] for match in tables][index]


def cell(name: str, row: str, column: str) -> str:
    """Returns a cell of a table, from the first row whose first cell is `row`."""
    header, _, *rows = (
        [each.strip() for each in line.strip("|").split("|")]
        for line in result(name).splitlines()
    )
    return next(each for each in rows if each[0] == row)[header.index(column)]


def headline() -> str:
    """Returns the README's table of the main results."""
    rows = [["what", "how much", "table"], ["---"] * 3]
    for what, place, unit, (title, anchor) in HEADLINE:
        link = f"[{title}](docs/benchmarks.md#{anchor})"
        rows.append([what, cell(*place) + unit, link])
    return as_table(rows)


def as_table(rows) -> str:
    """Formats rows of cells as a Markdown table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def pronunciations() -> str:
    """Returns the table of the models of `examples/grapheme_to_phoneme.py`."""
    searches = "greedy", "beam"
    header = ["model", "parameters", "training"]
    header += [
        f"{kind} error, {each}" for each in searches for kind in ("phone", "word")
    ]
    rows = [header, ["---"] * len(header)]
    for model, folder in MODELS.items():
        report = json.loads((SAVED_MODELS / folder / "report.json").read_text())
        errors = [100 * rate for each in searches for rate in report[each].values()]
        rows.append(
            [
                model,
                f"{report['parameters']:,}",
                f"{report['training_minutes']:.0f} min",
                *(f"{error:.1f}%" for error in errors),
            ]
        )
    return as_table(rows)


# Blocks whose tables are made from other tables or from reports.
GENERATED = {"g2p": pronunciations, "headline": headline}


def example(name: str) -> Path:
    """Returns the file of an example."""
    return ROOT / "examples" / f"{name}.py"


def run(*arguments: str, cwd) -> str:
    """Runs a Python program, and returns its output."""
    command = [sys.executable, *arguments]
    completed = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if completed.returncode:
        raise RuntimeError(f"`{' '.join(arguments)}` failed:\n{completed.stderr}")
    return completed.stdout


def run_example() -> str:
    """Runs the README's example, and returns its output."""
    with tempfile.TemporaryDirectory() as folder:
        return run("-c", block("example"), cwd=folder)


def main():
    for name in (*TABLES, *GENERATED):
        fill(name, result(name))
    if "--results" in sys.argv[1:]:
        return
    fill("output", run_example())
    for name, (file, folder, first) in EXAMPLES.items():
        output = run(str(example(file)), cwd=ROOT)
        shutil.copytree(RUNS / folder, SAVED_MODELS / folder, dirs_exist_ok=True)
        output = output[output.index(first) :]
        fill(name, output)
        fill_docstring(example(file), output)
    fill_saved_models()


def fill_saved_models():
    """Writes the numbers of the demo's model into saved_models/README.md."""
    report = json.loads((SAVED_MODELS / "quickstart" / "report.json").read_text())
    row = report["formats"]["model.tflite"]
    cells = (
        f"{row['accuracy']:.4f}",
        f"{row['parameters']:,}",
        f"{row['kilobytes']:.0f} kB",
        f"{row['max_difference']:.1e}",
    )
    lines = (SAVED_MODELS / "README.md").read_text().splitlines(keepends=True)
    for index, line in enumerate(lines):
        if line.startswith("| `quickstart/` "):
            first_cells = line.split("|")[1:4]
            lines[index] = f"|{'|'.join(first_cells)}| {' | '.join(cells)} |\n"
    (SAVED_MODELS / "README.md").write_text("".join(lines))


def fill_docstring(path: Path, output: str):
    """Writes the output of an example at the end of its docstring."""
    start, _, rest = path.read_text().partition('"""\n\nimport ')
    start = start[: PRINTS.search(start).end()]
    output = textwrap.indent(output.rstrip() + "\n", "    ")
    path.write_text(f'{start}{output}"""\n\nimport {rest}')


if __name__ == "__main__":
    main()
