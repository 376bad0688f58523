"""Real data, the search space, progress, pictures."""

import keras
import numpy as np
import pytest

import keras_rnnkit as rk

keras_tuner = pytest.importorskip("keras_tuner")


@pytest.fixture(scope="module")
def splits():
    pytest.importorskip("sktime")
    return {split: rk.datasets.japanese_vowels(split) for split in ("train", "test")}


def test_japanese_vowels_are_as_published(splits):
    train, test = splits["train"], splits["test"]
    assert train.x.shape == (270, 29, 12)
    assert test.x.shape == (370, 29, 12)
    assert np.bincount(train.y).tolist() == [30] * 9
    assert np.bincount(test.y).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = np.concatenate([train.lengths, test.lengths])
    assert (lengths.min(), lengths.max()) == (7, 29)
    np.testing.assert_allclose(
        train.x[0, :3, 0], [1.860936, 1.891651, 1.939205], rtol=1e-6
    )


def test_japanese_vowels_are_zero_behind_their_end_and_only_there(splits):
    for split in splits.values():
        inside = np.arange(29) < split.lengths[:, None]
        np.testing.assert_array_equal((split.x != 0).any(axis=2), inside)


def test_an_unknown_split_raises():
    with pytest.raises(ValueError, match="`split` must be 'train' or 'test'.*'all'"):
        rk.datasets.japanese_vowels("all")


@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_the_search_space_builds_what_the_hyperparameters_say(cell, direction):
    hp = keras_tuner.HyperParameters()
    hp.values |= {"cell": cell, "units": 64, "depth": 2, "direction": direction}
    hp.values["dropout"] = 0.2
    stack = rk.tuning.recurrent_stack(hp, return_sequences=True)
    assert stack.compute_output_shape((None, 5, 3)) == (
        *(None, 5),
        128 if direction == "both" else 64,
    )
    assert len(stack.layers) == 2
    for layer in stack.layers:
        inner = layer.forward_layer if direction == "both" else layer
        assert (type(inner), inner.dropout) == (getattr(rk, cell), 0.2)
    asked = {space.name for space in hp.space}
    assert asked == {"cell", "units", "depth", "direction", "dropout"}


class Search(rk.tuning.Progress, keras_tuner.RandomSearch):
    pass


def make_search(folder, trials, fail_at=None):
    """Fits a sum; the trial `fail_at` is stopped as by a user."""

    class Stop(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            if len(search.oracle.trials) == fail_at:
                raise KeyboardInterrupt

    def build(hp):
        choices = {"units": (2, 3), "depths": (1,), "directions": ("forward",)}
        stack = rk.tuning.recurrent_stack(hp, **choices)
        model = keras.Sequential([keras.Input((4, 2)), stack, keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    search = Search(
        build, "loss", max_trials=trials, directory=folder, project_name="s", seed=0
    )
    x = np.random.default_rng(0).normal(size=(8, 4, 2))
    search.search(x, x.sum(axis=(1, 2)), verbose=0, callbacks=[Stop()])
    return search


def test_a_search_shows_its_progress_and_goes_on_after_a_stop(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        make_search(tmp_path, 3, fail_at=2)
    assert "1/3" in capsys.readouterr().out
    search = make_search(tmp_path, 3)
    shown = capsys.readouterr().out
    assert "2/3" in shown
    assert "3/3" in shown
    assert "best: " in shown
    assert len(search.oracle.trials) == 3


def test_pictures_show_the_numbers_they_are_given():
    pytest.importorskip("matplotlib")
    history = {"loss": [3.0, 2.0, 1.0], "val_loss": [3.0, 2.5, 2.0], "accuracy": [0, 1]}
    figure = rk.plots.training_curve(history)
    drawn = [[list(x.get_ydata()) for x in axes.lines] for axes in figure.axes]
    assert drawn == [[[3, 2, 1], [3, 2.5, 2]], [[0, 1]]]
    figure = rk.plots.confusion_matrix([0, 0, 1, 1], [0, 1, 1, 1], ["a", "b"])
    cells = {x.get_position(): x.get_text() for x in figure.axes[0].texts}
    assert cells == {(0, 0): "1", (1, 0): "1", (1, 1): "2"}
