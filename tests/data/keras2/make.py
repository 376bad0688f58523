"""Makes the files of this folder: models that Keras 2 saved, and what it answers.

Run in an environment that has `tf_keras` (2.21 made these): `python make.py`. For each
model there are one or two files, and `<name>.npz` with the inputs by name and the
output `y`.
"""

import json
from pathlib import Path

import h5py
import numpy as np
import tf_keras as keras
from tf_keras import layers
from tf_keras.api._v1.keras.layers import CuDNNGRU, CuDNNLSTM

FOLDER = Path(__file__).parent
HARD = {"recurrent_activation": "hard_sigmoid"}
RNG = np.random.default_rng(0)


def sequential(shape, *rest, **given):
    return keras.Sequential([keras.Input(shape, **given), *rest])


def lstm():
    return sequential(
        (6, 2),
        layers.LSTM(4, **HARD, return_sequences=True),
        layers.Dropout(0.3),
        layers.LSTM(3, dropout=0.2),
        layers.Dense(2, "hard_sigmoid"),
    )


def gru_reset_before():
    return sequential(
        (None, 2),
        layers.GRU(4, reset_after=False, **HARD, return_sequences=True),
        layers.GRU(3, reset_after=False, go_backwards=True),
    )


def bidirectional():
    layer = layers.GRU(3, reset_after=False, **HARD, return_sequences=True)
    return sequential(
        (6, 2),
        layers.Bidirectional(layer, merge_mode="sum"),
        layers.BatchNormalization(),
        layers.Bidirectional(
            layers.LSTM(2), backward_layer=layers.LSTM(2, "relu", go_backwards=True)
        ),
    )


def cells():
    stacked = [
        layers.LSTMCell(3, **HARD),
        layers.GRUCell(3, reset_after=False),
        layers.SimpleRNNCell(2),
    ]
    return sequential(
        (5, 2),
        layers.RNN(stacked, return_sequences=True),
        layers.SimpleRNN(3, unroll=True, use_bias=False),
        layers.LeakyReLU(0.1),
    )


def masked():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(7, 3, mask_zero=True)(tokens)
    x = layers.GRU(4, return_sequences=True)(x)
    return keras.Model(tokens, layers.LSTM(3, **HARD)(x))


def two_inputs():
    """An encoder whose states a decoder begins with."""
    source = keras.Input((5, 2), name="source")
    target = keras.Input((4, 3), name="target")
    _, h, c = layers.LSTM(3, return_state=True, **HARD)(source)
    x = layers.LSTM(3, return_sequences=True)(target, initial_state=[h, c])
    x = layers.Concatenate()([x, layers.RepeatVector(4)(h)])
    return keras.Model([source, target], layers.Dense(2)(x))


def nested():
    """Models in a model, one of them called twice, in another order than named."""
    inner = sequential((4, 3), layers.Conv1D(3, 2), layers.GRU(3, name="z"))
    x = keras.Input((4, 3))
    twin = keras.Model(x, layers.Dense(3, name="a")(layers.LSTM(3, name="b")(x)))
    left, right = keras.Input((4, 3), name="left"), keras.Input((4, 3), name="right")
    twin.layers[1].trainable = False
    both = layers.Subtract()([twin(left), twin(right)])
    return keras.Model([left, right], layers.Add()([inner(right), both]))


def order():
    """Layers of one shape, on paths of several lengths."""
    x = keras.Input((4, 3), name="x")
    deep = layers.LSTM(3, return_sequences=True)(
        layers.LSTM(3, return_sequences=True)(x)
    )
    flat = layers.LSTM(3)(x)
    return keras.Model(x, layers.Add()([flat, layers.LSTM(3, **HARD)(deep)]))


def time_distributed():
    frames = sequential((4, 2), layers.Conv1D(3, 2), layers.Flatten())
    return sequential(
        (3, 4, 2),
        layers.TimeDistributed(frames),
        layers.Masking(),
        layers.TimeDistributed(layers.Dense(3, "relu")),
        layers.LSTM(3, **HARD),
    )


