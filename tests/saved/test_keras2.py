"""Models that Keras 2 saved give the answers that Keras 2 gave.

`tf_keras` wrote the files under `data/keras2`; `make.py` there says how.
"""

import io
import shutil
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from keras_rnnkit.__main__ import main
from tests.helpers import assert_close

FOLDER = Path(__file__).parents[1] / "data" / "keras2"
REFUSED = "own_code", "time_major"
FILES = sorted(
    path
    for path in FOLDER.iterdir()
    if path.suffix in (".h5", ".keras") and path.stem not in REFUSED
)


def answers(path):
    """The inputs by name, and what Keras 2 answered."""
    arrays = dict(np.load(path.with_suffix(".npz")))
    return arrays, arrays.pop("y")


def predicted(model, inputs):
    """What a model answers; its inputs are in the order that they were saved in."""
    arrays = list(inputs.values())
    return model.predict(arrays if len(arrays) > 1 else arrays[0], verbose=0)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_a_file_of_keras_2_gives_its_answers(path, tmp_path):
    inputs, y = answers(path)
    model = rk.load_model(path)
    tolerance = 1e-3 if path.stem == "half" else 1e-5
    np.testing.assert_allclose(predicted(model, inputs), y, atol=tolerance)
    # It is a model of Keras 3, which Keras saves and loads by itself.
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(predicted(again, inputs), y, atol=tolerance)


def test_its_hard_sigmoid_is_another_one():
    x = np.linspace(-4, 4, 50, dtype="float32")
    expected = np.clip(0.2 * x + 0.5, 0, 1)
    function = rk.saved.keras2_hard_sigmoid
    assert_close(function(x), expected)
    again = keras.activations.deserialize(keras.activations.serialize(function))
    assert again is function
    theirs = np.asarray(keras.activations.hard_sigmoid(x))
    assert np.abs(theirs - expected).max() > 0.05


@pytest.mark.parametrize("name", ["lstm.h5", "two_inputs.keras", "images.h5"])
def test_it_becomes_a_file_for_the_phone(name, tmp_path, capsys):
    path = tmp_path / "m.tflite"
    assert main(["export", str(FOLDER / name), str(path)]) == 0, capsys.readouterr()
    inputs, y = answers(FOLDER / name)
    file = rk.TFLiteModel(path)
    if len(inputs) == 1:
        inputs = dict(zip(file.input_names, inputs.values(), strict=True))
    assert_close(file.predict(**inputs)["output_0"], y)


def test_the_code_of_a_lambda_runs_if_it_is_asked_to():
    path = FOLDER / "own_code.h5"
    with pytest.raises(ValueError, match="a Lambda layer, whose code would be run"):
        rk.load_model(path)
    if sys.version_info[:2] == (3, 11):  # that the file's code was compiled by
        inputs, y = answers(path)
        model = rk.load_model(path, unsafe=True)
        np.testing.assert_allclose(predicted(model, inputs), y, atol=1e-5)


def test_time_first_is_refused_with_a_remedy():
    pattern = "layer `lstm.*` has `time_major=True`.*build the model with `time_major=F"
    with pytest.raises(ValueError, match=pattern):
        rk.load_model(FOLDER / "time_major.h5")


@pytest.mark.parametrize("name", ["lstm.h5", "lstm.keras"])
def test_the_content_counts_and_not_the_suffix(name, tmp_path):
    inputs, y = answers(FOLDER / name)
    for other in "lstm", "lstm.h5", "lstm.keras", "lstm.weights.h5":
        shutil.copy(FOLDER / name, tmp_path / other)
        assert_close(predicted(rk.load_model(tmp_path / other), inputs), y)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_files_of_keras_3_are_loaded_by_any_name(suffix, rng, tmp_path):
    model = keras.Sequential([keras.Input((4, 3)), rk.LSTM(3), keras.layers.Dense(2)])
    model.save(tmp_path / f"m{suffix}")
    (tmp_path / f"m{suffix}").rename(tmp_path / "m.bin")
    x = rng.normal(size=(2, 4, 3)).astype("float32")
    loaded = rk.load_model(tmp_path / "m.bin")
    assert isinstance(loaded.layers[0], rk.LSTM)
    assert not loaded.compiled
    assert_close(loaded(x), model(x))


