"""The README and the pages of docs/ promise only what was run."""

import json
import re
import textwrap
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from packaging.version import Version

import keras_rnnkit as rk
from tests.helpers import assert_close
from tools.fill_docs import (
    EXAMPLES,
    GENERATED,
    TABLES,
    block,
    example,
    page,
    result,
    run,
    run_example,
)

FILES = "float32", "float16", "dynamic", "int8", "streaming"
ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PYTHON = r"```python[^\n]*\n"


def masked(text):
    """The text without its numbers, which differ from machine to machine."""
    return re.sub(r"-?\d[\d.,e+-]*", "#", re.sub(r" +", " ", text))


@pytest.mark.skipif("not __import__('importlib.util').util.find_spec('sktime')")
def test_the_example_prints_what_the_readme_says():
    printed, shown = run_example(), block("output")
    assert masked(printed) == masked(shown)
    accuracies = [float(re.search(r"accuracy (\S+)", x)[1]) for x in (printed, shown)]
    assert abs(accuracies[0] - accuracies[1]) < 0.03


def test_the_demo_shown_is_the_one_whose_models_are_kept():
    report = json.loads((ROOT / "saved_models/quickstart/report.json").read_text())
    shown = block("demo")
    for name, value in report["best"].items():
        value = round(value, 5) if name == "learning_rate" else value
        assert f"{name} {value}" in shown
    docstring = (ROOT / "examples/quickstart.py").read_text().split('"""')[1]
    assert textwrap.indent(shown, "    ") in docstring
    kept = (ROOT / "saved_models/README.md").read_text()
    row = report["formats"]["model.tflite"]
    assert (
        f"| {row['accuracy']:.4f} | {row['parameters']:,} | {row['kilobytes']:.0f} kB "
        f"| {row['max_difference']:.1e} |" in kept
    )
    for name, row in report["formats"].items():
        line = next(x for x in shown.splitlines() if x.startswith(f"{name} "))
        assert f"{row['accuracy']:.4f}" in line
        assert row["accuracy"] >= 0.97
        assert f"{row['parameters']:,}" in line
        assert f"{row['max_difference']:.1e}" in line


def test_the_files_for_phones_are_those_that_the_example_made():
    shown = block("mobile")
    docstring = (ROOT / "examples/export_to_mobile.py").read_text().split('"""')[1]
    assert textwrap.indent(shown, "    ") in docstring
    rows = re.findall(r"^(\w+) +(0\.\d+) +(\d+) kB", shown, re.MULTILINE)
    assert [name for name, *_ in rows] == list(FILES)
    for name, accuracy, size in rows:
        assert float(accuracy) >= float(rows[0][1]) - 0.01
        kept = (ROOT / f"saved_models/mobile/{name}.tflite").stat().st_size
        assert round(kept / 1000) == int(size)


@pytest.mark.slow
def test_the_example_for_phones_runs(tmp_path):
    out = run(
        str(example("export_to_mobile")), "--quick", "--output", ".", cwd=tmp_path
    )
    assert {f"{name}.tflite" for name in FILES} < {x.name for x in tmp_path.iterdir()}
    assert all(name in out for name in FILES)


@pytest.mark.parametrize("name", ["example", "output", *EXAMPLES, *TABLES, *GENERATED])
def test_each_block_exists_once(name):
    assert page(name).is_file()
    assert block(name).strip()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_pages_show_what_the_docstrings_of_examples_show(name):
    file, *_ = EXAMPLES[name]
    docstring = example(file).read_text().split('"""')[1]
    assert textwrap.indent(block(name), "    ").rstrip() in docstring


@pytest.mark.parametrize("name", [*TABLES, *GENERATED])
def test_the_tables_of_speed_are_those_of_the_benchmarks(name):
    assert block(name) == result(name)


def test_the_models_kept_still_load_and_agree():
    pytest.importorskip("sktime")
    folder = ROOT / "saved_models/quickstart"
    with zipfile.ZipFile(folder / "model.keras") as archive:
        written_by = json.loads(archive.read("metadata.json"))["keras_version"]
    if Version(keras.__version__) < Version(written_by):
        pytest.skip(f"written by the later Keras {written_by}")
    model = keras.models.load_model(folder / "model.keras")
    x = rk.datasets.japanese_vowels("test").x[:20]
    lite = rk.TFLiteModel(folder / "model.tflite").predict(frames=x)["output_0"]
    np.testing.assert_allclose(lite, model.predict(x, verbose=0), atol=1e-5)


def test_the_cell_of_ones_own_is_a_simple_rnn(rng):
    text = (DOCS / "guides/own-cell.md").read_text()
    code, *_ = re.findall(rf"{PYTHON}(class Minimal.*?)```", text, re.DOTALL)
    scope = {"rk": rk, "keras": keras}
    exec(code, scope)
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    own = rk.RNN(scope["MinimalCell"](4), return_sequences=True)
    own.build(x.shape)
    peer = keras.layers.SimpleRNN(4, use_bias=False, return_sequences=True)
    peer.build(x.shape)
    peer.set_weights(own.get_weights())
    assert_close(own(x), peer(x))
    assert_close(keras.layers.RNN(own.cell, return_sequences=True)(x), peer(x))


def test_the_reservoir_forecasts():
    text = (DOCS / "guides/reservoirs.md").read_text()
    code, *_ = re.findall(rf"{PYTHON}(series = .*?)```", text, re.DOTALL)
    scope = {"rk": rk, "keras": keras}
    exec(code, scope)
    after = rk.datasets.mackey_glass(3085)[:, 3001:]
    assert scope["future"].shape == after.shape
    assert np.abs(scope["future"] - after).max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mackey_glass", "santa_fe", "japanese_vowels_esn"])
def test_the_examples_of_reservoirs_run(name, tmp_path):
    out = run(str(example(name)), "--quick", "--output", ".", cwd=tmp_path)
    assert "Written to ." in out
    assert list(tmp_path.glob("*.png"))
    shown = (ROOT / f"examples/{name}.py").read_text().split('"""')[1]
    first = out.splitlines()[0]
    assert masked(first) in masked(shown)
