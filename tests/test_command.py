"""The command line gives files from files, and says what is wrong with them."""

import configparser
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from keras_rnnkit import __main__ as command
from keras_rnnkit.__main__ import main
from keras_rnnkit.export.checks import TOLERANCE
from keras_rnnkit.export.policy import FORMS
from tests.helpers import assert_close, randomize

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    """Files have short names."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def frames(rng):
    x = rng.normal(size=(4, 6, 3)).astype("float32")
    np.save("x.npy", x)
    return x


def saved(*layers, rng, shape=(6, 3)):
    """A model that stands in `m.keras`."""
    model = keras.Sequential([keras.Input(shape, name="frames"), *layers])
    randomize(model, rng)
    model.save("m.keras")
    return model


def run(capsys, command):
    """What a command prints."""
    assert main(command.split()) == 0
    out, err = capsys.readouterr()
    assert not err
    return out


@pytest.mark.parametrize(
    "layer",
    [rk.LSTM(4), keras.layers.GRU(4), keras.layers.Flatten()],
    ids=["ours", "Keras's", "not recurrent"],
)
def test_a_file_of_keras_becomes_a_file_for_the_phone(layer, rng, frames, capsys):
    model = saved(layer, keras.layers.Dense(2), rng=rng)
    printed = run(capsys, "export m.keras m.tflite")
    for shown in "m.tflite", f"{model.count_params():,}", "frames (1, 6, 3) float32":
        assert shown in printed
    got = rk.TFLiteModel("m.tflite").predict(frames=frames)["output_0"]
    assert_close(got, model(frames))


def test_a_file_is_quantized_on_data(rng, frames, capsys):
    model = saved(rk.LSTM(4), keras.layers.Dense(2), rng=rng)
    command = "export m.keras m.tflite --quantize int8 --data x.npy --json"
    report = json.loads(run(capsys, command))
    assert report["quantize"] == "int8"
    assert report["calls"] == len(frames)
    assert "int8" in report["signatures"]["serving_default"]["inputs"]["frames"]
    got = rk.TFLiteModel("m.tflite").predict(frames=frames)["output_0"]
    expected = model(frames).numpy()
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()


def test_data_go_by_the_names_of_the_inputs(rng, frames, capsys):
    inputs = [keras.Input((6, 3), name="frames"), keras.Input((4,), name="first")]
    hidden = rk.GRU(4)(inputs[0], initial_state=inputs[1])
    keras.Model(inputs, keras.layers.Dense(2)(hidden)).save("m.keras")
    first = rng.normal(size=(4, 4))
    np.savez("data.npz", first=first, frames=frames)
    command = "export m.keras m.tflite --data data.npz --quantize int8 --json"
    report = json.loads(run(capsys, command))
    assert report["calls"] == 4
    assert set(report["signatures"]["serving_default"]["inputs"]) == {"frames", "first"}
    # The ranges are those of the data.
    rk.export_tflite(
        keras.models.load_model("m.keras"),
        "peer.tflite",
        quantize="int8",
        representative_data={"frames": frames, "first": first},
    )
    assert Path("m.tflite").read_bytes() == Path("peer.tflite").read_bytes()


def test_a_file_takes_a_stream(rng, frames, capsys):
    model = saved(rk.LSTM(4, return_sequences=True), rng=rng)
    run(capsys, "export m.keras m.tflite --streaming --batch-size 4 --time-steps 3")
    file = rk.StreamingModel("m.tflite")
    parts = [file.step(part) for part in np.split(frames, 2, axis=1)]
    assert_close(np.concatenate(parts, axis=1), model(frames))


def test_a_file_takes_any_batch_and_any_number_of_steps(rng, capsys):
    model = saved(rk.GRU(4), rng=rng)
    free = keras.Sequential([keras.Input((None, 3)), *model.layers])
    run(capsys, "export m.keras m.tflite --batch-size any --time-steps any")
    lite = rk.TFLiteModel("m.tflite")
    for shape in (1, 4, 3), (5, 9, 3):
        x = rng.normal(size=shape).astype("float32")
        assert_close(lite(frames=x)["output_0"], free(x))


def test_the_form_is_as_asked_for(rng, capsys):
    saved(rk.LSTM(4, name="lstm"), rng=rng)
    for form, op in ("loop", "WHILE"), ("fused", "UNIDIRECTIONAL_SEQUENCE_LSTM"):
        command = f"export m.keras m.tflite --form {form} --json"
        report = json.loads(run(capsys, command))
        assert report["layers"]["lstm"]["form"] == form
        assert op in report["ops"]


def test_inspect_shows_what_stands_in_a_file(rng, capsys):
    saved(rk.GRU(4, name="gru"), rng=rng)
    run(capsys, "export m.keras m.tflite --streaming")
    printed = run(capsys, "inspect m.tflite")
    for shown in "reset", "step", "FULLY_CONNECTED", "gru_h (1, 4) float32":
        assert shown in printed
    content = json.loads(run(capsys, "inspect m.tflite --json"))
    assert content["size"] == Path("m.tflite").stat().st_size
    assert "FULLY_CONNECTED" in content["ops"][0]
    assert set(content["signatures"]["step"]["inputs"]) == {"frames", "gru_h"}


def test_the_code_of_a_lambda_runs_if_it_is_asked_to(rng, frames, capsys):
    model = saved(keras.layers.Lambda(lambda x: 2 * x), rk.GRU(4), rng=rng)
    assert main(["export", "m.keras", "m.tflite"]) == 1
    assert (
        "a Lambda layer, whose code would be run: pass --uns" in capsys.readouterr()[1]
    )
    assert not Path("m.tflite").exists()
    run(capsys, "export m.keras m.tflite --unsafe")
    got = rk.TFLiteModel("m.tflite").predict(frames=frames)["output_0"]
    assert_close(got, model(frames))


WRONG = {
    "no model": ("export none.keras m.tflite", "there is no file `none.keras`"),
    "no file of Keras": ("export text m.tflite", "`text` must be a model saved by Ker"),
    "no .h5 file": ("export text.h5 m.tflite", "Keras cannot load `text.h5`"),
    "another archive": ("export x.npz m.tflite", "Keras cannot load `x.npz`"),
    "no data to quantize": (
        "export m.keras m.tflite --quantize int8",
        "`quantize='int8'` needs `representative_data`",
    ),
    "no data": ("export m.keras m.tflite --data no.npy", "there is no file `no.npy`"),
    "text for data": (
        "export m.keras m.tflite --data text",
        "`text` must be an .npy or .npz file",
    ),
    "nothing for data": (
        "export m.keras m.tflite --data empty",
        "`empty` must be an .npy or .npz file",
    ),
    "a broken archive for data": (
        "export m.keras m.tflite --data broken.npz",
        "`broken.npz` must be an .npy or .npz file",
    ),
    "data of another shape": (
        "export m.keras m.tflite --data other.npy",
        "must hold 1 arrays",
    ),
    "data of other names": (
        "export m.keras m.tflite --data x.npz",
        "must hold an array for each of ['frames']; received arrays for ['x']",
    ),
    "no folder to write to": (
        "export m.keras nowhere/m.tflite",
        "there is no folder",
    ),
    "a file for a folder": ("export m.keras text/m.tflite", "there is no folder"),
    "a folder for a file": ("export m.keras folder", "must be a file to write; receiv"),
    "the model itself": (
        "export m.keras ./m.keras",
        "must differ from the files to read",
    ),
    "objects for data": (
        "export m.keras m.tflite --data objects.npy",
        "must be an .npy or .npz file of numbers; received Python objects",
    ),
    "words for data": (
        "export m.keras m.tflite --data words.npy",
        "`words.npy` must hold numbers; received <U3",
    ),
    "data that are no numbers": (
        "export m.keras m.tflite --check nan.npz",
        "`frames` in `nan.npz` must be finite",
    ),
    "a folder for data": ("export m.keras m.tflite --data folder", "received a folder"),
    "no tokens in an answer": (
        "export m.keras m.tflite --max-length 3",
        "`max_length` requires a `Seq2Seq`",
    ),
    "no file to inspect": ("inspect none.tflite", "none.tflite"),
    "text to inspect": ("inspect text", "must be a TFLite file"),
    "nothing to inspect": ("inspect empty", "must be a TFLite file"),
    "a broken file to inspect": ("inspect broken.tflite", "must be a TFLite file"),
    "a folder to inspect": ("inspect .", "Is a directory"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_written(what, rng, frames, capsys):
    saved(rk.GRU(4), rng=rng)
    np.save("other.npy", frames[..., :2])
    np.savez("x.npz", x=frames)
    for name in "text", "text.h5":
        Path(name).write_text("This is no such file, and not a short one either.")
    Path("empty").touch()
    Path("folder").mkdir()
    np.save("objects.npy", np.array([{}, None]))
    np.save("words.npy", np.array(["one", "two"]))
    np.savez("nan.npz", frames=np.full_like(frames, np.nan))
    Path("broken.npz").write_bytes(Path("x.npz").read_bytes()[:-50])
    Path("broken.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(range(100, 200)))
    before = set(Path().iterdir())
    command, message = WRONG[what]
    assert main(command.split()) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert message in err
    assert set(Path().iterdir()) == before


def test_a_shell_gets_json_and_no_word_beside_it(rng, tmp_path):
    """Whatever its settings say of Keras."""
    saved(rk.GRU(4), rng=rng)
    home = tmp_path / "home"
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text('{"backend": "torch"}')
    settings = {"PYTHONPATH": str(ROOT), "HOME": str(home), "KERAS_BACKEND": "jax"}
    for name in "KERAS_HOME", "TF_CPP_MIN_LOG_LEVEL":
        settings[name] = None
    command = "-m keras_rnnkit export m.keras m.tflite --json"
    out = subprocess.run(
        [sys.executable, *command.split()],
        env={k: v for k, v in (os.environ | settings).items() if v is not None},
        capture_output=True,
        text=True,
    )
    assert (out.returncode, out.stderr) == (0, "")
    assert json.loads(out.stdout)["size"] == Path("m.tflite").stat().st_size


def test_a_shell_gets_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["keras_rnnkit", "inspect", "none.tflite"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "keras_rnnkit/__main__.py"), run_name="__main__")
    assert end.value.code == 1
    assert "none.tflite" in capsys.readouterr().err


WRONG_ARGUMENTS = {
    "": "required: command",
    "expot m.keras m.tflite": "invalid choice: 'expot'",
    "export m.keras": "required: path",
    "export m.keras m.tflite --quantize int4": "invalid choice: 'int4'",
    "export m.keras m.tflite --form round": "invalid choice: 'round'",
    "export m.keras m.tflite --time-steps none": "a number >= 1, or any; received 'no",
    "export m.keras m.tflite --forecast any": "must be a number >= 1; received 'any'",
    "export m.keras m.tflite --max-length 1.5": "must be a number >= 1; received '1.5'",
    "export m.keras m.tflite --tolerance nan": "must be a number > 0; received 'nan'",
    "export m.keras m.tflite --import": "--import: expected one argument",
    "inspect m.tflite --streaming": "unrecognized arguments: --streaming",
    **{
        f"export m.keras m.tflite --batch-size {given}": "must be a number >= 1, or any"
        for given in ("0", "-1", "all", "model", "1e3", "²", str(2**31), "9" * 5000)
    },
}


@pytest.mark.parametrize("command", WRONG_ARGUMENTS, ids=lambda text: text[:50])
def test_wrong_arguments_are_one_line_and_exit_code_2(command, capsys):
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert WRONG_ARGUMENTS[command] in err
    assert len(err.splitlines()) == 1


def test_the_choices_are_those_of_the_package():
    assert set(command.QUANTIZE) == set(TOLERANCE) - {None}
    assert set(command.FORMS) == {"auto", *FORMS}


def test_every_option_has_a_help_text(capsys):
    for arguments in [], ["export"], ["inspect"]:
        with pytest.raises(SystemExit) as end:
            main([*arguments, "--help"])
        assert end.value.code == 0
        out = capsys.readouterr().out
        options = [line for line in out.splitlines() if line.startswith("  -")]
        lines = out.splitlines()
        for line in options:
            beside = re.search(r"\S  +\S", line.strip())
            assert beside or lines[lines.index(line) + 1].startswith(" " * 20), line
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"keras_rnnkit {rk.__version__}\n"


def test_help_does_not_wait_for_tensorflow():
    out = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "keras_rnnkit", "--help"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert out.stdout.startswith("usage: python -m keras_rnnkit")
    imported = {line.split("|")[-1].strip() for line in out.stderr.splitlines()}
    assert {"argparse", "keras_rnnkit"} <= imported
    assert not imported & {"tensorflow", "keras", "numpy", "keras_rnnkit.export"}


def test_the_script_is_the_same_command_and_as_quick(rng):
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    entry = config["options.entry_points"]["console_scripts"].strip()
    assert entry == "rnnkit = keras_rnnkit.__main__:main"
    code = "import sys\nfrom keras_rnnkit.__main__ import main\nsys.exit(main())\n"
    Path("rnnkit").write_text(code)

    def start(*arguments):
        return subprocess.run(
            [sys.executable, "-X", "importtime", "rnnkit", *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    for argument, shown in ("--help", "usage: rnnkit"), ("--version", "keras_rnnkit "):
        out = start(argument)
        assert out.returncode == 0
        assert out.stdout.startswith(shown)
        imported = {line.split("|")[-1].strip() for line in out.stderr.splitlines()}
        assert {"argparse", "keras_rnnkit"} <= imported
        assert not imported & {"tensorflow", "keras", "numpy", "keras_rnnkit.export"}
    saved(rk.LSTM(4), rng=rng)  # whose file needs all of the package
    out = start("export", "m.keras", "m.tflite", "--json")
    assert out.returncode == 0
    assert json.loads(out.stdout)["size"] == Path("m.tflite").stat().st_size


def test_a_module_registers_a_users_cell(rng, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("mycells.py").write_text(MODULE)
    code = "import mycells; mycells.model().save('mine.keras')"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert main(["export", "mine.keras", "mine.tflite"]) == 1
    message = capsys.readouterr().err
    assert "it has a `Mean` that Keras does not know" in message
    assert "--import" in message
    for wrong in "nothing_such", ".", "", "broken", "leaves":
        Path("broken.py").write_text("1 / 0")
        Path("leaves.py").write_text("raise SystemExit(0)")
        assert main(["export", "mine.keras", "mine.tflite", "--import", wrong]) == 1
        message = capsys.readouterr().err
        assert f"a module that can be imported; received {wrong!r}: " in message
    report = "export mine.keras mine.tflite --import mycells --json"
    assert main(report.split()) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["path"], err) == ("mine.tflite", "registered\n")
    x = rng.normal(size=(1, 5, 3)).astype("float32")
    mean = np.zeros((1, 3), "float32")
    for t in range(5):
        mean = (x[:, t] + mean) / 2
    assert_close(rk.TFLiteModel("mine.tflite")(x)["output_0"], mean)


MODULE = """
import keras

