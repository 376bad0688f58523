"""A ragged tensor is its padded form with its lengths; each row stands for itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize
from tests.layers.test_bad_input import assert_raises

L = keras.layers
LENGTHS = 4, 7, 1
LAYERS = {
    "LSTM": lambda **k: rk.LSTM(3, **k),
    "GRU": lambda **k: rk.GRU(3, **k),
    "ESN": lambda **k: rk.ESN(5, seed=1, **k),
    "RNN of a stock cell": lambda **k: rk.RNN(L.GRUCell(3), **k),
    "Bidirectional": lambda **k: rk.Bidirectional(rk.LSTM(2, **k)),
    "StackedRNN": lambda **k: rk.StackedRNN([rk.LSTM(3), rk.GRU(2)], **k),
}


def rows(rng, features=4):
    return [rng.normal(size=(n, features)).astype("float32") for n in LENGTHS]


def ragged_of(parts):
    return tf.RaggedTensor.from_row_lengths(np.concatenate(parts), [*map(len, parts)])


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_rows_give_what_each_gives_alone(name, sequences, rng):
    layer, parts = LAYERS[name](return_sequences=sequences), rows(rng)
    weights = [rng.normal(size=(1, *np.shape(layer(p[None]))[1:])) for p in parts]
    with tf.GradientTape() as tape:
        x = ragged_of(parts)
        tape.watch(x.values)
        got = layer(x)
        if sequences:
            np.testing.assert_array_equal(got._keras_mask.numpy().sum(1), LENGTHS)
            found = [row[:n] for row, n in zip(got, LENGTHS, strict=True)]
        else:
            found = tf.unstack(got)
        loss = sum(
            tf.reduce_sum(row * w) for row, w in zip(found, weights, strict=True)
        )
    by_steps = tf.convert_to_tensor(tape.gradient(loss, x.values))
    for row, part, w, d in zip(
        found, parts, weights, np.split(by_steps, np.cumsum(LENGTHS)[:-1]), strict=True
    ):
        one = tf.constant(part[None])
        with tf.GradientTape() as tape:
            tape.watch(one)
            alone = layer(one)
            loss = tf.reduce_sum(alone * w)
        assert_close(row, alone[0])
        assert_close(d, tape.gradient(loss, one)[0])


def model_of(sequences, loop, **given):
    layers = rk.LSTM(3, return_sequences=sequences, loop=loop), L.Dense(1)
    return keras.Sequential([keras.Input((None, 4), **given), *layers])


FED = {
    "ragged": lambda x, y: (x, y),
    "tf.data": lambda x, y: (tf.data.Dataset.from_tensor_slices((x, y)).batch(3),),
}


@pytest.mark.one_in(3)
@pytest.mark.filterwarnings("ignore:`shuffle=True`")
@pytest.mark.parametrize(
    ("form", "sequences", "loop", "given"),
    [
        ("ragged", True, "auto", {}),
        ("tf.data", True, "portable", {}),
        ("ragged", False, "portable", {"ragged": True}),
    ],
)
def test_a_model_trains_on_ragged_batches_as_with_lengths(
    form, sequences, loop, given, rng
):
    parts, model = rows(rng), model_of(sequences, loop, **given)
    array, lengths = rk.padded(parts)
    y = rng.normal(size=(3, max(LENGTHS), 1) if sequences else (3, 1))
    inputs = keras.Input((None, 4)), keras.Input((), dtype="int32")
    layer = rk.LSTM(3, return_sequences=sequences, loop=loop)
    lower = layer(inputs[0], lengths=inputs[1])
    other = keras.Model(inputs, L.Dense(1)(lower))
    other.set_weights(randomize(model, rng))
    for each in (model, other):
        each.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(*FED[form](ragged_of(parts), y), verbose=0)
    other.fit([array, lengths], y, verbose=0)
    assert_close(model.get_weights(), other.get_weights())
    assert_close(
        model.predict(ragged_of(parts), verbose=0),
        other.predict([array, lengths], verbose=0),
    )


def test_lengths_beside_a_ragged_tensor_and_lists_of_lengths(rng):
    layer, parts = rk.LSTM(3), rows(rng)
    array, lengths = rk.padded(parts)
    expected = layer(array, lengths=lengths)
    assert_close(layer(array, lengths=list(LENGTHS)), expected)
    assert_close(layer(array, lengths=LENGTHS), expected)
    cut = layer(array, lengths=np.minimum(lengths, [2, 5, 9]))
    assert_close(layer(ragged_of(parts), lengths=[2, 5, 9]), cut)


def test_features_that_are_ragged_only_in_name(rng):
    layer, parts = rk.GRU(3), rows(rng)
    x = tf.ragged.stack(parts)
    assert x.ragged_rank == 2
    assert_close(layer(x), layer(ragged_of(parts)))
    wrong = tf.ragged.constant([[[1.0, 2.0], [3.0]]])
    assert_raises("ragged in its steps only; received steps of 1, 2", layer, wrong)


# Lists as arrays


def test_sequences_are_padded(rng):
    parts = rows(rng)
    for form in parts, [part.tolist() for part in parts], ragged_of(parts):
        array, lengths = rk.padded(form)
        assert array.shape == (3, 7, 4)
        assert lengths.dtype == "int32"
        assert lengths.tolist() == list(LENGTHS)
        for row, part in zip(array, parts, strict=True):
            np.testing.assert_array_equal(row[: len(part)], part)
            assert not row[len(part) :].any()
    array, lengths = rk.padded([[3, 1], [4], []])
    np.testing.assert_array_equal(array, [[3, 1], [4, 0], [0, 0]])
    assert lengths.tolist() == [2, 1, 0]


BAD = {
    "none": ([], "`sequences` must be a list of arrays .* received none"),
    "numbers": ([1, 2], "`sequences` must be a list of arrays .* received numbers"),
    "features": (
        [np.ones((3, 2)), np.ones((4, 3))],
        r"`sequences\[1\]` must have shape \(steps, 2\), as `sequences\[0\]`; .*4, 3\)",
    ),
    "words": ([["a"], ["b", "c"]], r"`sequences\[0\]` must hold numbers; received <U1"),
}


@pytest.mark.parametrize(("given", "pattern"), BAD.values(), ids=BAD)
def test_what_cannot_be_padded_is_told(given, pattern):
    assert_raises(pattern, rk.padded, given)
