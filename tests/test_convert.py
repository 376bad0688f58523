"""`from_keras` and `to_keras`: the same model made of other layers."""

import keras
import numpy as np
import pytest
from keras import layers as stock

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize


def tagger():
    """Embedding, masks, states handed on, cells in `RNN`, a wrapper, a nested model."""
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = stock.Embedding(9, 5, mask_zero=True)(tokens)
    x = stock.Bidirectional(
        stock.LSTM(4, return_sequences=True, name="inner"),
        backward_layer=stock.LSTM(
            4, return_sequences=True, go_backwards=True, activation="relu"
        ),
        merge_mode="sum",
    )(x)
    x, h, _ = stock.LSTM(5, return_sequences=True, return_state=True, name="mid")(x)
    cells = [stock.GRUCell(4, reset_after=False), stock.SimpleRNNCell(3)]
    x = stock.RNN(cells, return_sequences=True, name="cells")(x)
    nested = keras.Sequential(
        [keras.Input((7, 3)), stock.GRU(6, return_sequences=True)], name="nested"
    )
    nested.supports_masking = True
    x = stock.GRU(5, return_sequences=True)(nested(x), initial_state=h)
    x = stock.Reshape((7, 5, 1))(x)
    return keras.Model(tokens, stock.TimeDistributed(stock.SimpleRNN(2))(x), name="t")


def encoder_decoder():
    """A layer and a model shared, two inputs and outputs, and an operation."""
    inputs = keras.Input((6, 3), name="b"), keras.Input((6, 3), name="a")
    shared = stock.GRU(4, return_sequences=True, name="shared")
    inner = keras.Model(inputs[0], shared(inputs[0]), name="inner")
    first, second = inner(inputs[0]), shared(inputs[1])
    outputs = {"sum": first + second, "last": stock.LSTM(2, name="last")(second)}
    return keras.Model(list(inputs), outputs)


def sequential():
    return keras.Sequential(
        [
            keras.Input((None, 3), name="frames"),
            stock.Masking(),
            stock.LSTM(4, return_sequences=True, dropout=0.2, stateful=False),
            stock.Dropout(0.1),
            stock.SimpleRNN(3, activity_regularizer="l2"),
        ]
    )


def inputs_of(model, rng):
    def draw(x):
        shape = [size or 4 for size in x.shape]
        if x.dtype == "int32":
            return rng.integers(0, 9, shape)
        return rng.normal(size=shape).astype("float32")

    arrays = [draw(x) for x in model.inputs]
    return arrays if len(arrays) > 1 else arrays[0]


def recurrent(model):
    """Every recurrent layer and cell within a model."""
    kinds = (stock.RNN, stock.Bidirectional, stock.LSTMCell, stock.GRUCell)
    kinds += (stock.SimpleRNNCell,)
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


@pytest.mark.filterwarnings(r"ignore:Layer '(nested|reshape\w*)'")
@pytest.mark.parametrize("make", [tagger, encoder_decoder, sequential])
def test_there_and_back_gives_the_same_outputs_weights_and_names(make, rng):
    model = make()
    randomize(model, rng)
    x = inputs_of(model, rng)
    expected = model(x)
    before = model.get_weights()
    ours = rk.from_keras(model)
    back = rk.to_keras(ours)
    assert len(recurrent(ours)) == len(recurrent(model)) > 0
    assert all(type(x).__module__.startswith("keras_rnnkit") for x in recurrent(ours))
    assert not any("keras_rnnkit" in type(x).__module__ for x in recurrent(back))
    for other in (ours, back):
        assert_close(keras.tree.flatten(other(x)), keras.tree.flatten(expected))
        assert [x.name for x in other.inputs] == [x.name for x in model.inputs]
        names = [
            [x.name for x in m.layers if isinstance(x, stock.Layer)]
            for m in (other, model)
        ]
        assert names[0] == names[1]
        assert [w.path for w in other.weights] == [w.path for w in model.weights]
        for got, weight in zip(other.get_weights(), before, strict=True):
            np.testing.assert_array_equal(got, weight)
    assert other.name == model.name


def test_compile_arguments_are_kept_and_the_source_is_not_touched(rng):
    model = sequential()
    model.compile("sgd", "mse", metrics=["mae"])
    ours = rk.from_keras(model)
    before = model.get_weights()
    x = rng.normal(size=(4, 5, 3)).astype("float32")
    ours.fit(x, np.zeros((4, 3)), verbose=0)
    assert isinstance(ours.optimizer, keras.optimizers.SGD)
    for got, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_arguments_that_keras_does_not_save_are_kept():
    layer = stock.LSTM(3, implementation=1, use_cudnn=False)
    model = keras.Sequential([keras.Input((4, 2)), layer])
    ours = rk.from_keras(model).layers[0]
    assert (ours.use_cudnn, ours.cell.implementation) == (False, 1)
    back = rk.to_keras(rk.from_keras(model)).layers[0]
    assert (back.use_cudnn, back.cell.implementation) == (False, 1)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.rnn = stock.LSTM(3)

    def call(self, inputs):
        return self.rnn(inputs)


class Hiding(stock.Layer):
    def __init__(self, rnn=None, **kwargs):
        super().__init__(**kwargs)
        self.rnn = stock.LSTM(3)

    def call(self, inputs):
        return self.rnn(inputs)

    def get_config(self):
        return {"name": self.name}


def of(*layers):
    return keras.Sequential([keras.Input((4, 2)), *layers])


def with_lengths():
    inputs = keras.Input((4, 2)), keras.Input((), dtype="int32")
    return keras.Model(inputs, rk.GRU(3, name="g")(inputs[0], lengths=inputs[1]))


@pytest.mark.parametrize(
    ("convert", "make", "message"),
    [
        (rk.from_keras, Subclassed, "functional or sequential; received.*`Subclassed`"),
        (
            rk.from_keras,
            lambda: of(Hiding(name="h")),
            "`h` of the class `Hiding`.*LSTM",
        ),
        (
            rk.from_keras,
            lambda: keras.Sequential([stock.LSTM(3)]),
            "must be built; received `sequential",
        ),
        (
            rk.to_keras,
            lambda: of(rk.LSTM(3, peephole=True, name="p")),
            "`p`.*peephole=T",
        ),
        (
            rk.to_keras,
            lambda: of(rk.Bidirectional(rk.GRU(3, zoneout=0.1, name="z"))),
            "`forward_z` has no equivalent in Keras: it has `zoneout=0.1`",
        ),
        (
            rk.to_keras,
            lambda: of(rk.StackedRNN([rk.GRU(3)], name="s")),
            "`s`.*StackedRNN",
        ),
        (rk.to_keras, with_lengths, "`g` has no equivalent.*called with `lengths`"),
    ],
)
def test_what_cannot_be_converted_raises_and_is_named(convert, make, message):
    with pytest.raises(ValueError, match=message):
        convert(make())