@keras.saving.register_keras_serializable("mine")
class Mean(keras.layers.Layer):
    state_size = output_size = 3

    def call(self, x, states):
        h = (x + states[0]) / 2
        return h, [h]

def model():
    return keras.Sequential([keras.Input((5, 3)), keras.layers.RNN(Mean())])

print("registered")  # which must not stand in the report
"""


def test_a_forecast_and_its_tolerance(rng, capsys):
    saved(rk.GRU(4), keras.layers.Dense(1), rng=rng, shape=(None, 1))
    x = rng.normal(size=(2, 8, 1)).astype("float32")
    np.save("x.npy", x)
    command = "export m.keras m.tflite --forecast 3 --check x.npy --tolerance 1e-4"
    report = json.loads(run(capsys, f"{command} --json"))
    assert report["calls"] == 6
    assert report["max_relative"] <= 1e-4
    expected = rk.forecast(keras.models.load_model("m.keras"), x, 3)
    file = rk.TFLiteModel("m.tflite")
    assert_close(file.predict(x)["output_0"], expected)
    Path("m.tflite").unlink()
    assert main([*command.split()[:-1], "1e-30"]) == 1
    assert "must agree with" in capsys.readouterr().err
    assert not Path("m.tflite").exists()


def test_an_interrupt_leaves_no_traceback(monkeypatch, capsys):
    def interrupted(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(rk, "inspect_tflite", interrupted)
    assert main(["inspect", "m.tflite"]) == 130
    assert capsys.readouterr() == ("", "")


def test_an_error_that_nobody_thought_of_is_a_line_too(monkeypatch, capsys):
    def broken(path):
        raise ZeroDivisionError("one\ntwo" + 5000 * "!")

    monkeypatch.setattr(rk, "inspect_tflite", broken)
    assert main(["inspect", "m.tflite"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ZeroDivisionError: one two!")
    assert len(message.splitlines()) == 1
    assert len(message) < 1200