def images():
    return sequential((3, 4, 4, 1), layers.ConvLSTM2D(2, 2), layers.Flatten())


def stateful():
    return sequential(
        (3, 2),
        layers.LSTM(3, stateful=True, return_sequences=True, **HARD),
        layers.GRU(2, stateful=True),
        batch_size=2,
    )


def own_code():
    return sequential((4, 2), layers.Lambda(lambda x: 2 * x), layers.GRU(3))


def cudnn(classes=(CuDNNGRU, CuDNNLSTM)):
    gru, lstm = classes
    return sequential(
        (5, 3),
        layers.Bidirectional(gru(3, return_sequences=True)),
        lstm(4, return_sequences=True),
        gru(3),
    )


def time_major():
    return sequential((4, 2), layers.LSTM(3, time_major=True), batch_size=4)


def randomize(model):
    """Sets random weights, of which a variance is positive."""
    arrays = [0.7 * RNG.normal(size=w.shape) for w in model.get_weights()]
    names = [w.name for w in model.weights]
    pairs = zip(arrays, names, strict=True)
    model.set_weights([abs(a) if "variance" in n else a for a, n in pairs])


def inputs_of(model, rows=2):
    shapes = {x.name: [rows, *(n or 6 for n in x.shape[1:])] for x in model.inputs}
    return {
        x.name: RNG.integers(0, 7, shapes[x.name]).astype("int32")
        if x.dtype == "int32"
        else RNG.normal(size=shapes[x.name]).astype("float32")
        for x in model.inputs
    }


def keep(name, model, *suffixes, peer=None):
    """Saves a model, and what it answers; `peer` answers where it cannot."""
    randomize(model)
    for suffix in suffixes:
        model.save(FOLDER / f"{name}.{suffix}")
    if peer is not None:
        model.save_weights(FOLDER / "weights.h5")
        peer.load_weights(FOLDER / "weights.h5")
        (FOLDER / "weights.h5").unlink()
    inputs = inputs_of(model)
    y = (peer or model).predict(list(inputs.values()), verbose=0)
    np.savez(FOLDER / f"{name}.npz", **inputs, y=y)


def age(name, new):
    """Rewrites an .h5 file as Keras 2.1 wrote one: a list of layers, the first one with
    the shape of the input, no modules, no `reset_after`."""

    def older(value):
        if isinstance(value, dict):
            left_out = "module", "registered_name", "build_config", "reset_after"
            left_out += "time_major", "ragged", "trainable"
            return {k: older(v) for k, v in value.items() if k not in left_out}
        return [older(v) for v in value] if isinstance(value, list) else value

    (FOLDER / f"{new}.h5").write_bytes((FOLDER / f"{name}.h5").read_bytes())
    with h5py.File(FOLDER / f"{new}.h5", "r+") as file:
        config = older(json.loads(file.attrs["model_config"]))
        first, *rest = config["config"]["layers"]
        rest[0]["config"]["batch_input_shape"] = first["config"]["batch_input_shape"]
        file.attrs["model_config"] = json.dumps({**config, "config": rest}).encode()
        file.attrs["keras_version"] = b"2.1.6"
    (FOLDER / f"{new}.npz").write_bytes((FOLDER / f"{name}.npz").read_bytes())


def main():
    for make in (bidirectional, cells, two_inputs, nested, order, lstm):
        keep(make.__name__, make(), "h5", "keras")
    for make in (masked, time_distributed):
        keep(make.__name__, make(), "keras")
    for make in (gru_reset_before, images, stateful, own_code, time_major):
        keep(make.__name__, make(), "h5")
    plain = [
        lambda units, **given: layers.GRU(units, reset_after=True, **given),
        layers.LSTM,
    ]
    keep("cudnn", cudnn(), "h5", peer=cudnn(plain))
    age("gru_reset_before", "old")
    keras.mixed_precision.set_global_policy("mixed_float16")
    half = sequential((4, 2), layers.LSTM(3))
    keras.mixed_precision.set_global_policy("float32")
    keep("half", half, "h5")


if __name__ == "__main__":
    main()
