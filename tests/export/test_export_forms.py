"""A recurrent layer is right in every form that its loop can have in a file."""

import json
from itertools import product

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from tests.export.test_export import LAYERS, frames, model_of
from tests.export.test_export_stock import assert_builtin, assert_file_equals
from tests.helpers import assert_close, randomize

FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"
LSTM, Bidirectional = keras.layers.LSTM, keras.layers.Bidirectional
SEQUENCES = {"return_sequences": True}
# Layers of stock Keras, and how many fused LSTMs they become
FUSABLE = {
    "LSTM": (1, lambda: [LSTM(5)]),
    "sequences": (1, lambda: [LSTM(5, **SEQUENCES)]),
    "backwards": (1, lambda: [LSTM(5, go_backwards=True)]),
    "backwards, sequences": (1, lambda: [LSTM(5, go_backwards=True, **SEQUENCES)]),
    "Bidirectional": (2, lambda: [Bidirectional(LSTM(4))]),
    "Bidirectional, sequences": (
        2,
        lambda: [Bidirectional(LSTM(4, **SEQUENCES), merge_mode="sum")],
    ),
    "chain": (3, lambda: [Bidirectional(LSTM(3, **SEQUENCES)), LSTM(5)]),
    "StackedRNN": (2, lambda: [rk.StackedRNN([rk.LSTM(5), rk.LSTM(5)], residual=True)]),
}


def chain(layers, rng, scale=0.6):
    model = keras.Sequential([keras.Input((7, 3), name="x"), *layers])
    randomize(model, rng, scale)
    return model


def sequences(rng, rows, steps):
    """Sequences of any number of steps, with zeros behind their end and amid them."""
    parts = [frames(rng, rows) for _ in range(0, steps, 7)]
    return np.concatenate(parts, axis=1)[:, :steps]


def every_form():
    """Each kind of layer, for calls of one size and of any, in all forms it can have;
    two of each are fast."""
    fast = (1, 7, "unrolled"), (None, None, "loop")
    sizes_and_forms = list(product((1, None), (7, None), ("loop", "unrolled")))
    for kind, (batch, steps, form) in product(LAYERS, sizes_and_forms):
        if form == "unrolled" and steps is None:
            continue
        if form == "loop" and kind == "GRU, reset before":  # it has `unroll=True`
            continue
        marks = [] if (batch, steps, form) in fast else [pytest.mark.slow]
        yield pytest.param(kind, batch, steps, form, marks=marks)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("kind", "batch_size", "time_steps", "form"), every_form())
def test_every_form_equals_keras(kind, batch_size, time_steps, form, rng, tmp_path):
    model, path = model_of(LAYERS[kind](), rng), tmp_path / "m.tflite"
    size = {"batch_size": batch_size, "time_steps": time_steps}
    report = rk.export_tflite(model, path, **size, form=form, check=frames(rng))
    assert {layer["form"] for layer in report.layers.values()} == {form}
    assert_builtin(report.ops)
    if form == "unrolled" or time_steps is None:
        assert ("WHILE" in report.ops) == (form == "loop")
    shapes = [(batch_size or n, time_steps or t) for n, t in ((2, 7), (1, 1), (4, 83))]
    inputs = [{"frames": sequences(rng, *shape)} for shape in shapes]
    # `call` is not held to the steps of the model's input.
    assert_file_equals(lambda x: model.call(x["frames"]), path, inputs)


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("batch_size", "time_steps"), [(1, 7), (3, 7), (1, None)])
@pytest.mark.parametrize("kind", FUSABLE)
def test_a_fused_lstm_forgets_the_call_before(
    kind, batch_size, time_steps, rng, tmp_path
):
    count, make = FUSABLE[kind]
    model, path = chain(make(), rng), tmp_path / "m.tflite"
    size = {"batch_size": batch_size, "time_steps": time_steps}
    rk.export_tflite(model, path, **size, form="fused")
    content = rk.inspect_tflite(path)
    assert content.counted[FUSED] == count
    assert "WHILE" not in content.counted
    assert_builtin(content.counted)
    lengths = [time_steps or steps for steps in (7, 2, 30, 1, 7)]
    inputs = [rng.normal(size=(batch_size, n, 3)).astype("float32") for n in lengths]
    assert_file_equals(model.call, path, inputs)


@pytest.mark.parametrize("kind", ["sequences", "Bidirectional, sequences", "chain"])
def test_a_fused_lstm_forgets_whatever_its_weights(kind, rng, tmp_path):
    model, path = chain(FUSABLE[kind][1](), rng, scale=5), tmp_path / "m.tflite"
    rk.export_tflite(model, path, form="fused")
    inputs = [3 * rng.normal(size=(1, 7, 3)).astype("float32") for _ in range(5)]
    assert_file_equals(model, path, inputs)


