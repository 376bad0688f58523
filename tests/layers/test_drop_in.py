"""What people do with Keras's layers works with ours in their place."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as stock

import keras_rnnkit as rk
from tests.helpers import assert_close

X = np.random.default_rng(5).normal(size=(4, 6, 3)).astype("float32")
MASK = np.random.default_rng(6).random((4, 6)) < 0.6


def doubling(layers):
    """A subclass of a cell that writes `call` anew."""

    class Doubling(layers.LSTMCell):
        def call(self, inputs, states, training=False):
            output, states = super().call(inputs, states, training=training)
            return output * 2, states

    return layers.RNN(Doubling(4), return_sequences=True)


def own_dropout(layers):
    """A subclass of a cell with dropout masks of its own."""

    class Tripled(layers.GRUCell):
        def get_dropout_mask(self, step_input):
            return 3 * keras.ops.ones_like(step_input)

    return layers.RNN(Tripled(4, dropout=0.5))


def replaced_weight(layers):
    """A weight replaced by a tensor, as weight dropping and pruning do."""
    layer = layers.LSTM(4)
    layer(X)
    layer.cell.recurrent_kernel = keras.ops.ones((4, 16))
    return layer


def sublayer(layers):
    """A cell with a layer of its own, whose weights have the same names."""

    class Gated(layers.SimpleRNNCell):
        def __init__(self, units):
            super().__init__(units)
            self.gate = stock.Dense(units, activation="sigmoid")

        def build(self, shape):
            super().build(shape)
            self.gate.build(shape)

        def call(self, inputs, states, training=False):
            output, states = super().call(inputs, states, training=training)
            return output * self.gate(inputs), states

    return layers.RNN(Gated(4))


def replaced_cell(layers):
    """A layer whose cell is set after it was made."""

    class Mine(layers.LSTM):
        def __init__(self, units):
            super().__init__(units)
            self.cell = doubling(layers).cell

    return Mine(4)


class Wide(stock.Layer):
    """Several states, and an output that is as wide as none of the first."""

    state_size = (4, 8)

    def call(self, inputs, states):
        total = keras.ops.sum(inputs, axis=-1, keepdims=True)
        states = [states[0] + total, states[1] - total]
        return states[1] * 2, states


class Ensemble(stock.Layer):
    """A cell with an attribute `cells`, which is not `StackedRNNCells`."""

    def __init__(self):
        super().__init__()
        self.cells = [stock.SimpleRNNCell(4), stock.SimpleRNNCell(4)]
        self.state_size = 4

    def build(self, shape):
        for cell in self.cells:
            cell.build(shape)

    def call(self, inputs, states):
        outputs = [cell(inputs, states)[0] for cell in self.cells]
        return sum(outputs), [sum(outputs)]


class Plain:
    """A cell that is no layer."""

    state_size = 3
    compute_dtype = "float32"

    def call(self, inputs, states, training=False):
        return inputs + states[0] * (2 if training else 1), [inputs]

    __call__ = call


def policies(layers):
    """Types by path, for the layer and for its cell."""
    types = keras.dtype_policies.DTypePolicyMap()
    types["a"] = types["a/lstm_cell"] = keras.DTypePolicy("mixed_float16")
    return layers.LSTM(4, dtype=types, name="a")


MAKERS = {
    **{f.__name__: f for f in (doubling, own_dropout, replaced_weight, sublayer)},
    "replaced_cell": replaced_cell,
    "policies": policies,
    "wide": lambda layers: layers.RNN(Wide(), return_sequences=True),
    "ensemble": lambda layers: layers.RNN(Ensemble(), return_state=True),
    "plain": lambda layers: layers.RNN(Plain()),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_cells_and_layers_that_users_change_keep_their_way(make, training, masked):
    results = []
    for layers in (stock, rk.layers):
        keras.utils.set_random_seed(0)
        layer = make(layers)
        call = {"mask": MASK} if masked else {}
        results.append(layer(X, training=training, **call))
    stock_result, ours = (tf.nest.flatten(result) for result in results)
    tolerance = 1e-2 if make is policies else 1e-5
    for got, expected in zip(ours, stock_result, strict=True):
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)


def test_a_cell_over_images_runs_as_in_keras():
    class Convolution(stock.Layer):
        state_size = 2

        def __init__(self):
            super().__init__()
            self.convolution = stock.Conv2D(2, 3, padding="same")

        def build(self, shape):
            self.convolution.build((*shape[:-1], 3))

        def get_initial_state(self, batch_size=None):
            return [keras.ops.zeros((batch_size, 5, 5, 2))]

        def call(self, inputs, states):
            joined = keras.ops.concatenate([inputs, states[0]], axis=-1)
            output = keras.ops.tanh(self.convolution(joined))
            return output, [output]

    x = np.random.default_rng(0).normal(size=(4, 6, 5, 5, 1)).astype("float32")
    results = []
    for layers in (stock, rk.layers):
        keras.utils.set_random_seed(0)
        layer = layers.RNN(Convolution(), return_sequences=True)
        results.append([layer(x), layer(x, mask=MASK)])
    assert_close(*results[::-1])


def test_a_subclass_may_add_an_argument_to_call():
    class Scaled(rk.LSTM):
        def call(
            self,
            sequences,
            initial_state=None,
            mask=None,
            training=False,
            lengths=None,
            scale=None,
        ):
            return scale * super().call(sequences, mask=mask, training=training)

    inputs = keras.Input((6, 3)), keras.Input((1,))
    layer = Scaled(4)
    model = keras.Model(inputs, layer(inputs[0], scale=inputs[1]))
    plain = rk.LSTM(4)
    plain.build(X.shape)
    plain.set_weights(layer.get_weights())
    assert_close(model([X, np.full((4, 1), 3.0)]), 3 * plain(X))


def test_a_bidirectional_wrapper_asks_no_mask_of_a_layer_without_one():
    class Sum(stock.Layer):
        stateful = return_state = False

        def __init__(self, go_backwards=False, return_sequences=True, **kwargs):
            super().__init__(**kwargs)
            self.go_backwards = go_backwards
            self.return_sequences = return_sequences

        def call(self, sequences, initial_state=None):
            x = sequences[:, ::-1] if self.go_backwards else sequences
            return keras.ops.cumsum(x, axis=1)

        def get_config(self):
            return {"go_backwards": self.go_backwards, "name": self.name}

    with keras.saving.custom_object_scope({"Sum": Sum}):
        expected = stock.Bidirectional(Sum())(X)
        assert_close(rk.Bidirectional(Sum())(X), expected)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_one_initial_state_serves_all_sequences(name):
    results = []
    for layers in (stock, rk.layers):
        keras.utils.set_random_seed(0)
        layer = getattr(layers, name)(4)
        learned = [np.full((1, 4), 0.3, "float32")] * (2 if name == "LSTM" else 1)
        inputs = keras.Input((6, 3))
        model = keras.Model(inputs, layer(inputs, initial_state=learned))
        results += [layer(X, initial_state=learned), model(X)]
    for result in results[1:]:
        assert_close(result, results[0])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_jacobians_and_second_derivatives_equal_those_of_keras(name):
    results = []
    for layers in (stock, rk.layers):
        keras.utils.set_random_seed(0)
        layer = getattr(layers, name)(4)
        layer.build(X.shape)
        x = tf.constant(X)

        @tf.function
        def derive(layer=layer, x=x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                output = layer(x)
            jacobian = tape.batch_jacobian(output, x)
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    loss = tf.reduce_sum(layer(x) ** 2)
                slope = tf.reduce_sum(inner.gradient(loss, x) ** 2)
            return jacobian, outer.gradient(slope, x)

        results.append(derive())
    assert_close(*results[::-1])


# Conversion


def of(*layers):
    return keras.Sequential([keras.Input((6, 3)), *layers])


def test_conversion_keeps_what_adapted_layers_have_learned():
    normalization = stock.Normalization()
    normalization.adapt(7 * X + 3)
    model = of(normalization, stock.LSTM(4))
    assert_close(rk.from_keras(model)(X), model(X))


def test_conversion_keeps_lambdas_and_frozen_parts():
    model = of(stock.Lambda(lambda x: 2 * x), stock.LSTM(4), stock.Dense(2))
    model.layers[1].cell.trainable = False
    ours = rk.from_keras(model)
    assert_close(ours(X), model(X))
    assert len(ours.trainable_weights) == len(model.trainable_weights) == 2


def test_conversion_refuses_to_lose_a_class_or_a_shared_layer():
    class Own(keras.Model):
        def __init__(self):
            inputs = keras.Input((6, 3))
            super().__init__(inputs, stock.LSTM(3)(inputs))

    with pytest.raises(ValueError, match="subclass `Own`"):
        rk.from_keras(Own())
    layer, inputs = stock.LSTM(3), keras.Input((2, 6, 3))
    both = layer(inputs[:, 0]), stock.TimeDistributed(layer)(inputs)
    with pytest.raises(ValueError, match="must not be shared; received 3 weights"):
        rk.from_keras(keras.Model(inputs, both))


# Export


@pytest.mark.parametrize("form", [list, tuple, dict])
def test_exports_take_the_types_of_numpy(form, tmp_path):
    model = keras.Sequential([keras.Input((6, 3), name="x"), rk.LSTM(4)])
    x = X.astype("float64")
    check = {"x": x} if form is dict else form([x])
    rk.export_tflite(model, tmp_path / "m.tflite", check=check)
    lite = rk.TFLiteModel(tmp_path / "m.tflite")
    assert_close(lite.predict(x=x)["output_0"], model(X))
    with pytest.raises(ValueError, match=r"inputs must be \['x'\]; received \['y'\]"):
        lite(y=x[:1])


def test_unnamed_inputs_are_exported_under_the_name_of_their_layer(tmp_path):
    inputs = keras.Input((6, 3))
    model = keras.Model(inputs, rk.GRU(2)(inputs))
    rk.export_tflite(model, tmp_path / "m.tflite")
    names = rk.TFLiteModel(tmp_path / "m.tflite").input_names
    assert names == [model.layers[0].name]
