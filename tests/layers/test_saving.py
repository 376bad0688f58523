"""What is saved comes back: files, configurations, weights shared with Keras."""

import inspect
import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_rnnkit import (
    ESN,
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    ESNCell,
    GRUCell,
    LSTMCell,
    SimpleRNN,
    SimpleRNNCell,
    StackedRNN,
)
from tests.helpers import assert_close, randomize

SHAPE = (4, 5, 3)  # of the input of every model

SHARED = {
    "activation": "softsign",
    "use_bias": True,
    "kernel_initializer": keras.initializers.RandomNormal(stddev=0.3, seed=1),
    "recurrent_initializer": keras.initializers.RandomUniform(-0.2, 0.2, seed=2),
    "bias_initializer": keras.initializers.Constant(0.1),
    "kernel_regularizer": keras.regularizers.L2(0.01),
    "recurrent_regularizer": keras.regularizers.L1(0.02),
    "bias_regularizer": keras.regularizers.L1L2(0.03, 0.04),
    "kernel_constraint": keras.constraints.MaxNorm(3.0),
    "recurrent_constraint": keras.constraints.UnitNorm(),
    "bias_constraint": keras.constraints.NonNeg(),
    "dropout": 0.1,
    "recurrent_dropout": 0.2,
    "seed": 5,
}
GATED = SHARED | {"recurrent_activation": "hard_sigmoid", "layer_norm": True}
LSTM_CELL = GATED | {
    "unit_forget_bias": False,
    "peephole": True,
    "projection_units": 3,
    "zoneout": [0.1, 0.2],
}
GRU_CELL = GATED | {"reset_after": False, "zoneout": 0.3}
SIMPLE_CELL = SHARED | {"layer_norm": True}
ESN_CELL = {
    "spectral_radius": 0.7,
    "leak_rate": 0.4,
    "input_scaling": [0.1, 0.2],
    "bias_scaling": 0.3,
    "connectivity": 0.5,
    "input_connectivity": 0.6,
    "topology": "small_world",
    "activation": "softsign",
    "noise": 0.1,
    "feedback": 1,
    "feedback_scaling": 0.8,
    "sparse": False,
    "seed": 5,
}
LAYER = {"activity_regularizer": keras.regularizers.L2(0.05), "unroll": True}
WHOLE = {"return_sequences": True, "return_state": True}


def own_bidirectional(merge_mode):
    return Bidirectional(
        LSTM(4, peephole=True, **WHOLE),
        merge_mode=merge_mode,
        backward_layer=LSTM(4, layer_norm=True, go_backwards=True, **WHOLE),
    )


# Each of these makes a layer. All noise is seeded, so that two equal layers draw it
# alike in training.
LAYERS = {
    "RNN": lambda: RNN(LSTMCell(4, **LSTM_CELL), go_backwards=True, **WHOLE),
    "RNN of Keras's cell": lambda: RNN(keras.layers.GRUCell(4), **WHOLE),
    "RNN of two cells": lambda: RNN(
        [SimpleRNNCell(4, **SIMPLE_CELL), GRUCell(3, **GRU_CELL)], **WHOLE
    ),
    "SimpleRNN": lambda: SimpleRNN(4, **SIMPLE_CELL, **LAYER, **WHOLE),
    "LSTM": lambda: LSTM(4, **LSTM_CELL, **LAYER, **WHOLE),
    "LSTM without bias": lambda: LSTM(
        4, **(LSTM_CELL | {"use_bias": False}), go_backwards=True
    ),
    "GRU": lambda: GRU(4, **GRU_CELL, **LAYER, **WHOLE),
    "ESN": lambda: ESN(4, **ESN_CELL, **LAYER, **WHOLE),
    "GRU reset after": lambda: GRU(
        4, **(GRU_CELL | {"reset_after": True}), zero_output_for_mask=True, **WHOLE
    ),
    **{
        f"Bidirectional {mode}": lambda mode=mode: own_bidirectional(mode)
        for mode in ("concat", "sum", "mul", "ave", None)
    },
    "Bidirectional of one": lambda: Bidirectional(LSTM(4, **LSTM_CELL)),
    "StackedRNN": lambda: StackedRNN(
        [
            Bidirectional(GRU(3, **GRU_CELL)),
            LSTM(6, zoneout=(0.1, 0.2), seed=3),
            StackedRNN([SimpleRNN(6, layer_norm=True), GRU(6)], dropout=0.2, seed=4),
        ],
        residual=True,
        dropout=0.4,
        seed=6,
        **WHOLE,
    ),
    "StackedRNN backwards": lambda: StackedRNN(
        [GRU(3), LSTM(3)], residual=True, go_backwards=True
    ),
    "Bidirectional of StackedRNN": lambda: Bidirectional(
        StackedRNN([LSTM(3), GRU(4)], residual=False, dropout=0.2, seed=8, **WHOLE)
    ),
}


