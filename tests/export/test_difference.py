"""A fault in a part of the outputs is found, however small that part is."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_rnnkit as rk
from keras_rnnkit.export import verification
from keras_rnnkit.export.difference import Differences
from tests.helpers import randomize

ROWS, STEPS, FEATURES = 60, 12, 10


@pytest.fixture
def y(rng):
    return rng.normal(size=(ROWS, STEPS, FEATURES)).astype("float32")


def differences(x, y, step=0.0, inputs=None):
    """Row by row."""
    calls = inputs or [{"x": np.ones((1, 1), "float32")}] * len(y)
    found = Differences("m", calls, {"output_0": step})
    for got, want in zip(x, y, strict=True):
        found.add({"output_0": got[None]}, {"output_0": want[None]})
    return found


def noisy(y, rng, share=0.05):
    return y + share * rng.normal(size=y.shape).astype("float32")


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (np.s_[..., 3], "feature 3 of `output_0`"),
        (np.s_[:, 7], "step 7 of `output_0`"),
        (np.s_[..., 5:], "feature [5-9] of `output_0`"),
    ],
)
@pytest.mark.parametrize(
    "fault",
    [lambda y: 1.3 * y, lambda y: 0.75 * y, lambda y: y + 0.5, lambda y: 0 * y],
    ids=["large", "small", "shifted", "zero"],
)
def test_a_fault_in_a_part_is_found(part, name, fault, y, rng):
    x = noisy(y, rng)
    differences(x, y).check(0.2, quantized=True)
    x[part] = fault(x[part])
    found = differences(x, y)
    assert found.summary()["rms_relative"] < 1
    with pytest.raises(ValueError, match="must agree with `m`"):
        found.check(0.2, quantized=True)
    assert re.fullmatch(name, found.worst_part().name)


def test_a_feature_of_small_values_is_held_to_these(y, rng):
    y[..., 2] *= 1e-3
    x = y * (1 + 0.01 * rng.normal(size=y.shape).astype("float32"))
    differences(x, y).check(0.2, quantized=True)
    x[..., 2] *= 1.5
    found = differences(x, y)
    assert found.summary()["rms_relative"] < 0.02
    with pytest.raises(ValueError, match="feature 2 of `output_0`"):
        found.check(0.2, quantized=True)
    # Values that are multiples of 0.01 cannot tell of it.
    differences(x, y, step=0.01).check(0.2, quantized=True)


def test_rows_of_small_inputs_are_held_to_their_own_outputs(y, rng):
    scale = np.repeat([0.01, 1, 100], ROWS // 3)[:, None, None].astype("float32")
    y, inputs = y * scale, [{"x": each} for each in np.ones((ROWS, 1, 1)) * scale]
    x = y * (1 + 0.01 * rng.normal(size=y.shape).astype("float32"))
    differences(x, y, inputs=inputs).check(0.2, quantized=True)
    x[: ROWS // 3] *= 1.5
    with pytest.raises(ValueError, match="of the rows of small inputs"):
        differences(x, y, inputs=inputs).check(0.2, quantized=True)


def test_a_file_in_floats_is_held_to_more(y, rng):
    x = y * (1 + 1e-7 * rng.normal(size=y.shape).astype("float32"))
    differences(x, y).check(1e-5, quantized=False)
    x = y.copy()
    x[3, 4, 5] += 1e-4 * abs(y).max()
    with pytest.raises(ValueError, match="a largest difference of 1.0e-04"):
        differences(x, y).check(1e-5, quantized=False)
    y[..., 2] *= 1e-4
    x = y.copy()
    x[..., 2] *= 0.97
    with pytest.raises(ValueError, match="in feature 2 of `output_0`"):
        differences(x, y).check(1e-5, quantized=False)


def test_a_few_values_that_are_small_by_chance_are_no_fault(rng):
    y = rng.normal(size=(1, FEATURES)).astype("float32")
    y[0, 4] = 1e-6
    differences(noisy(y, rng), y).check(0.2, quantized=True)


def test_classes_are_counted_where_there_are_some(rng):
    logits = rng.normal(size=(ROWS, 5)).astype("float32")
    y = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    x = y.copy()
    x[:3] = np.roll(y[:3], 1, axis=1)
    assert differences(x, y).summary()["agreement"] == 57 / 60
    assert differences(logits, logits).summary()["agreement"] is None


def test_what_is_not_finite_has_to_be_so_in_both(y):
    y[1, 2, 3], y[1, 2, 4] = np.nan, -np.inf
    differences(y, y).check(1e-5, quantized=False)
    x = y.copy()
    x[1, 2, 3] = 0
    with pytest.raises(
        ValueError, match=r"received 0.0 .* itself gives nan, .* row 1 .*\[2, 3\]"
    ):
        differences(x, y)
    x = y.copy()
    x[5, 0, 0] = np.inf
    with pytest.raises(ValueError, match=r"received inf .* itself gives -?\d.* in row"):
        differences(x, y)


def test_a_model_that_gives_nan_is_exported_as_it_is(rng, tmp_path):
    inputs = keras.Input((6,), dtype="int32", name="x")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = layers.GlobalAveragePooling1D()(layers.GRU(4, return_sequences=True)(x))
    model = keras.Model(inputs, layers.Dense(2)(x))
    words = np.array([[1, 2, 3, 0, 0, 0], [0, 0, 0, 0, 0, 0]], "int32")
    assert np.isnan(model(words)[1]).all()
    path = tmp_path / "m.tflite"
    report = rk.export_tflite(model, path, check=words)
    assert report.max_relative < 1e-5
    got = rk.TFLiteModel(path).predict(x=words)["output_0"]
    np.testing.assert_allclose(got, model(words), atol=1e-5)


def test_a_saved_model_that_answers_otherwise_is_not_written(
    rng, tmp_path, monkeypatch
):
    """It is loaded and run in several sizes before it appears."""
    inputs = keras.Input((None, 3), name="x")
    model = keras.Model(inputs, rk.GRU(4, return_sequences=True)(inputs))
    randomize(model, rng)
    sizes = []

    class Spy(Differences):
        def add(self, received, expected):
            sizes.append(expected["output_0"].shape)
            super().add(received, expected)

    monkeypatch.setattr(verification, "Differences", Spy)
    rk.export_saved_model(model, tmp_path / "right")
    assert len(set(sizes)) == 3

    def one_step_off(folder):
        loaded = load(folder)
        run = loaded.signatures["serving_default"]

        def wrong(x):
            return {"output_0": tf.roll(run(x=x)["output_0"], 1, axis=1)}

        loaded.signatures = {"serving_default": wrong}
        return loaded

    load = tf.saved_model.load
    monkeypatch.setattr(tf.saved_model, "load", one_step_off)
    with pytest.raises(ValueError, match="`serving_default`.*nothing was written"):
        rk.export_saved_model(model, tmp_path / "wrong")
    assert [path.name for path in tmp_path.iterdir()] == ["right"]


@keras.saving.register_keras_serializable("test_difference")
class Noise(layers.Layer):
    """Draws at random when it is called, in inference too."""

    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


def test_a_model_that_draws_at_random_says_what_to_do(tmp_path):
    model = keras.Sequential([keras.Input((5, 3), name="x"), Noise(), rk.GRU(4)])
    with pytest.raises(ValueError, match="draws at random.*`check=False`"):
        rk.export_saved_model(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    rk.export_saved_model(model, tmp_path / "m", check=False)
    run = tf.saved_model.load(tmp_path / "m").signatures["serving_default"]
    assert run(x=tf.zeros((2, 5, 3)))["output_0"].shape == (2, 4)


def test_a_stateful_model_keeps_its_states(rng, tmp_path):
    model = keras.Sequential(
        [keras.Input((5, 3), batch_size=2, name="x"), rk.LSTM(4, stateful=True)]
    )
    randomize(model, rng)
    model(rng.normal(size=(2, 5, 3)).astype("float32"))
    before = [state.numpy() for state in model.layers[0].states]
    rk.export_saved_model(model, tmp_path / "m")
    for state, value in zip(model.layers[0].states, before, strict=True):
        np.testing.assert_array_equal(state, value)
