"""Another number of steps changes the axis of time, and no other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize


def model_of(make, **shapes):
    """A model of inputs by name; those with "words" in their name are tokens."""
    inputs = {
        name: keras.Input(shape, name=name, dtype="int32" if "words" in name else None)
        for name, shape in shapes.items()
    }
    model = keras.Model(inputs, make(**inputs))
    randomize(model, np.random.default_rng(1), scale=0.4)
    return model


def draw(model, rng, axes, steps, rows=2):
    """Inputs of so many steps; an axis of any size has 5 otherwise."""
    data = {}
    for name, x in model.input.items():
        shape = [rows, *(n or 5 for n in x.shape[1:])]
        if name in axes:
            shape[axes[name]] = steps
        tokens = "int" in x.dtype
        data[name] = (
            rng.integers(0, 4, shape).astype("int32")
            if tokens
            else rng.normal(size=shape).astype("float32")
        )
    return data


def beside(x, other):
    return layers.Dense(2)(layers.Concatenate()([x, other]))


def with_a_table(frames, table):
    return beside(layers.GRU(3)(frames), layers.Dense(2)(layers.Flatten()(table)))


def with_tags(words, tag_words):
    embedding = layers.Embedding(4, 3)
    tags = layers.Dense(2)(layers.Flatten()(embedding(tag_words)))
    return beside(layers.LSTM(3)(embedding(words)), tags)


def with_any_tags(frames, tag_words):
    tags = layers.GlobalMaxPooling1D()(layers.Embedding(4, 3)(tag_words))
    return beside(layers.GRU(3)(frames), tags)


def with_a_scanned_image(frames, image):
    return beside(layers.GRU(3)(frames), layers.Bidirectional(layers.GRU(3))(image))


def sum_of_two(frames, words, table):
    x = layers.Add()([frames, layers.Embedding(4, 3)(words)])
    return with_a_table(x, table)


def of_columns(image):
    return layers.GRU(3)(layers.Permute((2, 1))(image))


def film(film):
    x = layers.TimeDistributed(layers.Conv2D(2, 3))(film)
    return layers.GRU(3)(layers.TimeDistributed(layers.GlobalAveragePooling2D())(x))


def sentences(words):
    one = keras.Input((6,), dtype="int32")
    encode = keras.Model(one, layers.Bidirectional(layers.GRU(3))(ops.one_hot(one, 4)))
    return layers.LSTM(3)(layers.TimeDistributed(encode)(words))


def nested(frames):
    steps = frames.shape[1]
    inside = [keras.Input((steps, 3)), layers.Conv1D(4, 3, padding="causal")]
    return layers.GRU(3)(keras.Sequential(inside)(frames))


FRAMES, TABLE = (10, 3), (10, 4)
CASES = {
    "table": (with_a_table, {"frames": FRAMES, "table": TABLE}, {"frames": 1}),
    "image": (with_a_table, {"frames": FRAMES, "table": (28, 28)}, {"frames": 1}),
    "tags": (with_tags, {"words": (10,), "tag_words": (10,)}, {"words": 1}),
    "any tags": (
        with_any_tags,
        {"frames": FRAMES, "tag_words": (None,)},
        {"frames": 1},
    ),
    "scanned image": (
        with_a_scanned_image,
        {"frames": (None, 3), "image": (8, 6)},
        {"frames": 1},
    ),
    "sum": (
        sum_of_two,
        {"frames": FRAMES, "words": (10,), "table": TABLE},
        {"frames": 1, "words": 1},
    ),
    "columns": (of_columns, {"image": (8, 10)}, {"image": 2}),
    "film": (film, {"film": (4, 6, 6, 1)}, {"film": 1}),
    "sentences": (sentences, {"words": (4, 6)}, {"words": 1}),
    "nested": (nested, {"frames": FRAMES}, {"frames": 1}),
}


KINDS = [
    pytest.param(kind, marks=pytest.mark.slow) if kind == "sentences" else kind
    for kind in CASES
]


def free(make, shapes, axes, weights):
    """The model made anew for any number of steps."""
    shapes = {
        name: [None if axes.get(name) == n else s for n, s in enumerate(shape, 1)]
        for name, shape in shapes.items()
    }
    model = model_of(make, **shapes)
    model.set_weights(weights)
    return model


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_axis_of_time_changes(kind, rng, tmp_path):
    make, shapes, axes = CASES[kind]
    model = model_of(make, **shapes)
    x = draw(model, rng, axes, steps=7)
    expected = free(make, shapes, axes, model.get_weights())(x)
    rk.export_tflite(model, tmp_path / "m.tflite", batch_size=2, time_steps=7)
    got = rk.TFLiteModel(tmp_path / "m.tflite")(**x)["output_0"]
    assert_close(got, expected)
    # Keras's `TimeDistributed` is wrong where it does not know the steps.
    steps = 7 if kind in ("film", "sentences") else None
    rk.export_saved_model(model, tmp_path / "saved", time_steps=steps)
    signatures = tf.saved_model.load(str(tmp_path / "saved")).signatures
    given = {name: tf.constant(value) for name, value in x.items()}
    assert_close(signatures["serving_default"](**given)["output_0"], expected)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_axis_of_time_streams(kind, rng, tmp_path):
    make, shapes, axes = CASES[kind]
    model = model_of(make, **shapes)
    steps = next(iter(shapes.values()))[next(iter(axes.values())) - 1] or 7
    x = draw(model, rng, axes, steps)
    rk.export_tflite(model, tmp_path / "m.tflite", batch_size=2, streaming=True)
    file = rk.StreamingModel(tmp_path / "m.tflite")
    for t in range(steps):
        got = file.step(
            **{n: np.take(v, [t], axes[n]) if n in axes else v for n, v in x.items()}
        )
    assert_close(got, model(x))


def encoder_decoder(source, target):
    _, *states = layers.LSTM(3, return_state=True)(source)
    return layers.LSTM(3)(target, initial_state=states)


BOTH = {"source": (7, 3), "target": (5, 2)}


@pytest.mark.parametrize(
    ("time_steps", "changed", "size"),
    [
        (9, ["source", "target"], 9),
        ({"source": 9}, ["source"], 9),
        ({"source": None, "target": "model"}, ["source"], -1),
    ],
)
def test_inputs_are_named_where_not_all_change(
    time_steps, changed, size, rng, tmp_path
):
    model = model_of(encoder_decoder, **BOTH)
    axes = dict.fromkeys(changed, 1)
    options = {"batch_size": 2, "time_steps": time_steps}
    report = rk.export_tflite(model, tmp_path / "m.tflite", **options)
    for name, (steps, features) in BOTH.items():
        steps = size if name in changed else steps
        received = report.signatures["serving_default"]["inputs"][name]
        assert received == f"(2, {steps}, {features}) float32"
    x = draw(model, rng, axes, 9)
    got = rk.TFLiteModel(tmp_path / "m.tflite")(**x)["output_0"]
    assert_close(got, free(encoder_decoder, BOTH, axes, model.get_weights())(x))


def flattened(frames):
    x = layers.Flatten()(layers.GRU(3, return_sequences=True)(frames))
    return layers.Dense(2, name="last")(x)


REFUSED = {
    "unknown name": (
        (encoder_decoder, BOTH),
        {"frames": 3},
        r"`time_steps` must name inputs of the model, \['source', 'target'\]; "
        r"received \['frames'\]",
    ),
    "tied to another": (
        (sum_of_two, {"frames": FRAMES, "words": (10,), "table": TABLE}),
        {"frames": 3},
        r"`add\w*` cannot take .*\['frames'\]: inputs whose steps have to change tog",
    ),
    "not recurrent": (
        (lambda frames: layers.Dense(2)(frames), {"frames": FRAMES}),
        5,
        "has no recurrent layer to stream or to give another number of steps",
    ),
    "a Dense above all steps": (
        (flattened, {"frames": FRAMES}),
        7,
        "`last` needs exactly 10 steps of `frames`; received `time_steps=7`",
    ),
    "no number": (
        (flattened, {"frames": FRAMES}),
        {"frames": 0},
        r"`time_steps\['frames'\]` must be a positive integer.* 0",
    ),
}


@pytest.mark.parametrize("export", [rk.export_tflite, rk.export_saved_model])
@pytest.mark.parametrize("why", REFUSED)
def test_steps_that_cannot_change_are_refused(why, export, tmp_path):
    (make, shapes), time_steps, message = REFUSED[why]
    with pytest.raises(ValueError, match=message):
        export(model_of(make, **shapes), tmp_path / "m", time_steps=time_steps)
    assert not list(tmp_path.iterdir())


def test_steps_that_cannot_change_may_be_named_as_they_are(tmp_path):
    model = model_of(flattened, frames=FRAMES)
    report = rk.export_tflite(model, tmp_path / "m.tflite", time_steps=10)
    inputs = report.signatures["serving_default"]["inputs"]
    assert inputs == {"frames": "(1, 10, 3) float32"}


def test_a_stream_takes_as_many_steps_of_all_inputs(tmp_path):
    model = model_of(encoder_decoder, **BOTH)
    options = {"streaming": True, "time_steps": {"source": 1, "target": 2}}
    with pytest.raises(ValueError, match="must be the same for all inputs that it nam"):
        rk.export_tflite(model, tmp_path / "m", **options)
