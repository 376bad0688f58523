"""What editors and type checkers see of the public API."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_rnnkit as rk
from tools import make_stubs

PACKAGE = Path(rk.__file__).parent
RIGHT = """
import numpy as np
import keras_rnnkit as rk

x = np.zeros((4, 7, 3))
model = rk.load_model("m.keras", custom_objects={"Own": object})
rk.LSTM(5, return_sequences=True, dropout=0.1)
rk.LSTM(5, "relu", kernel_regularizer=None, zoneout=(0.1, 0.0), dtype="float64")
rk.GRU(units=5, input_shape=(7, 3), implementation=1, loop="fast", name="gru")
rk.ESN(50, topology=np.eye(50), spectral_radius=None, return_sequences=False)
rk.RNN([rk.LSTMCell(5), rk.SimpleRNNCell(3)], zero_output_for_mask=True)
rk.Bidirectional(rk.LSTM(5), merge_mode=None, name="both")
rk.StackedRNN([rk.GRU(3), rk.Bidirectional(rk.GRU(3))], residual=True, dtype="float32")
rk.AttentionDecoder(rk.GRUCell(3), rk.LuongAttention(3, "concat"), stateful=True)
rk.export_tflite(model, "m.tflite", time_steps={"frames": None}, quantize="int8")
"""
WRONG = {
    "rk.LSTM(5, retrun_sequences=True)": '"retrun_sequences" for "LSTM"',
    'rk.LSTM("five")': 'incompatible type "str"; expected "int"',
    "rk.SimpleRNN(5, peephole=True)": '"peephole" for "SimpleRNN"',
    "rk.ESNCell(5, leak=0.1)": '"leak" for "ESNCell"',
    "rk.StackedRNN([rk.GRU(3)], retrun_state=True)": '"retrun_state" for "StackedRNN"',
    "rk.BahdanauAttention(3, normalise=True)": '"normalise" for "BahdanauAttention"',
    'rk.export_tflite(model, "m", quantise="int8")': '"quantise" for "export_tflite"',
    "rk.LTSM(5)": 'Module has no attribute "LTSM"',
}
REVEALED = {
    "rk.LSTM(5)": "LSTM",
    "rk.LSTM(5).peephole": "bool",
    "rk.explain(model)": "Explanation",
    'rk.export_tflite(model, "m.tflite")': "ExportReport",
    'rk.export_saved_model(model, "m")': "Path",
    'rk.inspect_tflite("m.tflite").ops': "list[dict[str, int]]",
    'rk.TFLiteModel("m.tflite")(x)': "dict[str, ndarray]",
    'rk.StreamingModel("m.tflite").states': "dict[str, ndarray] | None",
    "rk.fit_readout(model, x, x, ridge=[1e-6, 1e-3])": "Readout",
    "rk.forecast(model, x, 3)": "ndarray",
    "rk.RLS(model).partial_fit(x, x)": "ndarray",
    "rk.padded([x, x])": "tuple[ndarray, ndarray]",
    "rk.reservoir.measures.memory_capacity(rk.ESN(50))": "MemoryCapacity",
    'rk.seq2seq.edit_distance("ab", "b")': "int",
    "rk.datasets.narma(50)": "tuple[ndarray, ndarray]",
    'rk.datasets.cmudict("test")': "Pronunciations",
    'rk.plots.attention("ab", "b", x)': "Figure",
}
REQUIRED = {
    "units": lambda: 2,
    "cell": lambda: rk.GRUCell(2),
    "cells": lambda: [rk.GRUCell(2)],
    "attention": lambda: rk.LuongAttention(2),
    "layer": lambda: rk.GRU(2),
    "layers": lambda: [rk.GRU(2)],
}
CONSTRUCTED = [cls for cls in make_stubs.classes() if cls is not rk.Seq2Seq]


def test_stubs_are_up_to_date():
    stubs = make_stubs.stubs()
    assert set(stubs) == set(PACKAGE.rglob("*.pyi"))
    for path, text in stubs.items():
        assert path.read_text() == text, f"run `make stubs`: {path.name} is out of date"


@pytest.mark.parametrize("cls", CONSTRUCTED)
def test_constructors_take_all_arguments_of_their_stubs(cls):
    given = {}
    for each in make_stubs.all_parameters(cls)[1:]:
        required = each.default is each.empty
        given[each.name] = REQUIRED[each.name]() if required else each.default
    cls(**given)


@pytest.fixture(scope="module")
def messages(tmp_path_factory):
    """What mypy says of each line of a user's code."""
    folder = tmp_path_factory.mktemp("user")
    reveals = [f"reveal_type({each})" for each in REVEALED]
    lines = [*RIGHT.splitlines(), *WRONG, *reveals]
    (folder / "user.py").write_text("\n".join(lines))
    options = "--strict", "--ignore-missing-imports", "--follow-imports=silent"
    files = "--config-file=", f"--cache-dir={folder}", str(folder / "user.py")
    run = [sys.executable, "-m", "mypy", *options, *files]
    out = subprocess.run(run, capture_output=True, text=True, cwd=PACKAGE.parent)
    found = re.findall(r"user\.py:(\d+): (?:error|note): (.*)", out.stdout)
    assert found, out.stdout + out.stderr
    said = {}
    for number, message in found:
        said.setdefault(lines[int(number) - 1], []).append(message)
    return said


def test_right_code_has_no_error(messages):
    assert not messages.keys() & set(RIGHT.splitlines())


@pytest.mark.parametrize("code", WRONG)
def test_wrong_code_has_an_error(messages, code):
    assert WRONG[code] in messages[code][0]


@pytest.mark.parametrize("code", REVEALED)
def test_results_have_types(messages, code):
    (message,) = messages[f"reveal_type({code})"]
    assert short_type(message) == REVEALED[code]


def short_type(message):
    """The type in a message, without modules, element types and fields of tuples."""
    revealed = re.fullmatch(r'Revealed type is "(.*)"', message)[1]
    revealed = re.sub(r"\w+\.(?=\w)", "", revealed)
    revealed = re.sub(r"ndarray\[.*?dtype\[\w+\]\]", "ndarray", revealed)
    return re.sub(r"tuple\[.*, fallback=(\w+)\]", r"\1", revealed)
