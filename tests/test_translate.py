"""The example of translation learns numbers in words, and goes on after a stop."""

import json
import random
import re

import numpy as np
import pytest
import tensorflow as tf

from tests.run_examples import ROOT, kill_at, names_of, printed, start

pytest.importorskip("matplotlib")
pytest.importorskip("keras_tuner")  # of the quick start, which the example borrows from
EXAMPLE = ROOT / "examples" / "translate.py"
WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen "
    "twenty thirty forty fifty sixty seventy eighty ninety hundred and"
)
WORDS = WORDS.split()


def spell(number):
    """A number below 1000 in words."""
    if number < 20:
        return WORDS[number]
    if number < 100:
        rest = f" {spell(number % 10)}" if number % 10 else ""
        return WORDS[18 + number // 10] + rest
    rest = f" and {spell(number % 100)}" if number % 100 else ""
    return f"{spell(number // 100)} hundred{rest}"


def write_numbers(path, count=300):
    """A file of numbers: words, a tab, digits."""
    numbers = random.Random(0).sample(range(1000), count)
    lines = (f"{spell(n).capitalize()}.\t{' '.join(str(n))}." for n in numbers)
    path.write_text("\n".join(lines), "utf-8")


def arguments(folder):
    data = "--data", folder / "numbers.tsv", "--folder", folder / "model"
    return EXAMPLE, "--quick", *data


@pytest.fixture
def example(monkeypatch):
    """The names of the example."""
    return names_of(EXAMPLE, monkeypatch)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Go!", "go !"),
        ("Ça va\u00a0? ÉTÉ…", "ça va ? été …"),
        ("¿Qué? «L'eau», it's e-mail.", "¿ qué ? « l'eau » , it's e-mail ."),
        ("$5.20 &quot;", "$ 5 . 20 & quot ;"),
        ("行け。 हिन्दी", "行け 。 हिन्दी"),
    ],
)
def test_words_and_punctuation_are_told_apart(example, text, tokens):
    assert tf.strings.split(example.standardize(text)).numpy().tolist() == [
        token.encode() for token in tokens.split()
    ]


def test_batches_hold_every_pair_once_in_another_order_each_epoch(example, tmp_path):
    sources = [" ".join([f"s{i}"] * (1 + i % 30)) for i in range(200)]
    targets = [" ".join([f"t{i}"] * (1 + i % 50)) for i in range(200)]
    layers = example.text_layers(tmp_path, (sources, targets))
    data = example.batches(*example.ids(layers, (sources, targets)), 16, 0)
    known = [layer.get_vocabulary() for layer in example.text_layers(tmp_path)]
    assert known == [layer.get_vocabulary() for layer in layers]
    epochs = []
    for _ in range(2):
        seen = []
        for batch in data.as_numpy_iterator():
            (width,) = {ids.shape[1] for ids in batch}
            assert width == max((ids > 0).sum(axis=1).max() for ids in batch)
            assert len(batch[0]) <= 16
            for rows in zip(*batch, strict=True):
                words = [
                    [kind[i] for i in ids if i]
                    for kind, ids in zip(known, rows, strict=True)
                ]
                seen.append(tuple(map(" ".join, words)))
        epochs.append(seen)
    expected = {
        (x, f"{y} </s>")
        for x, y in zip(sources, targets, strict=True)
        if y.count(" ") < 47
    }
    assert len(epochs[0]) == len(expected) == 188
    assert set(epochs[0]) == set(epochs[1]) == expected
    assert epochs[0] != epochs[1]
    assert len(data) == sum(1 for _ in data)


def test_pairs_that_are_all_too_long_are_an_error(example, tmp_path):
    pairs = ["a b"] * 3, [" c" * 48] * 3
    layers = example.text_layers(tmp_path, pairs)
    with pytest.raises(ValueError, match="at most 48 tokens long; each of the 3 given"):
        example.ids(layers, pairs)


@pytest.mark.slow
def test_numbers_are_translated_by_a_training_that_was_stopped(tmp_path):
    write_numbers(tmp_path / "numbers.tsv")
    folder = tmp_path / "model"
    kill_at(start(*arguments(tmp_path)), "Epoch 4/")
    backup = json.loads((folder / "backup" / "training_metadata.json").read_text())
    assert 3 <= backup["epoch"] < 15

    shown = printed(start(*arguments(tmp_path)))
    assert int(re.search(r"Epoch (\d+)/15", shown)[1]) == backup["epoch"] + 1
    epochs = np.genfromtxt(folder / "training.csv", delimiter=",", names=True)["epoch"]
    assert epochs.tolist() == list(range(15))
    assert {path.name for path in folder.iterdir()} == {
        *("attention.html", "attention.png", "report.json", "source.txt"),
        *("target.txt", "training.csv", "translate.weights.h5"),
    }
    report = json.loads((folder / "report.json").read_text())
    assert report["token_accuracy"] > 0.9
    assert 1 < report["perplexity"] < 1.6
    said = re.findall(r"^(\w.*)\n    (.*) \.\n    \((.*)\.\)$", shown, re.M)
    assert len(said) == 3
    assert sum(guess == right for _, guess, right in said) >= 2
    words = (folder / "source.txt").read_text("utf-8").split("\n")
    assert set(words) == {*WORDS, "."} - {"zero"}
    page = (folder / "attention.html").read_text("utf-8")
    assert page.count("<section>") == 3

    # A model that is there needs neither training nor data.
    (tmp_path / "numbers.tsv").unlink()
    sentences = "SIX HUNDRED and seven.", "Nine hundred."
    shown = printed(start(*arguments(tmp_path), *sentences))
    assert "Epoch" not in shown
    assert json.loads(shown[: shown.index("}") + 1]) == report
    assert "SIX HUNDRED and seven.\n    6 0 7 .\n" in shown
    assert "Nine hundred.\n    9 0 0 .\n" in shown