def build(name, seed=0):
    """A model that masks its input and returns all that the layer does."""
    inputs = keras.Input(SHAPE[1:])
    model = keras.Model(inputs, LAYERS[name]()(keras.layers.Masking()(inputs)))
    randomize(model, np.random.default_rng(seed))
    return model


def padded():
    """A sequence whose rows end with masked steps, and one of them alone."""
    x = np.random.default_rng(1).normal(size=SHAPE).astype("float32")
    x[0, 3:] = x[1] = x[2, 2] = 0
    return x


def run(model, x):
    """What the model gives outside training and then, its noise drawn, in training."""
    both = keras.tree.flatten([model(x), model(x, training=True)])
    return [np.asarray(each) for each in both]


def assert_equal(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


CHILD = """
import json, sys
from pathlib import Path
import keras
import keras_rnnkit
import numpy as np

found = {}
for file in sorted(Path(sys.argv[1]).glob("*.keras")):
    model = keras.saving.load_model(file)
    saved = np.load(file.with_suffix(".npz"))
    x = saved["x"]
    outputs = keras.tree.flatten([model(x), model(x, training=True)])
    found[file.stem] = {
        "config": model.get_config(),
        "differences": [
            float(np.abs(np.asarray(output) - saved[f"y{i}"]).max())
            if output.shape == saved[f"y{i}"].shape else "another shape"
            for i, output in enumerate(outputs)
        ],
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What one fresh process finds in the files of all models, and their configs."""
    folder, configs, x = tmp_path_factory.mktemp("saved"), {}, padded()
    for name in LAYERS:
        model = build(name)
        outputs = run(model, x)
        model.save(folder / f"{name}.keras")
        arrays = {f"y{i}": y for i, y in enumerate(outputs)}
        np.savez(folder / f"{name}.npz", x=x, **arrays)
        configs[name] = json.loads(json.dumps(model.get_config()))
    child = subprocess.run(
        [sys.executable, "-c", CHILD, folder], capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1]), configs


@pytest.mark.parametrize("name", LAYERS)
def test_a_fresh_process_loads_the_same_model(name, loaded):
    found, configs = loaded
    assert found[name]["config"] == configs[name]
    assert set(found[name]["differences"]) == {0.0}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", LAYERS)
def test_weights_file_and_clone_give_the_same_model(name, tmp_path):
    x = padded()
    model = build(name)
    weights = model.get_weights()
    expected = run(model, x)

    other = build(name, seed=1)
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_equal(run(other, x), expected)

    clone = keras.models.clone_model(model)
    clone.set_weights(weights)
    assert_equal(run(clone, x), expected)
    randomize(clone, np.random.default_rng(2))
    assert_equal(model.get_weights(), weights)  # the clone shares none


STOCK = keras.layers
EXCHANGED = {
    "SimpleRNN": (STOCK.SimpleRNN, SimpleRNN, {}),
    "LSTM": (STOCK.LSTM, LSTM, {}),
    "LSTM without bias": (STOCK.LSTM, LSTM, {"use_bias": False}),
    "GRU": (STOCK.GRU, GRU, {}),
    "GRU reset before": (STOCK.GRU, GRU, {"reset_after": False}),
}


