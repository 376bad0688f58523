"""A forecast is what a model says when each output is appended to its input."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize

K = keras.layers


def squares(x, sequences, dtype):
    """A readout that sees the states, their squares and the input."""
    h = rk.ESN(9, leak_rate=0.6, return_sequences=sequences, dtype=dtype)(x)
    parts = [h, K.Multiply(dtype=dtype)([h, h]), x]
    return K.Concatenate(dtype=dtype)(parts)


def of_layer(make):
    def below(x, sequences, dtype):
        return make(return_sequences=sequences, dtype=dtype)(x)

    return below


def masked(x, sequences, dtype):
    layer = rk.LSTM(4, return_sequences=sequences, dtype=dtype)
    return layer(K.Masking(dtype=dtype)(x))


def stack(return_sequences, dtype):
    layers = [rk.ESN(6, dtype=dtype), rk.LSTM(4, dtype=dtype)]
    flags = {"return_sequences": return_sequences, "dtype": dtype}
    return rk.StackedRNN(layers, outputs="all", **flags)


BELOW = {
    "ESN": of_layer(lambda **k: rk.ESN(9, leak_rate=0.6, bias_scaling=0.3, **k)),
    "ESN, feedback": of_layer(lambda **k: rk.ESN(9, feedback=2, **k)),
    "ESN, sparse": of_layer(lambda **k: rk.ESN(9, sparse=True, seed=1, **k)),
    "LSTM": of_layer(lambda **k: rk.LSTM(4, **k)),
    "GRU": of_layer(lambda **k: rk.GRU(4, **k)),
    "StackedRNN": of_layer(stack),
    "Masking": masked,
    "squares": squares,
}
OUTPUTS = 2


def model_of(kind, *, outside=0, sequences=True, dtype="float32", steps=None):
    """A model whose last two features are what it predicts."""
    x = keras.Input((steps, outside + OUTPUTS), dtype=dtype)
    y = K.Dense(OUTPUTS, dtype=dtype)(BELOW[kind](x, sequences, dtype))
    model = keras.Model(x, y)
    if "sparse" not in kind:  # of which a weight is numbers of units
        randomize(model, np.random.default_rng(1), 0.3)
    return model


def draw(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def by_hand(model, warmup, steps, inputs=None):
    """Appends each output to the sequence and runs the whole of it anew."""
    x, said = np.asarray(warmup), []
    for t in range(steps):
        y = np.asarray(model(x))
        said.append(y[:, -1] if y.ndim == 3 else y)
        if t < steps - 1:
            new = said[-1] if inputs is None else np.hstack([inputs[:, t], said[-1]])
            x = np.concatenate([x, new[:, None]], axis=1)
    return np.stack(said, axis=1)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("kind", "outside", "sequences", "dtype"),
    [
        *((kind, 0, True, "float64") for kind in BELOW),
        *((kind, 0, False, "float32") for kind in BELOW if kind != "squares"),
        ("ESN", 1, True, "float32"),
        ("ESN, feedback", 3, True, "float64"),
        ("ESN, feedback", 1, False, "float32"),
        ("LSTM", 1, False, "float64"),
        ("squares", 2, True, "float32"),
    ],
)
def test_a_forecast_appends_output_after_output(kind, outside, sequences, dtype, rng):
    model = model_of(kind, outside=outside, sequences=sequences, dtype=dtype)
    warmup = draw(rng, 3, 7, outside + OUTPUTS).astype(dtype)
    inputs = draw(rng, 3, 8, outside).astype(dtype) if outside else None
    if kind == "Masking":
        warmup[0, 4:] = warmup[1, [0, 3]] = 0
    got = rk.forecast(model, warmup, 9, inputs=inputs)
    assert got.shape == (3, 9, OUTPUTS)
    assert got.dtype == dtype
    assert_close(got, by_hand(model, warmup, 9, inputs), dtype)


def test_calls_may_differ_in_rows_warmup_and_steps(rng):
    model, driven = model_of("ESN"), model_of("ESN", outside=1)
    for rows, before, steps in (2, 3, 4), (1, 1, 1), (3, 4, 2):
        warmup, inputs = draw(rng, rows, before, 3), draw(rng, rows, steps - 1, 1)
        got = rk.forecast(model, warmup[..., 1:], steps)
        assert_close(got, by_hand(model, warmup[..., 1:], steps))
        given = inputs.tolist() if steps > 1 else None
        got = rk.forecast(driven, warmup.tolist(), steps, inputs=given)
        assert_close(got, by_hand(driven, warmup, steps, inputs))


def test_inputs_of_more_steps_are_cut(rng):
    model = model_of("GRU", outside=1)
    warmup, inputs = draw(rng, 2, 3, 3), draw(rng, 2, 9, 1)
    got = rk.forecast(model, warmup, 4, inputs=inputs)
    assert_close(got, rk.forecast(model, warmup, 9, inputs=inputs[:, :8])[:, :4])


def test_new_weights_are_taken_at_the_next_call(rng):
    model, warmup = model_of("GRU"), draw(rng, 1, 3, OUTPUTS)
    before = rk.forecast(model, warmup, 3)
    randomize(model, rng, 0.3)
    after = rk.forecast(model, warmup, 3)
    assert abs(after - before).max() > 0.01
    assert_close(after, by_hand(model, warmup, 3))


def test_the_steps_of_the_models_input_do_not_limit_a_forecast(rng):
    free, warmup = model_of("LSTM"), draw(rng, 2, 3, OUTPUTS)
    fixed = model_of("LSTM", steps=5)
    fixed.set_weights(free.get_weights())
    sequential = keras.Sequential([keras.Input((5, 2)), *fixed.layers[1:]])
    for model in fixed, sequential:
        assert_close(rk.forecast(model, warmup, 6), by_hand(free, warmup, 6))


# What is wrong


class Twice(K.Layer):
    def call(self, x):
        return 2 * x


def model(*layers, batch=None, outputs=2):
    x = keras.Input(batch_shape=(batch, None, 2))
    return keras.Sequential([x, *layers, K.Dense(outputs)])


def two_inputs():
    x = [keras.Input((None, 2)) for _ in range(2)]
    return keras.Model(x, rk.GRU(2)(K.Add()(x)))


def encoder_decoder():
    x = keras.Input((None, 2))
    state = rk.GRU(2, return_state=True)(x)[1]
    return keras.Model(x, rk.GRU(2)(x, initial_state=[state]))


OPEN = {
    "Bidirectional": (lambda: model(rk.Bidirectional(rk.GRU(2))), "that may need the"),
    "backwards": (lambda: model(rk.GRU(2, go_backwards=True)), "that may need the wh"),
    "stateful": (lambda: model(rk.GRU(2, stateful=True), batch=1), "that is stateful"),
    "stock": (lambda: model(K.LSTM(2)), r"take `rk.from_keras\(model\)`"),
    "own layer": (lambda: model(Twice(), rk.GRU(2)), "must compute a step from those"),
    "convolution": (lambda: model(K.Conv1D(2, 3), rk.GRU(2)), "that may need the wh"),
    "first state": (encoder_decoder, "that may need the whole sequence"),
    "two inputs": (two_inputs, "one input and one output; received 2 and 1"),
    "outputs": (
        lambda: model(rk.GRU(2), outputs=3),
        r"must be the last features of its input; received .*3.* and .*2",
    ),
    "not built": (lambda: keras.Sequential([rk.GRU(2)]), "the model must be built"),
}


@pytest.mark.parametrize(("make", "message"), OPEN.values(), ids=OPEN)
def test_a_model_that_cannot_be_fed_its_output_raises(make, message, tmp_path):
    model = make()
    with pytest.raises(ValueError, match=message):
        rk.forecast(model, np.zeros((1, 3, 2)), 2)
    if model.built and "from_keras" not in message:
        with pytest.raises(ValueError, match=message):
            rk.export_tflite(model, tmp_path / "m.tflite", forecast=2)
        with pytest.raises(ValueError, match=message):
            rk.export_saved_model(model, tmp_path / "saved", forecast=2)
    assert not list(tmp_path.iterdir())


ARGUMENTS = {
    "no steps": (0, {"steps": 0}, "`steps` must be a positive integer; received 0"),
    "rank": (0, {"warmup": np.zeros(3)}, r"`warmup` must have .*\(3,\)"),
    "features": (0, {"warmup": np.zeros((1, 3, 3))}, r", 2\) with .*\(1, 3, 3\)"),
    "no warmup": (
        0,
        {"warmup": np.zeros((1, 0, 2))},
        r"at least one step; .*\(1, 0, 2",
    ),
    "missing": (1, {}, r"`inputs` .* \(1, 3 or more, 1\); received None"),
    "short": (1, {"inputs": np.zeros((1, 2, 1))}, r"received shape \(1, 2, 1\)"),
    "rows": (1, {"inputs": np.zeros((2, 3, 1))}, r"received shape \(2, 3, 1\)"),
    "input rank": (1, {"inputs": np.zeros((3, 1))}, r"received shape \(3, 1\)"),
    "not wanted": (0, {"inputs": np.zeros((1, 3, 1))}, r"3 or more, 0\); received"),
}


@pytest.mark.parametrize(
    ("outside", "given", "message"), ARGUMENTS.values(), ids=ARGUMENTS
)
def test_a_wrong_argument_raises(outside, given, message):
    given = {"warmup": np.zeros((1, 3, 2 + outside)), "steps": 4} | given
    with pytest.raises(ValueError, match=message):
        rk.forecast(model_of("ESN", outside=outside), **given)


# In a file


def test_a_saved_model_forecasts_without_keras(rng, tmp_path):
    data = {"warmup": draw(rng, 3, 6, 3), "inputs": draw(rng, 3, 19, 1)}
    driven, free = model_of("ESN, feedback", outside=1), model_of("LSTM")
    rk.export_saved_model(driven, tmp_path / "driven", forecast=20)
    rk.export_saved_model(free, tmp_path / "free", forecast=20)
    data["driven"] = rk.forecast(driven, data["warmup"], 20, inputs=data["inputs"])
    data["free"] = rk.forecast(free, data["warmup"][..., 1:], 20)
    data["served"] = driven(data["warmup"])
    np.savez(tmp_path / "data.npz", **data)
    child = """
