"""Which models are exported: of any kind, with any names, types and layers inside."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize


def served(path, **inputs):
    """What a SavedModel answers."""
    run = tf.saved_model.load(str(path)).signatures["serving_default"]
    outputs = run(**{name: tf.constant(x) for name, x in inputs.items()})
    return {name: y.numpy() for name, y in outputs.items()}


# Around an unknown number of steps


def tagger(x):
    return layers.TimeDistributed(layers.Dense(2))(rk.LSTM(4, return_sequences=True)(x))


def masked_tagger(x):
    x = layers.Masking()(x)
    return layers.TimeDistributed(layers.Dense(2))(
        layers.GRU(4, return_sequences=True)(x)
    )


def film(x):
    x = layers.Reshape((-1, 3, 1, 1))(x)
    x = layers.TimeDistributed(layers.Conv2D(2, (2, 1), activation="relu"))(x)
    return layers.GRU(3)(layers.TimeDistributed(layers.Flatten())(x))


def nested(x):
    inputs = keras.Input((3,))
    inner = keras.Model(inputs, layers.Dense(2, "tanh")(layers.Dense(4)(inputs)))
    return layers.Bidirectional(layers.LSTM(2))(layers.TimeDistributed(inner)(x))


def recurrent_inside(x):
    x = layers.Reshape((-1, 3, 1))(x)
    return layers.TimeDistributed(layers.LSTM(2))(x)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    "make", [tagger, masked_tagger, film, nested, recurrent_inside]
)
@pytest.mark.parametrize("batch_size", [1, None])
def test_time_distributed_goes_over_any_number_of_steps(
    make, batch_size, rng, tmp_path
):
    inputs = keras.Input((None, 3), name="x")
    model = keras.Model(inputs, make(inputs))
    randomize(model, rng, scale=0.5)
    rk.export_tflite(model, tmp_path / "m.tflite", batch_size=batch_size)
    file = rk.TFLiteModel(tmp_path / "m.tflite")
    if batch_size is None:
        rk.export_saved_model(model, tmp_path / "m")
    for rows, steps in (1, 4), (3, 9), (5, 5):
        x = rng.normal(size=(rows, steps, 3)).astype("float32")
        x[:, steps // 2 :] = 0
        want = model(x)
        assert_close(file.predict(x=x)["output_0"], want)
        if batch_size is None:
            assert_close(served(tmp_path / "m", x=x)["output_0"], want)


# Names


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["input-1", "1st", "in", "lambda", "my input", "é:0"])
def test_inputs_have_any_name(name, rng, tmp_path):
    inputs = keras.Input((6, 3), name=name)
    model = keras.Model(inputs, layers.LSTM(4)(inputs))
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    rk.export_tflite(model, tmp_path / "m.tflite", check={name: x})
    assert_close(rk.TFLiteModel(tmp_path / "m.tflite").predict(x)["output_0"], model(x))
    rk.export_tflite(model, tmp_path / "s.tflite", streaming=True)
    live = rk.StreamingModel(tmp_path / "s.tflite")
    for t in range(6):
        y = live.step(x[:1, t : t + 1])
    assert_close(y, model(x[:1]))
    rk.export_saved_model(model, tmp_path / "m")
    run = tf.saved_model.load(tmp_path / "m").signatures["serving_default"]
    (own,) = run.structured_input_signature[1]
    assert_close(run(**{own: tf.constant(x)})["output_0"], model(x))


def test_names_that_become_equal_stay_apart(rng, tmp_path):
    inputs = [keras.Input((3,), name=name) for name in ("a-1", "a_1", "a 1")]
    model = keras.Model(
        inputs, layers.Concatenate()([i * x for i, x in enumerate(inputs)])
    )
    data = [rng.normal(size=(1, 3)).astype("float32") for _ in inputs]
    check = dict(zip(("a-1", "a_1", "a 1"), data, strict=True))
    report = rk.export_tflite(model, tmp_path / "m.tflite", check=check)
    names = [*report.signatures["serving_default"]["inputs"]]
    assert len(set(names)) == 3
    assert "a_1" in names


def test_outputs_within_outputs_have_names_of_all_their_keys(rng, tmp_path):
    x = inputs = keras.Input((5, 3), name="x")
    hidden = layers.LSTM(3)(x)
    outputs = {"tags": {"pos": hidden, "ner": 2 * hidden}, "all": [hidden, 3 * hidden]}
    model = keras.Model(inputs, outputs)
    x = rng.normal(size=(1, 5, 3)).astype("float32")
    rk.export_tflite(model, tmp_path / "m.tflite")
    got, want = rk.TFLiteModel(tmp_path / "m.tflite")(x=x), model(x)
    assert set(got) == {"tags_pos", "tags_ner", "all_0", "all_1"}
    assert_close(got["tags_ner"], want["tags"]["ner"])
    assert_close(got["all_1"], want["all"][1])


# Words


def of_text():
    words = layers.TextVectorization(max_tokens=30, output_sequence_length=6, name="w")
    words.adapt(["a good film", "a bad long film", "not so good"])
    inputs = keras.Input((1,), dtype="string", name="text")
    x = layers.Embedding(30, 5, mask_zero=True)(words(inputs))
    return inputs, layers.Dense(1)(rk.Bidirectional(rk.LSTM(4))(x))


def of_keys():
    lookup = layers.StringLookup(vocabulary=["a", "b", "c"], name="w")
    inputs = keras.Input((4,), dtype="string", name="text")
    inner = keras.Model(inputs, lookup(inputs))
    again = keras.Input((4,), dtype="string", name="text")
    return again, layers.GRU(3)(layers.Embedding(4, 3)(inner(again)))


@pytest.mark.parametrize("make", [of_text, of_keys])
def test_a_model_from_words_on_is_saved_with_its_tables(make, rng, tmp_path):
    model = keras.Model(*make())
    randomize(model, rng, scale=0.5)
    texts = np.array([["a good film"], ["long and bad"], [""]])
    if make is of_keys:
        texts = np.array([["a", "b", "z", ""], ["c", "c", "a", "b"]])
    rk.export_saved_model(model, tmp_path / "m")
    want = model(tf.constant(texts))
    assert_close(served(tmp_path / "m", text=texts)["output_0"], want)
    with pytest.raises(ValueError, match="`w` looks up words.*token ids"):
        rk.export_tflite(model, tmp_path / "m.tflite")


# Types


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "policy", ["mixed_float16", "mixed_bfloat16", "float16", "float64", "int8"]
)
def test_a_model_of_other_types_is_written_in_float32(policy, rng, tmp_path):
    own = "float32" if policy == "int8" else policy
    inputs = keras.Input((6, 3), name="x", dtype="float32")
    x = layers.LSTM(4, dtype=own, return_sequences=True)(inputs)
    x = layers.Bidirectional(layers.GRU(3, dtype=own), dtype=own)(x)
    model = keras.Model(inputs, layers.Dense(2, dtype=own)(x))
    randomize(model, rng, scale=0.5)
    if policy == "int8":
        with pytest.warns(UserWarning, match="quantize"):
            model.quantize("int8")
    before = [w.numpy() for w in model.weights]
    policies = [layer.dtype_policy.name for layer in model.layers]
    rk.export_tflite(model, tmp_path / "m.tflite")
    assert [layer.dtype_policy.name for layer in model.layers] == policies
    for old, new in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    x = rng.normal(size=(4, 6, 3)).astype("float32")
    got = rk.TFLiteModel(tmp_path / "m.tflite").predict(x=x)["output_0"]
    want = np.asarray(model(x), "float32")
    assert abs(got - want).max() < 0.03 * abs(want).max()


# Classes of one's own


class Block(layers.Layer):
    """A recurrent layer that `get_config` does not tell of."""

    def __init__(self, units, kind, **kwargs):
        super().__init__(**kwargs)
        self.rnn = kind(units, return_sequences=True)

    def build(self, shape):
        self.rnn.build(shape)
        self.built = True

    def call(self, x):
        return x + self.rnn(x)


class Own(keras.Model):
    def __init__(self, kind):
        super().__init__()
        self.embed, self.rnn, self.out = (
            layers.Embedding(9, 3),
            kind(4),
            layers.Dense(2),
        )

    def call(self, x):
        return self.out(self.rnn(self.embed(x)))


@pytest.mark.parametrize("kind", [layers.LSTM, rk.LSTM, layers.SimpleRNN])
def test_a_layer_of_ones_own_is_traced_as_it_is(kind, rng, tmp_path):
    model = keras.Sequential([keras.Input((5, 3), name="x"), Block(3, kind)])
    randomize(model, rng, scale=0.5)
    x = rng.normal(size=(4, 5, 3)).astype("float32")
    for batch_size in (1, None):
        rk.export_tflite(model, tmp_path / "m.tflite", batch_size=batch_size)
        got = rk.TFLiteModel(tmp_path / "m.tflite").predict(x=x)["output_0"]
        assert_close(got, model(x))


@pytest.mark.parametrize("kind", [layers.GRU, rk.LSTM])
def test_a_model_of_ones_own_is_traced_as_it_is(kind, rng, tmp_path):
    model = Own(kind)
    with pytest.raises(ValueError, match="must be built.*call the model once"):
        rk.export_tflite(model, tmp_path / "m.tflite")
    tokens = rng.integers(0, 9, (4, 5)).astype("int32")
    model(tokens)
    randomize(model, rng, scale=0.5)
    rk.export_tflite(model, tmp_path / "m.tflite", check=tokens)
    file = rk.TFLiteModel(tmp_path / "m.tflite")
    assert_close(file.predict(tokens)["output_0"], model(tokens))
    rk.export_saved_model(model, tmp_path / "m", check=tokens)
    assert_close(served(tmp_path / "m", x=tokens)["output_0"], model(tokens))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("batch_size", [1, None])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: layers.ConvLSTM1D(2, 3, return_sequences=True), (4, 6, 1)),
        (lambda: layers.ConvLSTM2D(2, 3), (4, 6, 6, 1)),
        (lambda: layers.Bidirectional(layers.ConvLSTM2D(2, 3)), (4, 5, 5, 1)),
        (lambda: layers.RNN(layers.StackedRNNCells([layers.GRUCell(2)] * 1)), (5, 3)),
    ],
)
def test_layers_that_keras_runs_on_lists_take_any_batch(
    layer, shape, batch_size, rng, tmp_path
):
    model = keras.Sequential([keras.Input(shape, name="x"), layer()])
    randomize(model, rng, scale=0.5)
    rk.export_tflite(model, tmp_path / "m.tflite", batch_size=batch_size)
    x = rng.normal(size=(3, *shape)).astype("float32")
    got = rk.TFLiteModel(tmp_path / "m.tflite").predict(x=x)["output_0"]
    assert_close(got, model(x))


# What is said


class Loops(layers.Layer):
    """Has Python ask for the value of a tensor."""

    def call(self, x):
        return x * 2 if ops.sum(x) > 0 else x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x: Loops(name="mine")(x), "`mine`"),
        (
            lambda x: layers.Lambda(lambda y: tf.linalg.svd(y)[0], name="svd")(x),
            "`svd`",
        ),
    ],
)
def test_an_error_of_others_is_one_sentence_that_names_the_layer(make, names, tmp_path):
    inputs = keras.Input((5, 3), name="x")
    model = keras.Model(inputs, make(layers.GRU(3, return_sequences=True)(inputs)))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        rk.export_tflite(model, tmp_path / "m.tflite")
    said = str(error.value)
    assert names in said
    assert "nothing was written" in said
    assert "\n" not in said
    assert "in user code" not in said
    assert len(said) < 600
    assert not list(tmp_path.iterdir())


def test_a_model_of_keras_2_is_named(tmp_path):
    kind = type("Sequential", (), {"__module__": "tf_keras.src.engine", "name": "old"})
    for export in rk.export_tflite, rk.export_saved_model:
        with pytest.raises(ValueError, match=r"`old` of Keras 2.*`rk.load_model`"):
            export(kind(), tmp_path / "m")


def test_what_a_model_lacks_is_said_of_its_data(rng, tmp_path):
    inputs = [keras.Input((5, 3), name="x"), keras.Input((5, 3), name="z")]
    model = keras.Model(inputs, layers.GRU(2)(layers.Add()(inputs)))
    x = rng.normal(size=(2, 5, 3))
    with pytest.raises(ValueError, match=r"`check` must hold .*'x', 'z'.*\['x', 'y'\]"):
        rk.export_tflite(model, tmp_path / "m.tflite", check={"x": x, "y": x})
