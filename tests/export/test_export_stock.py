"""Models of stock Keras export as they are, whatever stands around their layers."""

import keras
import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator
from keras import layers

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize


def classifier():
    """Which kind of text: words, zeros behind the last one."""
    x = words = keras.Input((9,), dtype="int32", name="x")
    x = layers.Embedding(20, 6, mask_zero=True)(x)
    x = layers.Bidirectional(layers.LSTM(5))(x)
    return keras.Model(words, layers.Dense(3, activation="softmax")(x))


def crnn():
    """What stands in an image of a line of text: characters, column by column."""
    x = image = keras.Input((8, 24, 1), name="x")
    for filters in (3, 4):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Permute((2, 1, 3))(x)
    x = layers.Reshape((6, 8))(x)
    for units in (5, 4):
        x = layers.Bidirectional(layers.LSTM(units, return_sequences=True))(x)
    return keras.Model(image, layers.Dense(11, activation="softmax")(x))


def forecaster():
    """The next two values of three series."""
    return keras.Sequential(
        [
            keras.Input((12, 3), name="x"),
            layers.LSTM(6, return_sequences=True),
            layers.Dropout(0.2),
            layers.LSTM(5),
            layers.Dense(2),
        ]
    )


def tagger():
    """A tag for each word, in sentences of any length."""
    x = words = keras.Input((None,), dtype="int32", name="x")
    x = layers.Embedding(20, 6)(x)
    x = layers.GRU(5, return_sequences=True)(x)
    return keras.Model(words, layers.Dense(4, activation="softmax")(x))


def video():
    """What happens in a film: a network for images on each frame."""
    x = frames = keras.Input((5, 8, 8, 1), name="x")
    x = layers.TimeDistributed(layers.Conv2D(3, 3, activation="relu"))(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return keras.Model(frames, layers.Dense(3)(layers.LSTM(4)(x)))


def convolutions():
    """Waves, with no recurrent layer at all."""
    x = waves = keras.Input((16, 2), name="x")
    x = layers.Conv1D(4, 3, activation="relu")(x)
    x = layers.GlobalMaxPooling1D()(x)
    return keras.Model(waves, layers.Dense(3)(x))


def convolutions_below():
    x = waves = keras.Input((16, 2), name="x")
    x = layers.Conv1D(4, 3, strides=2, padding="causal", activation="relu")(x)
    return keras.Model(waves, layers.SimpleRNN(4, return_sequences=True)(x))


def attention():
    x = frames = keras.Input((7, 3), name="x")
    x = layers.LSTM(6, return_sequences=True)(x)
    x = layers.Attention()([x, x])
    return keras.Model(frames, layers.GlobalAveragePooling1D()(x))


def heads():
    x = frames = keras.Input((7, 3), name="x")
    x = layers.LSTM(6, return_sequences=True)(x)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 3)(x, x))
    return keras.Model(frames, layers.Dense(2)(x))


def nested():
    """A model of sequences within a model of sequences of them."""
    words = keras.Sequential(
        [keras.Input((4, 3)), layers.Masking(), layers.GRU(5)], name="words"
    )
    x = text = keras.Input((6, 4, 3), name="x")
    x = layers.TimeDistributed(words)(x)
    within = keras.Sequential([keras.Input((6, 5)), layers.LSTM(4)], name="within")
    return keras.Model(text, layers.Dense(2)(within(x)))


ARCHITECTURES = [classifier, crnn, forecaster, tagger, video]
AROUND = [convolutions, convolutions_below, attention, heads, nested]
SIZES = (1, 6), (4, 6), (2, 11)  # rows and steps of calls, where the file takes any


def draw(model, rng, rows, steps):
    """Inputs of a model: tokens with zeros at the end, or normal values."""
    shape = (rows, steps, *model.inputs[0].shape[2:])
    if "int" not in model.inputs[0].dtype:
        return rng.normal(size=shape).astype("float32")
    tokens = rng.integers(1, 20, shape, dtype="int32")
    return tokens * (np.arange(steps) < rng.integers(1, steps + 1, (rows, 1)))


def assert_file_equals(model, path, inputs):
    """The file answers as the model does, call by call and all calls once more."""
    file = rk.TFLiteModel(path)
    expected = [model(x) for x in inputs]
    for x, y in 2 * list(zip(inputs, expected, strict=True)):
        assert_close(file(**x) if isinstance(x, dict) else file(x=x), y)


def assert_builtin(ops):
    assert "CUSTOM" not in ops
    assert all(hasattr(BuiltinOperator, op) for op in ops)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("batch_size", [1, None])
@pytest.mark.parametrize("make", ARCHITECTURES + AROUND)
def test_a_stock_model_exports_as_it_is(make, batch_size, rng, tmp_path):
    model, path = make(), tmp_path / "m.tflite"
    randomize(model, rng)
    known = model.inputs[0].shape[1]
    check = draw(model, rng, 3, known or 6)
    report = rk.export_tflite(model, path, batch_size=batch_size, check=check)
    sizes = [(batch_size or rows, known or steps) for rows, steps in SIZES]
    assert_file_equals(model, path, [draw(model, rng, *size) for size in sizes])
    assert_builtin(report.ops)


def test_inputs_and_outputs_keep_their_names(rng, tmp_path):
    inputs = {
        "sound": keras.Input((7, 3), name="sound"),
        "words": keras.Input((5,), dtype="int32", name="words"),
    }
    x = layers.GRU(4)(inputs["sound"])
    words = layers.Embedding(20, 6, mask_zero=True)(inputs["words"])
    y = layers.LSTM(4, return_sequences=True)(words, initial_state=[x, x])
    outputs = {"tags": layers.Dense(3)(y), "mood": layers.Dense(2)(x)}
    model, path = keras.Model(inputs, outputs), tmp_path / "m.tflite"
    randomize(model, rng)

    def data(rows):
        return {
            "sound": rng.normal(size=(rows, 7, 3)).astype("float32"),
            "words": rng.integers(0, 20, (rows, 5), dtype="int32"),
        }

    report = rk.export_tflite(model, path, batch_size=2, check=data(6))
    assert_file_equals(model, path, [data(2) for _ in range(3)])
    assert_builtin(report.ops)


@pytest.mark.parametrize(
    ("make", "time_steps", "lengths"),
    [(attention, None, (7, 2)), (forecaster, None, (12, 1, 30)), (tagger, 12, (12,))],
)
def test_the_number_of_steps_can_be_changed(make, time_steps, lengths, rng, tmp_path):
    model, path = make(), tmp_path / "m.tflite"
    randomize(model, rng)
    check = draw(model, rng, 2, lengths[0])
    report = rk.export_tflite(model, path, time_steps=time_steps, check=check)
    (shape,) = report.signatures["serving_default"]["inputs"].values()
    assert shape.startswith(f"(1, {time_steps or -1}")
    # `call` is not held to the steps of the model's input.
    inputs = [draw(model, rng, 1, steps) for steps in lengths]
    assert_file_equals(model.call, path, inputs)
    assert_builtin(report.ops)