def test_the_cell_state_of_a_fused_lstm_has_no_bound(tmp_path):
    model = keras.Sequential([keras.Input((40, 1), name="x"), LSTM(2, **SEQUENCES)])
    kernel, bias = np.repeat([[0, 0, 3.0, 0], [9.0, 9.0, 0, 9.0]], 2, axis=1)  # i f g o
    model.set_weights([kernel[None], np.zeros((2, 8)), bias])
    # It rises to 22 and falls to 4. Cut off at 10, it would fall to -8.
    x = np.repeat(np.array([1, -1], "float32"), (22, 18)).reshape(1, 40, 1)
    assert np.asarray(model(x)).min() > 0.7
    path = tmp_path / "m.tflite"
    rk.export_tflite(model, path, form="fused", check=x)
    assert_file_equals(model, path, [x, -x, x])


def with_state(x):
    return keras.layers.Concatenate()(LSTM(5, return_state=True)(x))


def from_a_state(x):
    first = keras.layers.Dense(5)(x[:, 0])
    return LSTM(5)(x, initial_state=[first, first])


@pytest.mark.parametrize(
    ("form", "layer", "options", "reason"),
    [
        ("fused", lambda x: rk.GRU(5)(x), {}, "`GRUCell` has no fused operation"),
        ("fused", lambda x: LSTM(5)(keras.layers.Masking()(x)), {}, "it has a mask"),
        ("fused", with_state, {}, "it returns its states"),
        ("fused", from_a_state, {}, "its initial states are not zeros"),
        (
            "fused",
            lambda x: LSTM(5)(x),
            {"batch_size": None},
            "the batch size is not known",
        ),
        ("fused", lambda x: rk.LSTM(5, peephole=True)(x), {}, "not a plain LSTM"),
        ("fused", lambda x: LSTM(5, use_bias=False)(x), {}, "not a plain LSTM"),
        ("fused", lambda x: LSTM(5, activation="relu")(x), {}, "not a plain LSTM"),
        ("fused", lambda x: LSTM(5)(x), {"quantize": "int16x8"}, "no 16-bit kernel"),
        (
            "unrolled",
            lambda x: rk.GRU(5)(x),
            {"time_steps": None},
            "is not known",
        ),
        ("loop", lambda x: rk.GRU(5, unroll=True)(x), {}, "`unroll=True`"),
    ],
)
def test_a_form_that_cannot_be_had_raises(form, layer, options, reason, rng, tmp_path):
    x = keras.Input((7, 3), name="x")
    model = keras.Model(x, layer(x))
    if "quantize" in options:
        options = options | {"representative_data": frames(rng)}
    with pytest.raises(ValueError, match=f"`.*` cannot be {form}: .*{reason}"):
        rk.export_tflite(model, tmp_path / "m.tflite", form=form, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("quick", "`form` must be one of .*'fused'.*'quick'"),
        ("arrays", "`form` must be one of .*'fused'.*'arrays'"),
        ({"upper": "quick"}, "`form` must be one of .*'fused'.*'quick'"),
        ({"uper": "fused"}, r"recurrent layers of the model, .*'upper'.*'uper'"),
    ],
)
def test_an_unknown_form_or_layer_raises(form, message, rng, tmp_path):
    model = chain([LSTM(5, name="upper")], rng)
    with pytest.raises(ValueError, match=message):
        rk.export_tflite(model, tmp_path / "m.tflite", form=form)
    assert not list(tmp_path.iterdir())


def test_each_layer_can_have_a_form_of_its_own(rng, tmp_path):
    names = ("first", "second", "third")
    lstms = [LSTM(5, name=name, **SEQUENCES) for name in names]
    model, path = chain([*lstms, rk.GRU(5, name="last")], rng), tmp_path / "m.tflite"
    forms = {"first": "fused", "second": "loop", "third": "unrolled"}
    report = rk.export_tflite(model, path, form=forms)
    layers = report.layers
    assert {name: layers[name]["form"] for name in names} == forms
    assert layers["first"]["why"] == "asked for"
    assert "fastest" in layers["last"]["why"]
    assert "`GRUCell` has no fused operation" in layers["last"]["why"]
    assert report.ops[FUSED] == 1
    assert rk.ExportReport(**json.loads(report.to_json())) == report
    inputs = [rng.normal(size=(1, 7, 3)).astype("float32") for _ in range(3)]
    assert_file_equals(model, path, inputs)


def test_a_layer_that_is_called_twice_is_fused_twice(rng, tmp_path):
    a, b = (keras.Input((7, 3), name=name) for name in "ab")
    shared = LSTM(5, name="shared")
    model = keras.Model([a, b], keras.layers.Subtract()([shared(a), shared(b)]))
    randomize(model, rng)
    path = tmp_path / "m.tflite"
    report = rk.export_tflite(model, path, form="fused")
    assert report.ops[FUSED] == 2
    x, y = (rng.normal(size=(1, 7, 3)).astype("float32") for _ in "ab")
    assert_close(rk.TFLiteModel(path)(a=x, b=y), model([x, y]))
