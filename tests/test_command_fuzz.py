"""Whatever the arguments are, the command answers in a line and leaves no mess."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from keras_rnnkit.__main__ import main
from tests.helpers import randomize

ROOT = Path(__file__).parent.parent
OLD = Path(__file__).parent / "data" / "keras2"
OPTIONS = {
    "--quantize": ["dynamic", "float16", "int8", "int16x8", "int4", ""],
    "--data": ["x.npy", "named.npz", "words.npy", "nan.npy", "none.npy", "folder", ""],
    "--check": ["x.npy", "other.npy", "objects.npy", "zero.npy", "scalar.npy", "text"],
    "--batch-size": ["1", "2", "any", "all", "0", "-1", "1e9", "model", "None", "\0"],
    "--time-steps": ["4", "any", "model", "0", "2.0", "∞", "", "--"],
    "--form": ["auto", "loop", "fused", "unrolled", "square"],
    "--tolerance": ["1e-3", "0", "inf", "-1", "1e-30", "x"],
    "--forecast": ["1", "3", "any", "0", "99999999999"],
    "--max-length": ["3", "-3", "any"],
    "--import": ["json", "no.such", ".", "", "a b", "broken"],
    "--streaming": [None],
    "--unsafe": [None],
    "--json": [None],
    "--no-such": [None],
}
MODELS = (
    ["m.keras"] * 12
    + ["old.h5"] * 4
    + [
        *("lambda.h5", "major.h5", "m.weights.h5", "m.tflite", "x.npy"),
        *("cut.keras", "empty", "text", "folder", "none.keras", "named.npz", "", "-"),
    ]
)
TARGETS = ["o.tflite"] * 16 + [
    *("folder", "none/o.tflite", "text/o.tflite", ".", ""),
    *("o" * 300, "--", "ö 🙂\n.tflite", "\udcff.tflite"),
]


def make_files(rng):
    model = keras.Sequential([keras.Input((4, 1), name="frames"), rk.GRU(1)])
    randomize(model, rng)
    model.save("m.keras")
    model.save_weights("m.weights.h5")
    rk.export_tflite(model, "m.tflite")
    for name, source in (
        ("old", "lstm"),
        ("lambda", "own_code"),
        ("major", "time_major"),
    ):
        shutil.copy(OLD / f"{source}.h5", f"{name}.h5")
    x = rng.normal(size=(3, 4, 1)).astype("float32")
    np.save("x.npy", x)
    np.save("other.npy", x[:, :, [0, 0]])
    np.save("zero.npy", x[:0])
    np.save("scalar.npy", 1.0)
    np.save("nan.npy", x * np.nan)
    np.save("words.npy", np.array(["a"]))
    np.save("objects.npy", np.array([{}]))
    np.savez("named.npz", frames=x)
    Path("cut.keras").write_bytes(Path("m.keras").read_bytes()[:-100])
    Path("empty").touch()
    Path("text").write_text("words")
    Path("folder").mkdir()
    Path("folder/kept").touch()
    Path("broken.py").write_text("import no_such_module_as_this")


def drawn(rng) -> list[str]:
    """Arguments of which some fit and some do not."""
    command = rng.choice(["export"] * 8 + ["inspect", "expert"])
    arguments = [command, rng.choice(MODELS)]
    if command == "export":
        arguments.append(rng.choice(TARGETS))
    for option in rng.choice(list(OPTIONS), rng.integers(0, 4), replace=False):
        value = OPTIONS[option][rng.integers(len(OPTIONS[option]))]
        arguments += [option] if value is None else [option, value]
    arguments = [str(each) for each in arguments]
    if rng.random() < 0.1:
        arguments.pop(rng.integers(len(arguments)))
    if rng.random() < 0.1:
        rng.shuffle(arguments)
    return arguments


def contents():
    """All that stands in this folder."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in Path().rglob("*")
        if "__pycache__" not in path.parts
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_no_arguments_give_a_traceback(seed, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(seed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    make_files(rng)
    before, codes = contents(), []
    for _ in range(400):
        arguments = drawn(rng)
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        assert code in (0, 1, 2), arguments
        assert "Traceback" not in err, arguments
        assert len(err.splitlines()) == (code != 0), (arguments, err)
        assert bool(out) == (code == 0), (arguments, err)
        after = contents()
        new = set(after) - set(before)
        assert len(new) == (code == 0 and arguments[0] == "export"), (arguments, new)
        assert {path: after[path] for path in before} == before, arguments
        for path in new:
            assert rk.inspect_tflite(path).size, arguments
            path.unlink()
        codes.append(code)
    assert min(codes.count(code) for code in (0, 1, 2)) > 10


@pytest.mark.slow
def test_a_process_says_no_more_than_the_function(rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files(rng)
    commands = {
        "export m.keras o.tflite --batch-size any --json": 0,
        "export old.h5 o.tflite --quantize dynamic": 0,
        "export m.weights.h5 p.tflite": 1,
        "export m.keras p.tflite --import broken": 1,
        "export m.keras p.tflite --time-steps all": 2,
    }
    for command, code in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", "keras_rnnkit", *command.split()],
            env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done
        assert len(done.stderr.splitlines()) == (code != 0), done
    assert not Path("p.tflite").exists()
