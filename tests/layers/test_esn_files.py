"""The echo state layer in files, in configurations and in models of other layers."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from tests.helpers import assert_close
from tests.layers.test_bad_input import assert_raises
from tests.layers.test_esn import FEATURES, STEPS, dense_and_sparse, draw, layer_of

SAVED = {
    "sparse": {"sparse": True, "connectivity": 0.3, "bias_scaling": 0.4},
    "matrix": {"topology": np.eye(8)[::-1] / 2, "spectral_radius": None},
    "feedback": {"feedback": 1, "feedback_scaling": 0.5, "input_scaling": [0.1, 2]},
}


def model_of(arguments, **options):
    layer = rk.ESN(8, **arguments, **options, name="esn")
    inputs = keras.Input((None, FEATURES), name="x")
    return keras.Sequential([inputs, layer, keras.layers.Dense(2)])


CHILD = """
import sys
import keras, keras_rnnkit, numpy as np
for path in sys.argv[1:]:
    given = np.load(path + ".npz")
    model = keras.saving.load_model(path + ".keras")
    np.testing.assert_array_equal(model(given["x"]), given["y"])
    np.testing.assert_array_equal(model.layers[0].cell.matrix, given["matrix"])
"""


def test_saved_models_come_back_in_a_fresh_process(rng, tmp_path):
    """Without a seed: what is loaded is in the file, and not drawn once more."""
    paths, (x, _) = [str(tmp_path / kind) for kind in SAVED], draw(rng)
    for path, arguments in zip(paths, SAVED.values(), strict=True):
        model = model_of(arguments, leak_rate=0.7)
        matrix = model.layers[0].cell.matrix
        model.save(path + ".keras")
        np.savez(path, x=x, y=model(x), matrix=matrix)
        again = keras.saving.load_model(path + ".keras")
        np.testing.assert_array_equal(again(x), model(x))
    run = [sys.executable, "-c", CHILD, *paths]
    out = subprocess.run(run, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr


@pytest.mark.parametrize("kind", SAVED)
def test_a_config_with_a_seed_is_the_whole_layer(kind):
    for layer in (rk.ESN, rk.ESNCell):
        made = layer(8, **SAVED[kind], seed=9)
        config = json.loads(json.dumps(made.get_config()))
        again = layer.from_config(config)
        assert again.get_config() == made.get_config()
        for each in (made, again):
            each.build((None, FEATURES) if layer is rk.ESNCell else (None, 5, FEATURES))
        for new, old in zip(again.get_weights(), made.get_weights(), strict=True):
            np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("kind", SAVED)
def test_keras_has_no_equal(kind, rng):
    inputs = keras.Input((STEPS, FEATURES))
    y = rk.ESN(8, **SAVED[kind], name="mine")(inputs)
    model = keras.Model(inputs, keras.layers.LSTM(2)(y))
    ours, (x, _) = rk.from_keras(model), draw(rng)
    assert [type(layer) for layer in ours.layers[1:]] == [rk.ESN, rk.LSTM]
    assert_close(ours(x), model(x))
    assert_raises("`mine` has no equivalent in Keras: it is a `ESN`", rk.to_keras, ours)


EXPORTS = [
    ("leaky", False, 7, "loop"),
    ("leaky", True, 7, "unrolled"),
    ("sparse", False, 7, "unrolled"),
    ("sparse", True, 7, "loop"),
    ("sparse ring", False, None, "loop"),
    ("sparse", True, None, "loop"),
]


def file_model(kind, masked):
    inputs = keras.Input((None, FEATURES), name="x")
    x = keras.layers.Masking()(inputs) if masked else inputs
    return keras.Model(inputs, keras.layers.Dense(2)(layer_of(kind)(x)))


def gaps(rng, steps, rows=1):
    x = rng.normal(size=(rows, steps, FEATURES)).astype("float32")
    return x * (rng.random((rows, steps, 1)) < 0.7)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("kind", "masked", "steps", "form"), EXPORTS)
def test_a_tflite_file_agrees(kind, masked, steps, form, rng, tmp_path):
    model, path = file_model(kind, masked), tmp_path / "m.tflite"
    report = rk.export_tflite(model, path, time_steps=steps, form=form)
    assert [layer["form"] for layer in report.layers.values()] == [form]
    file = rk.TFLiteModel(path)
    for length in [steps] * 2 if steps else [9, 1, 30]:
        x = gaps(rng, length)
        assert_close(file(x=x)["output_0"], model(x))


@dense_and_sparse
def test_a_file_of_8_bits_is_close(kind, rng, tmp_path):
    model, x = file_model(kind, False), gaps(rng, 7, rows=32)
    options = {"quantize": "int8", "representative_data": x}
    rk.export_tflite(model, tmp_path / "m.tflite", time_steps=7, **options)
    got = rk.TFLiteModel(tmp_path / "m.tflite").predict(x=x)["output_0"]
    expected = model(x).numpy()
    assert np.abs(got - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "masked"), [("leaky", False), ("sparse", True)])
def test_a_stream_gives_the_states_of_the_whole(kind, masked, rng, tmp_path):
    model, x = file_model(kind, masked), gaps(rng, STEPS)
    rk.export_tflite(model, tmp_path / "m.tflite", streaming=True, time_steps=2)
    file = rk.StreamingModel(tmp_path / "m.tflite")
    got = [file.step(x[:, t : t + 2]) for t in range(0, STEPS, 2)]
    assert_close(np.concatenate(got, axis=1), model(x))