class Doubled(keras.layers.Layer):
    """A user's layer; the file has it under another name."""

    def __init__(self, factor=2.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, x):
        return self.factor * x

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def with_layer(path, class_name, **arguments):
    """Writes an .h5 file whose `Dropout` is a layer of another class."""
    shutil.copy(FOLDER / "lstm.h5", path)
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"]
        config = config.decode() if isinstance(config, bytes) else config
        given = "".join(f', "{key}": {value}' for key, value in arguments.items())
        config = config.replace(
            '"class_name": "Dropout"', f'"class_name": "{class_name}"'
        )
        config = config.replace(
            ', "rate": 0.3, "noise_shape": null, "seed": null', given
        )
        file.attrs["model_config"] = config


def test_a_users_layer_is_found(tmp_path):
    with_layer(tmp_path / "m.h5", "Mine", factor=1.0)
    pattern = r"layer `dropout.*` is of the class `Mine`.*--import.*custom_objects"
    with pytest.raises(ValueError, match=pattern):
        rk.load_model(tmp_path / "m.h5")
    inputs, y = answers(FOLDER / "lstm.h5")
    model = rk.load_model(tmp_path / "m.h5", custom_objects={"Mine": Doubled})
    assert_close(predicted(model, inputs), y)


def test_a_function_between_layers_is_refused_with_a_remedy(tmp_path):
    with_layer(tmp_path / "m.h5", "TFOpLambda", function='"math.multiply"')
    pattern = "layer `dropout.*` is a TensorFlow function.*of `keras.ops` in its place"
    with pytest.raises(ValueError, match=pattern):
        rk.load_model(tmp_path / "m.h5")


def test_an_argument_with_an_effect_is_not_left_out(tmp_path):
    with_layer(tmp_path / "m.h5", "Flatten", sideways="true")
    pattern = "`Flatten` has `sideways=True`, which Keras 3 does not have"
    with pytest.raises(ValueError, match=pattern):
        rk.load_model(tmp_path / "m.h5")


def test_weights_that_do_not_fit_are_refused(tmp_path):
    shutil.copy(FOLDER / "lstm.h5", tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        names = file["model_weights"].attrs["layer_names"]
        file["model_weights"].attrs["layer_names"] = names[:-1]
    with pytest.raises(ValueError, match="must have 8 weights for .*; received 6"):
        rk.load_model(tmp_path / "m.h5")
    shutil.copy(FOLDER / "order.keras", tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    weights = io.BytesIO(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        del file["layers/lstm_1"]
    parts["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="must have 12 weights for .*; received 9"):
        rk.load_model(tmp_path / "m.keras")


def make_wrong(tmp_path):
    """Files and folders that hold no model."""
    model = keras.Sequential([keras.Input((4, 3)), rk.LSTM(2)])
    model.save_weights(tmp_path / "m.weights.h5")
    model.export(tmp_path / "saved_model", verbose=False)
    rk.export_tflite(model, tmp_path / "m.tflite")
    (tmp_path / "empty.keras").touch()
    (tmp_path / "text.keras").write_text("no model")
    cut = (FOLDER / "lstm.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(cut[: len(cut) // 2])
    cut = (FOLDER / "lstm.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(cut[: len(cut) // 2])
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    (tmp_path / "old.h5").write_bytes((FOLDER / "old.h5").read_bytes())
    with h5py.File(tmp_path / "old.h5", "r+") as file:
        file.attrs["keras_version"] = "1.2.2"


WRONG = {
    "none.keras": "there is no file",
    "saved_model": "received a SavedModel, which has no layers",
    ".": "received a folder",
    "m.weights.h5": "it holds weights without a model",
    "m.tflite": "received a TFLite file",
    "empty.keras": "received an empty file",
    "text.keras": "it is damaged, or not a Keras file",
    "cut.h5": "Keras cannot load",
    "cut.keras": "it is damaged, or not a Keras file",
    "x.npz": "the archive has no `config.json`",
    "old.h5": "it is a file of Keras 1.2.2",
}


def test_what_is_no_model_is_named(tmp_path):
    make_wrong(tmp_path)
    for name, message in WRONG.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            rk.load_model(tmp_path / name)
        assert len(str(error.value)) < 600
        assert "\n" not in str(error.value)
