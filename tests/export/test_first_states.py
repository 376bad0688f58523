"""A stream begins with the first states that the model computes."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize


@keras.saving.register_keras_serializable("tests")
class Learned(layers.Layer):
    """A trained state, one for all rows or repeated for each."""

    def __init__(self, units, repeat=False, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.repeat = repeat

    def build(self, _):
        self.state = self.add_weight(shape=(1, self.units), name="state")

    def call(self, x):
        state = keras.ops.convert_to_tensor(self.state)
        rows = keras.ops.shape(x)[0] if self.repeat else 1
        return keras.ops.repeat(state, rows, axis=0)

    def compute_output_shape(self, shape):
        return (shape[0] if self.repeat else 1, self.units)

    def get_config(self):
        return super().get_config() | {"units": self.units, "repeat": self.repeat}


def with_first_state(make):
    frames = keras.Input((None, 3), name="frames")
    layer = rk.GRU(4, return_sequences=True, name="gru")
    model = keras.Model(frames, layer(frames, initial_state=[make(frames)]))
    randomize(model, np.random.default_rng(1))
    return model


@pytest.mark.parametrize("repeat", [False, True])
def test_reset_returns_a_trained_state(repeat, rng, tmp_path):
    model = with_first_state(Learned(4, repeat))
    rk.export_tflite(model, tmp_path / "m.tflite", streaming=True, batch_size=2)
    file = rk.StreamingModel(tmp_path / "m.tflite")
    learned = np.repeat(model.get_weights()[0], 2, axis=0)
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    for _ in range(2):
        assert_close(file.states["gru_h"], learned)
        got = [file.step(part) for part in np.split(x, 5, axis=1)]
        assert_close(np.concatenate(got, axis=1), model(x))
        file.reset()


def caption(of):
    """An image, whose embedding is the first state, and the words said so far."""
    image = keras.Input((8, 8, 1), name="image")
    words = keras.Input((None,), dtype="int32", name="words")
    seen = layers.Conv2D(3, 3, activation="relu")(image)
    seen = layers.GlobalAveragePooling2D()(seen)
    states = [layers.Dense(5)(seen), layers.Dense(5)(seen)]
    x = layers.Embedding(9, 4)(words)
    x = of.LSTM(5, return_sequences=True, name="lstm")(x, initial_state=states)
    model = keras.Model([image, words], layers.Dense(9)(x))
    randomize(model, np.random.default_rng(1))
    return model


def rows_of_an_image():
    """The first state is that of another recurrent layer, of no part in the stream."""
    image = keras.Input((8, 6), name="image")
    words = keras.Input((None,), dtype="int32", name="words")
    states = [
        rk.GRU(5)(image),
        layers.Dense(5)(layers.Flatten()(image)),
        rk.GRU(5, go_backwards=True)(image),
    ]
    x = layers.Embedding(9, 4)(words)
    stack = rk.StackedRNN([rk.GRU(5), rk.LSTM(5)], return_sequences=True)
    model = keras.Model([image, words], stack(x, initial_state=states))
    randomize(model, np.random.default_rng(1))
    return model


MODELS = {
    "caption": lambda: caption(rk),
    "caption, Keras's": lambda: caption(layers),
    "rows of an image": rows_of_an_image,
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", MODELS)
def test_reset_takes_what_the_first_states_are_computed_from(kind, rng, tmp_path):
    model = MODELS[kind]()
    options = {"streaming": True, "batch_size": 2, "time_steps": None}
    rk.export_tflite(model, tmp_path / "m.tflite", **options)
    file = rk.StreamingModel(tmp_path / "m.tflite")
    assert file.input_names == ["words"]
    assert file.reset_names == ["image"]
    words = rng.integers(0, 9, (2, 6)).astype("int32")
    with pytest.raises(ValueError, match=r"`reset` must be given \['image'\] before"):
        file.step(words)
    for _ in range(2):
        image = rng.normal(size=(2, *model.inputs[0].shape[1:])).astype("float32")
        file.reset(image=image)
        got = [file.step(part) for part in np.split(words, [1, 4], axis=1)]
        assert_close(np.concatenate(got, axis=1), model([image, words]))
    with pytest.raises(ValueError, match=r"inputs must be \['image'\]; received \[\]"):
        file.reset()


def test_an_input_may_go_into_reset_and_steps_alike(rng, tmp_path):
    speaker = keras.Input((4,), name="speaker")
    frames = keras.Input((None, 3), name="frames")
    x = rk.GRU(5, return_sequences=True)(
        frames, initial_state=[layers.Dense(5)(speaker)]
    )
    x = layers.Add()([x, layers.Reshape((1, 5))(layers.Dense(5)(speaker))])
    model = keras.Model([speaker, frames], x)
    randomize(model, rng)
    rk.export_tflite(model, tmp_path / "m.tflite", streaming=True)
    file = rk.StreamingModel(tmp_path / "m.tflite")
    given = {"speaker": rng.normal(size=(1, 4)).astype("float32")}
    x = rng.normal(size=(1, 5, 3)).astype("float32")
    file.reset(**given)
    got = [file.step(frames=x[:, [t]], **given) for t in range(5)]
    assert_close(np.concatenate(got, axis=1), model([given["speaker"], x]))


def test_a_decoder_streams_while_its_encoder_is_reset(rng, tmp_path):
    source = keras.Input((7, 3), name="source")
    target = keras.Input((None, 2), name="target")
    _, *states = rk.LSTM(4, return_state=True, name="encoder")(source)
    decoder = rk.LSTM(4, return_sequences=True, name="decoder")
    model = keras.Model([source, target], decoder(target, initial_state=states))
    randomize(model, rng)
    options = {"streaming": True, "time_steps": {"target": 1}}
    rk.export_tflite(model, tmp_path / "m.tflite", **options)
    file = rk.StreamingModel(tmp_path / "m.tflite")
    x = rng.normal(size=(1, 7, 3)).astype("float32")
    y = rng.normal(size=(1, 5, 2)).astype("float32")
    file.reset(source=x)
    got = [file.step(target=y[:, [t]]) for t in range(5)]
    assert_close(np.concatenate(got, axis=1), model([x, y]))


@pytest.mark.parametrize(
    ("source", "make"),
    [
        ("encoder", lambda x: rk.GRU(4, name="encoder")(x)),
        ("average", lambda x: layers.GlobalAveragePooling1D(name="average")(x)),
    ],
)
def test_a_first_state_out_of_the_stream_itself_is_refused(source, make, tmp_path):
    def units(x):
        return layers.Dense(4, name="bridge")(make(x))

    source = "bridge" if source == "average" else source
    with pytest.raises(
        ValueError,
        match=rf"`gru` cannot stream: it takes its first state .* `{source}` computes",
    ):
        rk.export_tflite(with_first_state(units), tmp_path / "m", streaming=True)
    assert not list(tmp_path.iterdir())


def test_integers_begin_with_zeros(rng, tmp_path):
    model = with_first_state(Learned(4))
    x = rng.normal(size=(8, 5, 3)).astype("float32")
    options = {"quantize": "int8", "representative_data": x, "streaming": True}
    with pytest.raises(ValueError, match="must begin with states of zeros to stream"):
        rk.export_tflite(model, tmp_path / "m.tflite", **options)
    assert not list(tmp_path.iterdir())
