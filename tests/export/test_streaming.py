"""A stream of steps gives the answers of the whole sequence."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize

LAYERS = {
    "SimpleRNN": lambda **flags: rk.SimpleRNN(3, **flags),
    "LSTM": lambda **flags: rk.LSTM(3, **flags),
    "GRU": lambda **flags: rk.GRU(3, **flags),
    "GRU, reset before": lambda **flags: rk.GRU(3, reset_after=False, **flags),
    "ESN": lambda return_sequences=False, **flags: rk.ESN(
        3, leak_rate=0.4, return_sequences=return_sequences, **flags
    ),
    "StackedRNN": lambda **flags: rk.StackedRNN(
        [rk.LSTM(3), rk.GRU(3)], residual=True, **flags
    ),
    "RNN of cells": lambda **flags: rk.RNN([rk.GRUCell(4), rk.LSTMCell(3)], **flags),
    "LSTM, peephole": lambda **flags: rk.LSTM(3, peephole=True, **flags),
    "LSTM, all options": lambda **flags: rk.LSTM(
        5, peephole=True, projection_units=3, layer_norm=True, zoneout=0.2, **flags
    ),
    "Keras's LSTM": lambda **flags: keras.layers.LSTM(3, **flags),
}


def model_of(*layers, rng, shape=(None, 3), dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype, name="frames")
    model = keras.Sequential([inputs, *layers, keras.layers.Dense(2)])
    randomize(model, rng)
    return model


def frames(rng, rows=1, steps=6):
    return rng.normal(size=(rows, steps, 3)).astype("float32")


def file_of(model, tmp_path, **arguments):
    rk.export_tflite(model, tmp_path / "m.tflite", streaming=True, **arguments)
    return rk.StreamingModel(tmp_path / "m.tflite")


def stream(file, x, size=1):
    """The outputs of a sequence, taken `size` steps at a time."""
    parts = range(0, x.shape[1], size)
    return np.concatenate([file.step(x[:, i : i + size]) for i in parts], axis=1)


def sequence_and_last(kind, rng, masked):
    """A model that returns every step of one layer, and the last of one above it."""
    inputs = keras.Input((None, 3), name="frames")
    x = keras.layers.Masking()(inputs) if masked else inputs
    sequence = LAYERS[kind](return_sequences=True)(x)
    last = LAYERS[kind]()(sequence)
    model = keras.Model(inputs, {"sequence": sequence, "last": last})
    randomize(model, rng)
    return model


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 3)])
@pytest.mark.parametrize(
    ("kind", "masked"),
    [
        *((kind, False) for kind in LAYERS),
        *((kind, True) for kind in ("LSTM", "StackedRNN", "RNN of cells")),
    ],
)
def test_every_output_is_that_of_the_whole_sequence(
    kind, masked, rows, size, rng, tmp_path
):
    model = sequence_and_last(kind, rng, masked)
    file = file_of(model, tmp_path, batch_size=rows, time_steps=size)
    x = frames(rng, rows, steps=9)
    if masked:
        x[0, [0, 3, 4, 6, 7, 8]] = 0
    for start in range(0, 9, size):
        got = file.step(x[:, start : start + size])
        expected = model(x[:, : start + size])
        assert_close(got["sequence"], expected["sequence"][:, start:])
        assert_close(got["last"], expected["last"])


@pytest.mark.parametrize("size", [1, 3])
def test_masked_steps_hold_the_output_as_if_they_were_not_there(size, rng, tmp_path):
    layer, masking = rk.LSTM(3, return_sequences=True), keras.layers.Masking()
    plain = model_of(layer, rng=rng)
    model = keras.Sequential([keras.Input((None, 3)), masking, *plain.layers])
    x = frames(rng, steps=12)
    masked = [0, 3, 4, 7, 11]
    x[:, masked] = 0
    y = stream(file_of(model, tmp_path, time_steps=size), x, size)
    others = np.delete(np.arange(12), masked)
    assert_close(y[:, others], plain(x[:, others]))
    for t in masked[1:]:
        np.testing.assert_array_equal(y[:, t], y[:, t - 1])


@pytest.mark.parametrize("size", [1, 4])
def test_tokens_are_tagged_as_they_come(size, rng, tmp_path):
    model = model_of(
        keras.layers.Embedding(7, 4, mask_zero=True),
        rk.StackedRNN([rk.GRU(4), rk.LSTM(4)], return_sequences=True),
        rng=rng,
        shape=(None,),
        dtype="int32",
    )
    tokens = np.array([[0, 3, 0, 0, 6, 2, 0, 1], [5, 1, 2, 6, 4, 0, 0, 0]], "int32")
    file = file_of(model, tmp_path, batch_size=2, time_steps=size)
    assert_close(stream(file, tokens, size), model(tokens))


def test_a_call_may_take_any_number_of_steps(rng, tmp_path):
    model = model_of(keras.layers.Masking(), rk.LSTM(4, return_sequences=True), rng=rng)
    file = file_of(model, tmp_path, time_steps=None)
    x = frames(rng, steps=9)
    x[:, [2, 3, 6]] = 0
    parts = [file.step(part) for part in np.split(x, [1, 2, 6], axis=1)]
    assert [part.shape[1] for part in parts] == [1, 1, 4, 3]
    assert_close(np.concatenate(parts, axis=1), model(x))


def test_states_go_on_until_they_are_reset(rng, tmp_path):
    model = model_of(rk.GRU(4, return_sequences=True), rng=rng)
    file = file_of(model, tmp_path)
    first, second = frames(rng), frames(rng)
    whole = model(np.concatenate([first, second], axis=1))
    assert_close(stream(file, first), whole[:, :6])
    assert_close(stream(file, second), whole[:, 6:])
    file.reset()
    assert_close(stream(file, second), model(second))


def test_the_steps_of_the_models_input_do_not_limit_a_stream(rng, tmp_path):
    free = model_of(rk.LSTM(4, return_sequences=True), rng=rng)
    fixed = model_of(rk.LSTM(4, return_sequences=True), rng=rng, shape=(7, 3))
    fixed.set_weights(free.get_weights())
    x = frames(rng, steps=12)
    for size in 1, 3:
        file = file_of(fixed, tmp_path, time_steps=size)
        assert_close(stream(file, x, size), free(x))
    assert_close(free(x)[:, :7], fixed(x[:, :7]))


@pytest.mark.parametrize("kind", ["LSTM", "StackedRNN", "Keras's LSTM"])
def test_the_states_of_a_stateful_model_stay_its_own(kind, rng, tmp_path):
    inputs = keras.Input(batch_shape=(2, 6, 3), name="frames")
    layer = LAYERS[kind](return_sequences=True, stateful=True)
    stateful = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    randomize(stateful, rng)
    plain = model_of(LAYERS[kind](return_sequences=True), rng=rng)
    plain.set_weights(stateful.get_weights())
    x = frames(rng, rows=2)
    stateful(x)
    before = [state.numpy() for state in layer.states]
    file = file_of(stateful, tmp_path, batch_size=2)
    for state, value in zip(layer.states, before, strict=True):
        np.testing.assert_array_equal(state.numpy(), value)
    assert_close(stream(file, x), plain(x))


def test_inputs_and_states_go_by_name(rng, tmp_path):
    inputs = {
        "frames": keras.Input((None, 3), name="frames"),
        "tokens": keras.Input((None,), dtype="int32", name="tokens"),
        "speaker": keras.Input((2,), name="speaker"),
    }
    embedded = keras.layers.Embedding(5, 3)(inputs["tokens"])
    speaker = keras.layers.Reshape((1, 3))(keras.layers.Dense(3)(inputs["speaker"]))
    x = keras.layers.Add()([inputs["frames"], embedded, speaker])
    model = keras.Model(inputs, rk.LSTM(4, return_sequences=True, name="lstm")(x))
    randomize(model, rng)
    file = file_of(model, tmp_path, batch_size=2)
    assert sorted(file.input_names) == sorted(inputs)
    x = {
        "frames": frames(rng, rows=2),
        "tokens": rng.integers(0, 5, (2, 6)).astype("int32"),
        "speaker": rng.normal(size=(2, 2)).astype("float32"),
    }
    expected = model(x).numpy()
    for t in range(6):
        step = {"frames": x["frames"][:, [t]], "tokens": x["tokens"][:, [t]]}
        got = file.step(**step, speaker=x["speaker"])
        assert_close(got, expected[:, [t]])
    with pytest.raises(ValueError, match="inputs must be given by name, .*'tokens'"):
        file.step(x["frames"][:, :1])

    signatures = rk.inspect_tflite(tmp_path / "m.tflite").signatures
    states = {"lstm_h": "(2, 4) float32", "lstm_c": "(2, 4) float32"}
    assert signatures["step"]["inputs"] == states | {
        "frames": "(2, 1, 3) float32",
        "tokens": "(2, 1) int32",
        "speaker": "(2, 2) float32",
    }
    assert signatures["step"]["outputs"] == states | {"output_0": "(2, 1, 4) float32"}
    assert signatures["reset"] == {"inputs": {}, "outputs": states}


def test_each_call_of_a_layer_and_each_of_a_name_has_states_of_its_own(rng, tmp_path):
    inputs = keras.Input((None, 3), name="a_h")
    shared = rk.LSTM(3, return_sequences=True, name="a")
    other = rk.StackedRNN([rk.GRU(3, name="a"), rk.GRU(3, name="a")])
    x = shared(shared(inputs))
    model = keras.Model(inputs, {"y": other(x), "a_c": x})
    randomize(model, rng)
    file = file_of(model, tmp_path)
    assert len(file.states) == 2 + 2 + 1 + 1
    x = frames(rng)
    for t in range(6):
        got = file.step(x[:, [t]])
    expected = model(x)
    assert_close(got["y"], expected["y"])
    assert_close(got["a_c"], expected["a_c"][:, -1:])


def test_a_step_of_another_shape_is_refused_and_changes_nothing(rng, tmp_path):
    model = model_of(rk.GRU(4), rng=rng)
    file, x = file_of(model, tmp_path), frames(rng)
    for t in range(3):
        file.step(x[:, [t]])
    for wrong in x[:, :2], x[0], np.zeros((1, 1, 4)), np.zeros((2, 1, 3)):
        with pytest.raises(
            ValueError, match=r"input `frames` must have shape \(1, 1, 3"
        ):
            file.step(wrong)
    for t in range(3, 6):
        got = file.step(x[:, [t]])
    assert_close(got, model(x))


def test_unrolled_layers_stream_too(rng, tmp_path):
    model = model_of(rk.LSTM(4, unroll=True), rng=rng, shape=(6, 3))
    file, x = file_of(model, tmp_path, time_steps=2), frames(rng)
    for t in range(0, 6, 2):
        got = file.step(x[:, t : t + 2])
    assert_close(got, model(x))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8", "int16x8"])
def test_a_quantized_stream_stays_near_the_model(quantize, rng, tmp_path):
    model = model_of(rk.LSTM(4, return_sequences=True), rng=rng)
    x = frames(rng, rows=8)
    file = file_of(model, tmp_path, quantize=quantize, representative_data=x)
    for row in x[:3]:
        file.reset()
        expected = model(row[None])
        error = np.abs(stream(file, row[None]) - expected).max()
        assert error < 0.1 * np.abs(expected).max()


def functional(outputs, *others):
    """A model of frames, of what `outputs` makes of them and of other inputs."""
    inputs = keras.Input((None, 3))
    return keras.Model([inputs, *others], outputs(inputs, *others))


def encoder_decoder():
    encoder = rk.LSTM(2, return_state=True)
    decoder = rk.LSTM(2, return_sequences=True, name="decoder")
    return functional(
        lambda x, y: decoder(y, initial_state=encoder(x)[1:]), keras.Input((None, 3))
    )


CANNOT = {
    "Bidirectional": (
        lambda: functional(rk.Bidirectional(rk.GRU(2), name="both")),
        "`both` cannot stream: it begins with the last step",
    ),
    "go_backwards": (
        lambda: functional(rk.GRU(2, go_backwards=True, name="back")),
        "`back` cannot stream: it begins with the last step",
    ),
    "go_backwards, stacked": (
        lambda: functional(rk.StackedRNN([rk.GRU(2)], go_backwards=True, name="back")),
        "`back` cannot stream: it begins with the last step",
    ),
    "lengths": (
        lambda: functional(
            lambda x, n: rk.GRU(2, name="gru")(x, lengths=n),
            keras.Input((), dtype="int32"),
        ),
        "`gru` cannot stream: it takes `lengths`",
    ),
    "states from an encoder": (
        encoder_decoder,
        "`decoder` cannot stream: it takes its first state from the model",
    ),
    "no recurrent layer": (
        lambda: functional(keras.layers.Dense(2)),
        "has no recurrent layer to stream",
    ),
}

PADDINGS = [("same", 1), ("valid", 1), ("valid", 5)]


@pytest.mark.parametrize("why", CANNOT)
def test_what_cannot_stream_raises_and_writes_nothing(why, tmp_path):
    make, message = CANNOT[why]
    with pytest.raises(ValueError, match=message):
        rk.export_tflite(make(), tmp_path / "m.tflite", streaming=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("padding", "steps"), PADDINGS)
def test_a_layer_that_looks_at_several_steps_is_found(padding, steps, tmp_path):
    convolution = keras.layers.Conv1D(3, 3, padding=padding)
    model = functional(lambda x: rk.GRU(2, return_sequences=True)(convolution(x)))
    with pytest.raises(ValueError, match="looks at several steps at once cannot strea"):
        file_of(model, tmp_path, time_steps=steps)
    assert not list(tmp_path.iterdir())


def test_a_stream_needs_a_batch_size(rng, tmp_path):
    model = model_of(rk.GRU(2), rng=rng)
    with pytest.raises(ValueError, match="needs a `batch_size`; received None"):
        file_of(model, tmp_path, batch_size=None)
    assert not list(tmp_path.iterdir())


def test_files_with_and_without_states_are_told_apart(rng, tmp_path):
    model = model_of(rk.GRU(2), rng=rng)
    file_of(model, tmp_path)
    with pytest.raises(ValueError, match="`serving_default`.*`rk.StreamingModel` runs"):
        rk.TFLiteModel(tmp_path / "m.tflite")
    rk.export_tflite(model, tmp_path / "m.tflite", time_steps=3)
    with pytest.raises(ValueError, match="must have a signature `step`; received"):
        rk.StreamingModel(tmp_path / "m.tflite")


def test_a_stateful_saved_model_streams_without_keras(rng, tmp_path):
    inputs = keras.Input(batch_shape=(2, 3, 3), name="frames")
    layer = rk.LSTM(4, return_sequences=True, stateful=True)
    stateful = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    plain = model_of(rk.LSTM(4, return_sequences=True), rng=rng)
    stateful.set_weights(plain.get_weights())
    x = frames(rng, rows=2)
    stateful(x[:, :3])
    rk.export_saved_model(stateful, tmp_path / "saved")
    np.savez(tmp_path / "data.npz", x=x, y=plain(x))
    child = """
import sys
sys.modules["keras"] = sys.modules["keras_rnnkit"] = None
import numpy as np, tensorflow as tf
data = np.load("data.npz")
run = tf.saved_model.load("saved").signatures
for _ in range(2):
    run["reset"]()
    parts = [
        run["step"](frames=tf.constant(x))["output_0"]
        for x in np.split(data["x"], 2, axis=1)
    ]
    print(np.abs(np.concatenate(parts, axis=1) - data["y"]).max())
"""
    out = subprocess.run(
        [sys.executable, "-c", child], cwd=tmp_path, capture_output=True, text=True
    )
    assert out.returncode == 0, out.stderr
    assert max(map(float, out.stdout.split())) < 1e-6


def test_a_saved_model_takes_any_number_of_steps_if_asked_to(rng, tmp_path):
    fixed = model_of(rk.GRU(4), rng=rng, shape=(7, 3))
    free = model_of(rk.GRU(4), rng=rng)
    free.set_weights(fixed.get_weights())
    rk.export_saved_model(fixed, tmp_path / "saved", time_steps=None)
    run = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    for rows, steps in (1, 7), (3, 2), (2, 12):
        x = frames(rng, rows, steps)
        assert_close(run(frames=tf.constant(x))["output_0"], free(x))