@pytest.mark.parametrize("ours_first", [True, False], ids=["to Keras", "from Keras"])
@pytest.mark.parametrize(
    ("stock", "ours", "arguments"), EXCHANGED.values(), ids=EXCHANGED
)
def test_weights_files_are_exchanged_with_keras(
    stock, ours, arguments, ours_first, tmp_path
):
    def build(recurrent, bidirectional, seed):
        given = {**arguments, "return_sequences": True}
        layers = [
            keras.Input(SHAPE[1:]),
            keras.layers.Masking(),
            bidirectional(recurrent(4, **given)),
            recurrent(3, **given),
            recurrent(4, **arguments),
            keras.layers.Dense(2),
        ]
        model = keras.Sequential(layers)
        randomize(model, np.random.default_rng(seed))
        return model

    saved = build(ours, Bidirectional, 0)
    other = build(stock, STOCK.Bidirectional, 1)
    if not ours_first:
        saved, other = other, saved
    saved.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_equal(other.get_weights(), saved.get_weights())
    assert_close(other(padded()), saved(padded()))


# Every constructor argument, none with its default

NON_DEFAULT = {"units": 5, "use_bias": False}
FLAGS = dict.fromkeys(
    ("return_sequences", "return_state", "go_backwards", "stateful"), True
)
COMMON = {"name": "given", "trainable": False, "dtype": "float64"}
LOOP = {"zero_output_for_mask": True, "loop": "portable"}
LAYER_ARGUMENTS = COMMON | NON_DEFAULT | LAYER | FLAGS | LOOP
CELL_ARGUMENTS = COMMON | NON_DEFAULT
ARGUMENTS = {
    SimpleRNNCell: SIMPLE_CELL | CELL_ARGUMENTS,
    LSTMCell: LSTM_CELL | CELL_ARGUMENTS | {"implementation": 1},
    GRUCell: GRU_CELL | CELL_ARGUMENTS | {"implementation": 1},
    ESNCell: ESN_CELL | COMMON | {"units": 5},
    SimpleRNN: SIMPLE_CELL | LAYER_ARGUMENTS,
    LSTM: LSTM_CELL | LAYER_ARGUMENTS | {"use_cudnn": False, "implementation": 1},
    GRU: GRU_CELL | LAYER_ARGUMENTS | {"use_cudnn": False, "implementation": 1},
    ESN: ESN_CELL
    | COMMON
    | LAYER
    | FLAGS
    | LOOP
    | {"units": 5, "return_sequences": False},
    RNN: COMMON | FLAGS | LOOP | {"cell": LSTMCell(5, peephole=True), "unroll": True},
    Bidirectional: COMMON
    | {
        "layer": LSTM(5, peephole=True, name="forward_mine"),
        "merge_mode": "mul",
        "backward_layer": GRU(5, layer_norm=True, go_backwards=True),
    },
    StackedRNN: COMMON
    | FLAGS
    | {
        "layers": [LSTM(5, **FLAGS | {"go_backwards": False})],
        "residual": True,
        "dropout": 0.1,
        "outputs": "all",
        "seed": 5,
    },
}
NAMESAKES = (RNN, Bidirectional)  # these take the arguments of Keras's by `**kwargs`
NOT_SAVED = {"weights"}  # of `Bidirectional`: the first values of its weights


def defaults(cls):
    """The constructor arguments and their defaults."""
    parameters = dict(inspect.signature(cls).parameters)
    if cls in NAMESAKES:
        stock = getattr(keras.layers, cls.__name__)
        parameters = dict(inspect.signature(stock).parameters) | parameters
    variadic = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind not in variadic and name not in NOT_SAVED
    }


def plain(value):
    return keras.saving.serialize_keras_object(value)


@pytest.mark.parametrize("cls", ARGUMENTS)
def test_every_argument_is_in_the_config_and_comes_back(cls):
    given = ARGUMENTS[cls]
    for name, default in defaults(cls).items():
        assert name in given
        assert given[name] != default
    made = cls(**given)
    config = made.get_config()
    again = cls.from_config(made.get_config())
    saved = json.loads(json.dumps(plain(made)))
    third = keras.saving.deserialize_keras_object(saved)
    for name, value in given.items():
        for found in (config, again.get_config(), third.get_config()):
            if name == "dtype":
                assert found[name]["config"]["name"] == value
            else:
                assert plain(found[name]) == plain(value), name
    assert plain(again) == plain(third) == plain(made)
