"""Exported files give the answers of the model, wherever they are run."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.helpers import randomize

LAYERS = {
    "SimpleRNN": lambda: rk.SimpleRNN(5),
    "LSTM": lambda: rk.LSTM(5, return_sequences=True),
    "GRU": lambda: rk.GRU(5, go_backwards=True),
    "GRU, reset before": lambda: rk.GRU(5, reset_after=False, unroll=True),
    "LSTM, options": lambda: rk.LSTM(
        6, peephole=True, projection_units=4, layer_norm=True, zoneout=0.1
    ),
    "Bidirectional": lambda: rk.Bidirectional(rk.LSTM(5, return_sequences=True)),
    "StackedRNN": lambda: rk.StackedRNN(
        [rk.Bidirectional(rk.GRU(3)), rk.LSTM(6)], residual=True, dropout=0.1
    ),
    "ESN": lambda: rk.ESN(5, leak_rate=0.4, bias_scaling=1.0),
    "RNN of cells": lambda: rk.RNN([rk.GRUCell(4), rk.LSTMCell(3)]),
}


def model_of(layer, rng, masked=True):
    frames = keras.Input((7, 3), name="frames")
    x = keras.layers.Masking()(frames) if masked else frames
    model = keras.Model(frames, keras.layers.Dense(2)(layer(x)))
    randomize(model, rng)
    return model


def frames(rng, rows=4):
    """Sequences of several lengths, with zeros behind their end."""
    x = rng.normal(size=(rows, 7, 3)).astype("float32")
    lengths = rng.integers(0, 8, rows)
    return np.where(np.arange(7)[:, None] < lengths[:, None, None], x, 0)


@pytest.mark.parametrize("kind", LAYERS)
def test_tflite_equals_keras_on_call_after_call_with_builtin_ops(kind, rng, tmp_path):
    model = model_of(LAYERS[kind](), rng)
    x = frames(rng)
    report = rk.export_tflite(model, tmp_path / "m.tflite", check=x)
    lite = rk.TFLiteModel(tmp_path / "m.tflite")
    expected = np.asarray(model(x))
    for _ in range(2):
        got = lite.predict(frames=x)["output_0"]
        assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    assert not [op for op in report.ops if "Flex" in op or op == "CUSTOM"]
    assert report.size == (tmp_path / "m.tflite").stat().st_size
    assert report.parameters == model.count_params()
    assert report.calls == 4
    assert json.loads(report.to_json())["ops"] == report.ops
    assert f"{report.parameters:,}" in str(report)


def test_tflite_takes_a_batch_and_lengths(rng, tmp_path):
    inputs = {
        "x": keras.Input((7, 3), name="x"),
        "lengths": keras.Input((), dtype="int32", name="lengths"),
    }
    layer = rk.LSTM(4, return_sequences=True, return_state=True)
    y, h, c = layer(inputs["x"], lengths=inputs["lengths"])
    model = keras.Model(inputs, {"y": y, "h": h, "c": c})
    x, lengths = frames(rng), np.array([7, 0, 3, 1], np.int32)
    rk.export_tflite(model, tmp_path / "m.tflite", batch_size=2)
    got = rk.TFLiteModel(tmp_path / "m.tflite").predict(x=x, lengths=lengths)
    expected = model({"x": x, "lengths": lengths})
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=1e-6)


def test_stock_models_export_once_their_layers_are_replaced(rng, tmp_path):
    model = model_of(keras.layers.Bidirectional(keras.layers.GRU(4)), rng)
    rk.export_tflite(rk.from_keras(model), tmp_path / "m.tflite", check=frames(rng))
    x = frames(rng)
    got = rk.TFLiteModel(tmp_path / "m.tflite").predict(frames=x)["output_0"]
    np.testing.assert_allclose(got, model(x), atol=1e-6)


def test_saved_model_runs_in_a_process_without_keras(rng, tmp_path):
    model = model_of(LAYERS["StackedRNN"](), rng)
    x = frames(rng, rows=3)
    rk.export_saved_model(model, tmp_path / "saved")
    np.savez(tmp_path / "data.npz", x=x, y=model(x))
    child = """
import sys
sys.modules["keras"] = sys.modules["keras_rnnkit"] = None
import numpy as np, tensorflow as tf
data = np.load("data.npz")
run = tf.saved_model.load("saved").signatures["serving_default"]
y = run(frames=tf.constant(data["x"]))["output_0"]
print("difference", np.abs(y - data["y"]).max())
"""
    out = subprocess.run(
        [sys.executable, "-c", child], cwd=tmp_path, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert float(out.stdout.split()[-1]) < 1e-6


class Noise(keras.layers.Layer):
    """Never the same answer twice: no export of it can be right."""

    def call(self, x):
        return x + tf.random.uniform(tf.shape(x))


@pytest.mark.parametrize("earlier", [None, b"an earlier export"])
def test_a_wrong_export_raises_and_leaves_what_was_there(earlier, rng, tmp_path):
    path = tmp_path / "m.tflite"
    if earlier:
        path.write_bytes(earlier)
    model = keras.Sequential([keras.Input((3, 2)), rk.GRU(2), Noise()])
    with pytest.raises(ValueError, match=r"must agree with `sequential\w*` to 1e-05"):
        rk.export_tflite(model, path)
    assert (path.read_bytes() if earlier else path.exists()) == (earlier or False)
    assert list(tmp_path.iterdir()) == ([path] if earlier else [])


def test_an_export_takes_the_place_of_an_earlier_one(rng, tmp_path):
    for _ in range(2):
        model = model_of(rk.GRU(2), rng)
        rk.export_saved_model(model, tmp_path / "saved")
    x = frames(rng)
    run = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    np.testing.assert_allclose(run(frames=x)["output_0"], model(x), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda: keras.Sequential([rk.GRU(2)]), {}, "the model must be built"),
        (lambda: model_of(rk.GRU(2), np.random), {"batch_size": 0}, "`batch_size`.*0"),
        (
            lambda: model_of(rk.GRU(2), np.random),
            {"batch_size": 3, "check": np.zeros((2, 7, 3), "float32")},
            "`check` must hold 1 arrays of at least `batch_size` = 3 ",
        ),
        (
            lambda: model_of(rk.GRU(2), np.random),
            {"check": False},
            "`check` must be True or data to compare on.*False",
        ),
    ],
)
def test_bad_input_raises_and_writes_nothing(make, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        rk.export_tflite(make(), tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())
