"""The search space: reservoirs, cells of one's own, single values, several stacks."""

import keras
import numpy as np
import pytest

import keras_rnnkit as rk

keras_tuner = pytest.importorskip("keras_tuner")


def stacks_of(**arguments):
    """What a tuner's first trials build of a space."""
    hp = keras_tuner.HyperParameters()
    stack = rk.tuning.recurrent_stack(hp, **arguments)
    return hp, stack


def test_a_reservoir_can_be_searched_over():
    hp, stack = stacks_of(cells=("ESN", "GRU"), units=(20, 40))
    assert isinstance(stack.layers[0], rk.ESN)
    assert {"spectral_radius", "leak_rate", "input_scaling"} < set(hp.values)
    other = keras_tuner.HyperParameters()
    other.values["cell"] = "GRU"
    again = rk.tuning.recurrent_stack(other, cells=("ESN", "GRU"), units=(20, 40))
    assert isinstance(again.layers[0], rk.GRU)
    assert stack(np.zeros((2, 5, 3), "float32")).shape == (2, 20)


def test_single_values_fix_a_choice():
    hp, stack = stacks_of(
        cells="LSTM", units=32, depths=2, directions="both", dropouts=0.1
    )
    assert len(stack.layers) == 2
    assert all(isinstance(layer, rk.Bidirectional) for layer in stack.layers)
    assert stack.layers[0].forward_layer.units == 32
    assert hp.values["dropout"] == 0.1


def test_two_stacks_have_hyperparameters_of_their_own():
    hp = keras_tuner.HyperParameters()
    for name in "reader", "writer":
        rk.tuning.recurrent_stack(hp, name=name)
    assert {"reader_cell", "writer_cell", "reader_units"} < set(hp.values)
    assert "cell" not in hp.values


def test_a_cell_of_ones_own_is_put_on_the_loop():
    hp, stack = stacks_of(cells=(rk.LSTMCell, "GRU"), directions="both")
    assert hp.values["cell"] == "LSTMCell"
    assert isinstance(stack.layers[0].forward_layer.cell, rk.LSTMCell)
    hp, stack = stacks_of(cells={"peepholes": lambda n: rk.LSTM(n, peephole=True)})
    assert stack.layers[0].cell.peephole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": ("ESNN",)}, "`cells` must be one of .*'ESN'.*received 'ESNN'"),
        ({"cells": ()}, "`cells` must hold a value; received none"),
        ({"units": 0}, "`units` must be a positive integer; received 0"),
        ({"units": (8, 8)}, "`units` must have distinct values"),
        ({"dropouts": 1.0}, r"`dropouts` must lie in \[0, 1\); received 1.0"),
        ({"directions": "back"}, "`directions` must be one of 'forward', 'both'"),
        ({"name": ""}, "`name` must be a non-empty str"),
        ({"cells": {"d": lambda n: keras.layers.Dense(n)}}, "must make recurrent"),
    ],
)
def test_what_cannot_be_searched_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        stacks_of(**arguments)


def test_a_failed_trial_is_counted_and_nothing_else_is_printed(tmp_path, capsys):
    class Search(rk.tuning.Progress, keras_tuner.GridSearch):
        pass

    def build(hp):
        stack = rk.tuning.recurrent_stack(hp, cells="GRU", units=(2, 3), depths=1)
        model = keras.Sequential([keras.Input((4, 2)), stack, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    tuner = Search(build, "loss", max_trials=2, directory=tmp_path)
    tuner.search(np.ones((4, 4, 2)), np.ones((4, 1)), epochs=1, verbose=1)
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "trials 0/2"
    assert len(lines) == 3
    assert lines[-1].startswith("trials 2/2")
    assert "best" in lines[-1]
