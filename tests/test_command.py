"""The command line gives files from files, and says what is wrong with them."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from keras_rnnkit.__main__ import main
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
        "must hold 1 arrays",
    ),
    "no batch": (
        "export m.keras m.tflite --batch-size 0",
        "`batch_size` must be a pos",
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


def test_a_shell_gets_json_and_no_word_beside_it(rng):
    saved(rk.GRU(4), rng=rng)
    command = "-m keras_rnnkit export m.keras m.tflite --json"
    out = subprocess.run(
        [sys.executable, *command.split()],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout)["size"] == Path("m.tflite").stat().st_size


def test_a_shell_gets_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["keras_rnnkit", "inspect", "none.tflite"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "keras_rnnkit/__main__.py"), run_name="__main__")
    assert end.value.code == 1
    assert "none.tflite" in capsys.readouterr().err
