"""Runs what the README shows, writes what it prints there and into the example, and
keeps what it made in saved_models/.

python tools/fill_readme.py [--results]

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
README = ROOT / "README.md"
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
    "g2p": ("grapheme_to_phoneme", None),
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
PRINTS = re.compile(r"It prints.*?:\n\n")


def pattern(name: str) -> re.Pattern:
    """Matches the block `name` of the README: its opening, its text, its end."""
    fence = r"```\w*\n"
    return re.compile(
        rf"(<!-- {name} -->\n(?:{fence})?)(.*?)((?:{fence})?<!-- /{name} -->)",
        re.DOTALL,
    )


def block(text: str, name: str) -> str:
    """The text of a block."""
    return pattern(name).search(text)[2]


def fill(text: str, name: str, content: str) -> str:
    """The README with another text in a block."""
    return pattern(name).sub(lambda match: match[1] + content + match[3], text)


def result(name: str) -> str:
    """A table of a benchmark's results, by the name of its block."""
    benchmark, number = TABLES[name]
    if number is None:
        return pronunciations()
    text = (RESULTS / f"{benchmark}.md").read_text()
    tables = re.finditer(r"^\|.*?\|\n(?!\|)", text, re.DOTALL | re.MULTILINE)
    return [match[0] for match in tables][number]


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
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


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


def run_example(text: str) -> str:
    """What the README's example prints."""
    with tempfile.TemporaryDirectory() as folder:
        return run("-c", block(text, "example"), cwd=folder)


def main():
    text = README.read_text()
    for name in TABLES:
        text = fill(text, name, result(name))
    README.write_text(text)
    if "--results" in sys.argv[1:]:
        return
    text = fill(text, "output", run_example(text))
    for name, (file, folder, first) in EXAMPLES.items():
        printed = run(str(example(file)), cwd=ROOT)
        shutil.copytree(RUNS / folder, KEPT / folder, dirs_exist_ok=True)
        shown = printed[printed.index(first) :]
        text = fill(text, name, shown)
        README.write_text(text)
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
