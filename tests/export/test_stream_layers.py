"""Layers around the recurrent ones stream, or are named before anything is written."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize

CAUSAL = {"padding": "causal"}


def functional(make, *, shape=(None, 3), rng=None):
    inputs = keras.Input(shape, name="frames")
    model = keras.Model(inputs, make(inputs))
    rng = np.random.default_rng(1) if rng is None else rng
    randomize(model, rng, scale=0.4)
    for weight in model.weights:
        if "variance" in weight.path:
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return model


def in_a_row(*stack, **arguments):
    def make(x):
        for layer in stack:
            x = layer(x)
        return x

    return functional(make, **arguments)


def gru():
    return layers.GRU(4, return_sequences=True)


def wake_word():
    """As such networks are: fixed steps, normalized convolutions, a recurrent layer."""
    return in_a_row(
        layers.Conv1D(6, 5, use_bias=False, **CAUSAL),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Dropout(0.2),
        layers.Conv1D(5, 3, activation="relu", dilation_rate=3, **CAUSAL),
        layers.Conv1D(4, 1, padding="same"),
        gru(),
        layers.Dense(2, activation="softmax"),
        shape=(48, 3),
    )


def residual():
    def make(x):
        x = layers.Conv1D(4, 1)(x)
        for rate in (1, 2, 4):
            y = layers.Conv1D(4, 3, dilation_rate=rate, groups=2, **CAUSAL)(x)
            x = layers.LayerNormalization()(layers.Add()([x, ops.tanh(y)]))
        return gru()(x)

    return functional(make)


def shared():
    """One convolution with two calls, and so two states; in a nested model too."""
    convolution = layers.Conv1D(3, 3, **CAUSAL)
    nested = keras.Sequential([keras.Input((48, 3)), convolution, layers.ReLU()])
    return functional(lambda x: gru()(nested(convolution(x))), shape=(48, 3))


def padded(convolution):
    return lambda: in_a_row(layers.ZeroPadding1D((4, 0)), convolution(), gru())


def above():
    return in_a_row(gru(), layers.Conv1D(3, 4, activation="tanh", **CAUSAL))


def without_recurrence():
    rates = {"dilation_rate": 8, **CAUSAL}
    return in_a_row(layers.Conv1D(4, 3, **CAUSAL), layers.Conv1D(2, 3, **rates))


STREAMS = {
    "wake word": (wake_word, 3),
    "residual": (residual, 4),
    "shared": (shared, 3),
    "padding, Conv1D": (padded(lambda: layers.Conv1D(4, 3, dilation_rate=2)), 2),
    "padding, separable": (padded(lambda: layers.SeparableConv1D(4, 5)), 2),
    "padding, depthwise": (padded(lambda: layers.DepthwiseConv1D(5)), 2),
    "above": (above, 2),
    "without recurrence": (without_recurrence, 2),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("time_steps", [1, 4, None])
@pytest.mark.parametrize("kind", STREAMS)
def test_convolutions_that_look_back_stream(kind, time_steps, rng, tmp_path):
    make, states = STREAMS[kind]
    model = make()
    options = {"streaming": True, "time_steps": time_steps, "batch_size": 2}
    rk.export_tflite(model, tmp_path / "m.tflite", **options)
    file = rk.StreamingModel(tmp_path / "m.tflite")
    assert len(file.states) == states
    assert all(not np.any(state) for state in file.states.values())
    x = rng.normal(size=(2, 48, 3)).astype("float32")
    ends = [1, 2, 5, 25] if time_steps is None else range(time_steps, 48, time_steps)
    for _ in range(2):
        got = [file.step(part) for part in np.split(x, ends, axis=1)]
        assert_close(np.concatenate(got, axis=1), model(x))
        file.reset()


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("quantize", "bound"),
    [("float16", 0.005), ("dynamic", 0.02), ("int8", 0.1), ("int16x8", 0.04)],
)
def test_a_convolution_and_what_it_saw_are_quantized(quantize, bound, rng, tmp_path):
    relu = layers.Conv1D(8, 3, dilation_rate=2, activation="relu", **CAUSAL)
    model = in_a_row(relu, layers.Conv1D(8, 3, **CAUSAL), layers.GRU(8), shape=(20, 3))
    x = rng.uniform(-2, 2, (64, 20, 3)).astype("float32")
    options = {"quantize": quantize, "representative_data": x, "streaming": True}
    rk.export_tflite(model, tmp_path / "m.tflite", **options)
    file = rk.StreamingModel(tmp_path / "m.tflite")
    for row in 0.9 * x[:5, None]:
        file.reset()
        for t in range(20):
            got = file.step(row[:, [t]])
        expected = np.asarray(model(row))
        assert np.abs(got - expected).max() < bound * np.abs(expected).max()


class Back(layers.Layer):
    """Adds the input of 40 steps ago, which a short sequence does not show."""

    def call(self, x):
        steps = ops.shape(x)[1]
        return x + ops.pad(x, [[0, 0], [40, 0], [0, 0]])[:, :steps]


def attention(x):
    return layers.Attention(name="look")([x, x])


NAMED = {
    "same": lambda: in_a_row(layers.Conv1D(3, 3, padding="same", name="look"), gru()),
    "valid": lambda: in_a_row(layers.Conv1D(3, 3, name="look"), gru()),
    "strides": lambda: in_a_row(
        layers.Conv1D(3, 3, strides=2, name="look", **CAUSAL), gru()
    ),
    "too few zeros": lambda: in_a_row(
        layers.ZeroPadding1D((1, 0), name="look"), layers.Conv1D(3, 3), gru()
    ),
    "zeros behind": lambda: in_a_row(gru(), layers.ZeroPadding1D((0, 1), name="look")),
    "pooling": lambda: in_a_row(layers.MaxPooling1D(2, name="look"), gru()),
    "average": lambda: in_a_row(
        layers.AveragePooling1D(2, strides=1, padding="same", name="look"), gru()
    ),
    "global": lambda: in_a_row(gru(), layers.GlobalMaxPooling1D(name="look")),
    "attention": lambda: functional(lambda x: attention(gru()(x))),
    "operation": lambda: functional(lambda x: ops.mean(gru()(x), axis=1)),
    "of a user": lambda: in_a_row(Back(name="look"), gru()),
    "nested": lambda: in_a_row(
        keras.Sequential(
            [keras.Input((None, 3)), layers.Conv1D(3, 3, padding="same", name="look")]
        ),
        gru(),
    ),
}


@pytest.mark.one_in(3)
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")
@pytest.mark.parametrize("time_steps", ["model", None])
@pytest.mark.parametrize("kind", NAMED)
def test_the_layer_that_looks_further_is_named(kind, time_steps, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "keras_rnnkit.export.tflite.convert", lambda *_: pytest.fail("was converted")
    )
    model, path = NAMED[kind](), tmp_path / "m.tflite"
    name = "mean" if kind == "operation" else "look"
    with pytest.raises(ValueError, match=rf"^`{name}\w*` cannot stream: ") as caught:
        rk.export_tflite(model, path, streaming=True, time_steps=time_steps)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.one_in(3)
@pytest.mark.parametrize("of", [layers, rk])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_a_stateful_model_streams_with_any_batch(kind, of, rng, tmp_path):
    def make(stateful, batch):
        inputs = keras.Input(batch_shape=(batch, 5, 3), name="frames")
        options = {"return_sequences": True, "stateful": stateful}
        inner = keras.Input(batch_shape=(batch, 5, 4))
        nested = keras.Model(inner, getattr(of, kind)(3, name="b", **options)(inner))
        x = nested(getattr(of, kind)(4, name="a", **options)(inputs))
        return keras.Model(inputs, layers.Dense(2)(x))

    model, plain = make(True, 32), make(False, None)
    weights = [0.4 * rng.normal(size=w.shape) for w in plain.weights]
    plain.set_weights(weights)
    for weight, value in zip(model.weights, weights, strict=True):
        weight.assign(value)
    x = rng.normal(size=(32, 5, 3)).astype("float32")
    model(x)
    kept = [v.numpy() for v in model.variables]
    for rows in (1, 3):
        rk.export_tflite(
            model, tmp_path / "m.tflite", streaming=True, batch_size=rows, time_steps=5
        )
        file = rk.StreamingModel(tmp_path / "m.tflite")
        assert_close(file.step(x[:rows]), plain(x[:rows]))
    for variable, value in zip(model.variables, kept, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(ValueError, match="must not be stateful in a file without st"):
        rk.export_tflite(model, tmp_path / "m.tflite")