import sys
sys.modules["keras"] = sys.modules["keras_rnnkit"] = None
import numpy as np, tensorflow as tf
data = np.load("data.npz")
x, inputs = tf.constant(data["warmup"]), tf.constant(data["inputs"])
driven, free = (tf.saved_model.load(name).signatures for name in ("driven", "free"))
(name,) = driven["serving_default"].structured_input_signature[1]
got = {
    "driven": driven["forecast"](warmup=x, inputs=inputs),
    "free": free["forecast"](warmup=x[..., 1:]),
    "served": driven["serving_default"](**{name: x}),
}
for name, outputs in got.items():
    print(abs(outputs["output_0"] - data[name]).numpy().max() / abs(data[name]).max())
"""
    out = subprocess.run(
        [sys.executable, "-c", child], cwd=tmp_path, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert max(map(float, out.stdout.split())) <= 1e-5


OTHER_FILES = ("ESN", 0), ("LSTM", 1)


@pytest.mark.parametrize(
    ("kind", "outside"),
    [
        ("ESN", 1),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHER_FILES),
    ],
)
def test_a_tflite_file_forecasts(kind, outside, rng, tmp_path):
    model, path = model_of(kind, outside=outside), tmp_path / "m.tflite"
    report = rk.export_tflite(model, path, forecast=20, batch_size=None)
    assert not [op for op in report.ops if "Flex" in op or op == "CUSTOM"]
    assert [each["form"] for each in report.layers.values()] == ["loop"]
    assert list(rk.inspect_tflite(path).signatures) == ["forecast"]
    file = rk.TFLiteModel(path)
    assert set(file.input_names) == {"warmup", *["inputs"][:outside]}
    for rows, before in (1, 16), (3, 5), (2, 1):
        inputs = draw(rng, rows, 19, outside) if outside else None
        given = {"warmup": draw(rng, rows, before, outside + OUTPUTS)}
        given |= {"inputs": inputs} if outside else {}
        expected = rk.forecast(model, given["warmup"], 20, inputs=inputs)
        assert_close(file(**given)["output_0"], expected)
    with pytest.raises(ValueError, match="must have a signature `step`.*forecast"):
        rk.StreamingModel(path)


@pytest.mark.parametrize("outside", [0, 1])
def test_a_file_forecasts_a_single_step_of_a_known_number(outside, rng, tmp_path):
    model, path = model_of("GRU", outside=outside), tmp_path / "m.tflite"
    rk.export_tflite(model, path, forecast=1, time_steps=4)
    x = draw(rng, 1, 4, outside + OUTPUTS)
    file = rk.TFLiteModel(path)
    assert_close(file(warmup=x)["output_0"], model(x)[:, -1:])
    with pytest.raises(ValueError, match=r"`warmup` must have shape \(1, 4, "):
        file(warmup=x[:, :3])


def test_stock_models_forecast_in_a_file_once_replaced(rng, tmp_path):
    stock, path = model(K.GRU(3)), tmp_path / "m.tflite"
    rk.export_tflite(stock, path, forecast=3)
    x = draw(rng, 1, 5, 2)
    got = rk.TFLiteModel(path)(warmup=x)["output_0"]
    assert_close(got, by_hand(stock, x, 3))


REFUSED = {
    "int8": (
        {"quantize": "int8", "representative_data": np.zeros((3, 4, 2), "float32")},
        "TFLite cannot quantize to integers: use 'dynamic' or 'float16'",
    ),
    "streaming": ({"streaming": True}, "must either stream or forecast"),
    "no steps": ({"forecast": 0}, "`forecast` must be a positive integer; received 0"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_file_cannot_do_is_refused(given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        rk.export_tflite(
            model_of("ESN"), tmp_path / "m.tflite", **({"forecast": 4} | given)
        )
    assert not list(tmp_path.iterdir())
