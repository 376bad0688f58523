"""What `explain` says is what runs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.recurrence import FastLoop, Place, make_plan

OFTEN = "at its first call or a later one, once that pays"
ASKED = "at the first call, as asked for"


class Reading(rk.SplitCell):
    """A cell that reads a variable, which no compiled loop can."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.output_size = 3

    def build(self, shape):
        self.scale = self.add_weight((), "ones")

    def project(self, inputs, params):
        return inputs

    def recur(self, states, params):
        return states[0]

    def pointwise(self, z, r, states, params, noise=None):
        h = keras.ops.tanh(z + r) * self.scale
        return h, [h]


CASES = [
    (lambda: rk.LSTM(3), (None, 9), "compiled", OFTEN),
    (lambda: rk.LSTM(3), (2, None), "compiled", OFTEN),
    (lambda: rk.GRU(3), (2, 9), "compiled", OFTEN),
    (lambda: rk.GRU(3, loop="fast"), (None, 9), "compiled", ASKED),
    (lambda: rk.GRU(3, loop="portable"), (2, 9), "ordinary ops", "`loop='portable'`"),
    (lambda: rk.ESN(3, unroll=True), (2, 9), "ordinary ops", "`unroll=True`"),
    (lambda: rk.SimpleRNN(3), (2, 4), "ordinary ops", "4 steps or fewer"),
    (lambda: rk.SimpleRNN(3), (0, 9), "ordinary ops", "there are no rows"),
    (lambda: rk.RNN(Reading()), (2, 9), "ordinary ops", "XLA cannot compile `Reading`"),
    (
        *(lambda: rk.RNN(keras.layers.GRUCell(3)), (2, 9), "ordinary ops"),
        "`GRUCell` is not a `SplitCell`",
    ),
]


@pytest.mark.parametrize(("make", "sizes", "runs", "why"), CASES)
def test_a_layer_is_explained(make, sizes, runs, why, monkeypatch):
    called = []
    original = FastLoop.__call__

    def spy(*args, **kwargs):
        called.append(kwargs["at_once"])
        return original(*args, **kwargs)

    monkeypatch.setattr(FastLoop, "__call__", spy)
    layer = make()
    x = keras.KerasTensor((*sizes, 3))
    (row,) = rk.explain(layer, x).rows
    assert row == {
        "layer": layer.name,
        "kind": type(layer).__name__,
        "runs": runs,
        "why": why,
    }
    explained = set(called)
    assert bool(explained) == (runs == "compiled")
    called.clear()
    graph = tf.function(layer, [tf.TensorSpec((*sizes, 3))], autograph=False)
    graph.get_concrete_function()
    assert set(called) == explained  # the same is traced without a question


def test_a_model_is_explained_layer_by_layer():
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(9, 4, mask_zero=True),
            rk.Bidirectional(rk.GRU(4, return_sequences=True, name="gru")),
            rk.StackedRNN([rk.LSTM(4, name="low"), rk.LSTM(4, name="high")]),
            keras.layers.RepeatVector(3),
            rk.RNN(rk.GRUCell(2), name="short", return_sequences=True),
            keras.layers.LSTM(2, name="stock"),
        ]
    )
    found = rk.explain(model)
    assert [(row["layer"], row["runs"]) for row in found.rows] == [
        ("forward_gru", "compiled"),
        ("backward_gru", "compiled"),
        ("low", "compiled"),
        ("high", "compiled"),
        ("short", "ordinary ops"),
        ("stock", "as Keras does"),
    ]
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "kind", "runs", "why"]
    assert lines[-1].endswith("convert with `rk.from_keras(model)`")
    assert len(rk.explain(model, np.ones((2, 7), "int32"), training=True).rows) == 6


def test_what_has_no_inputs_wants_some():
    with pytest.raises(ValueError, match="`inputs` are needed for `long`"):
        rk.explain(rk.LSTM(3, name="long"))


def test_the_plan_is_a_function_of_its_arguments():
    usual = {"unroll": False, "steps": 9, "batch": None}
    for place, why in {
        Place(compiles=False): "an export writes it",
        Place(eager=True): "the call is eager",
        Place(accelerated=True): "there is a GPU or a TPU",
        Place(vectorized=True): "`tf.vectorized_map` would lose its gradient",
        Place(ordinary=True): "its shape has not been met often",
        Place(has_xla=lambda: False): "TensorFlow was built without XLA",
    }.items():
        plan = make_plan("auto", **usual, place=place)
        assert not plan.compiled
        assert plan.why == why
    for place in Place(eager=True), Place(accelerated=True), Place(ordinary=True):
        assert make_plan("fast", **usual, place=place).compiled
    assert make_plan("auto", **usual, place=Place()).why == OFTEN
    assert make_plan("auto", **usual, place=Place(at_once=True)).at_once
