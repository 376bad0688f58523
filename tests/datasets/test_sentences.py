"""Pairs of sentences come out as they stand in a file or in a data set."""

import sys
from hashlib import sha256
from pathlib import Path

import pytest

import keras_rnnkit as rk

sentence_pairs = rk.datasets.sentence_pairs
SPLITS = "train", "validation", "test"
TED = "ted_hrlr_translate/pt_to_en"


@pytest.fixture
def file(tmp_path):
    """Writes bytes to a file."""

    def write(content):
        path = tmp_path / "pairs.tsv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def tfds():
    return pytest.importorskip("tensorflow_datasets")


def everything(source):
    """The pairs of all splits that are not empty, by number of the split."""
    found = {}
    for split in SPLITS:
        try:
            pairs = sentence_pairs(source, split)
        except ValueError as error:
            if "it is empty" not in str(error):
                raise
        else:
            found |= dict.fromkeys(zip(*pairs, strict=True), split)
    return found


def digits(source):
    """The hash of a sentence."""
    return sha256(f"0:{source}".encode()).hexdigest()


def split_of(source):
    """By the first digits of the hash: train below cccc…, validation below e666…."""
    return SPLITS[(digits(source) >= "cccd") + (digits(source) >= "e667")]


def test_a_file_is_split_by_the_hash_of_the_source(file):
    lines = [(f"sentence {i // 2}", f"Satz {i}") for i in range(4000)]
    path = file("\n".join("\t".join(line) for line in lines))
    assert everything(path) == {pair: split_of(pair[0]) for pair in lines}
    train = sentence_pairs(str(path))
    assert 3100 < len(train.sources) < 3300
    assert train == sentence_pairs(path, "train")
    assert train.sources == sorted(train.sources, key=digits)
    # Translations of one sentence keep their order.
    first = [int(y.split()[1]) for y in train.targets]
    assert all(b == a + 1 for a, b in zip(first[::2], first[1::2], strict=True))


AWKWARD = {
    "a byte order mark": (b"\xef\xbb\xbfGo.\tGeh.\n", ("Go.", "Geh.")),
    "Windows": (
        b"Go.\tGeh.\r\n\r\nRun.\tLauf.\r\n",
        ("Go.", "Geh."),
        ("Run.", "Lauf."),
    ),
    "an attribution": ("Go.\tGeh.\tCC-BY 2.0\t#1\n", ("Go.", "Geh.")),
    "blank lines": ("\n \nGo.\tGeh.\n\t\n\t \t\n", ("Go.", "Geh.")),
    "blanks": (" Go. \t Geh. \n", ("Go.", "Geh.")),
    "no end of line": ("Go.\tGeh.", ("Go.", "Geh.")),
    "another script": ("行け。\tÇa va\u00a0?\n", ("行け。", "Ça va\u00a0?")),
    "separators within": (
        "a\u2028b\x0c\x85c\t\U0001f600\x1c!",
        ("a\u2028b\x0c\x85c", "\U0001f600\x1c!"),
    ),
    "quotes": ('"Go\t"Geh" "\n', ('"Go', '"Geh" "')),
}


@pytest.mark.parametrize("what", AWKWARD)
def test_a_file_is_read_as_it_is_meant(what, file):
    content, *pairs = AWKWARD[what]
    found = everything(file(content))
    assert list(found) == sorted(pairs, key=lambda pair: digits(pair[0]))
    assert list(found.values()) == [split_of(source) for source, _ in found]


WRONG = {
    "empty": ("", "split 'train' of `.*pairs.tsv` must contain a pair.*it is empty"),
    "blank": ("\n\n", "must contain a pair"),
    "one column": (
        "Go.\tGeh.\n\nRun.\n",
        "line 3 of `.*pairs.tsv` must be two sentences separated.*received 'Run.'",
    ),
    "commas": ("Go.,Geh.\n", "line 1 of .*received 'Go.,Geh.'"),
    "no target": ("Go.\t\t#1\n", "line 1 of"),
    "no source": ("a\tb\n\tGeh.\n", "line 2 of"),
    "another encoding": (b"\xe4\t\xf6\n", "must be text in UTF-8.*byte 0xe4"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_file_of_no_pairs_raises(what, file):
    content, message = WRONG[what]
    with pytest.raises(ValueError, match=message):
        sentence_pairs(file(content))


def test_what_is_wrong_is_said(file, tmp_path, tfds):
    path = file("Go.\tGeh.\n")
    with pytest.raises(ValueError, match="`split` must be one of 'train'.*'all'"):
        sentence_pairs(path, "all")
    with pytest.raises(ValueError, match="`languages` must be None for a file.*'en'"):
        sentence_pairs(path, languages=("en", "de"))
    for missing in tmp_path, tmp_path / "none.tsv":
        with pytest.raises(FileNotFoundError, match=f"there is none at `{missing}`"):
            sentence_pairs(missing)
    for missing in "nothing", "nothing/de_en", "data/none.tsv", str(tmp_path), "":
        with pytest.raises(
            ValueError, match=f"must be a file, or a data set.*neither.*'{missing}'"
        ):
            sentence_pairs(missing)


def test_a_data_set_needs_its_package(monkeypatch, file):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        ImportError, match=r"no file `ted.*needs.*install 'keras_rnnkit\[datasets\]'"
    ):
        sentence_pairs(TED)
    assert sentence_pairs(file("a\tb\n"), split_of("a")) == (["a"], ["b"])


def test_a_data_set_comes_through_as_text(tfds):
    with tfds.testing.mock_data(num_examples=7):
        raw = tfds.load(TED, split="test", as_supervised=True)
        expected = [(x.decode(), y.decode()) for x, y in tfds.as_numpy(raw)]
        pairs = sentence_pairs(TED, "test")
        turned = sentence_pairs(TED, "test", languages=("en", "pt"))
    assert len(pairs.sources) == len(pairs.targets) == 7
    assert list(zip(*pairs, strict=True)) == expected
    assert (turned.targets, turned.sources) == pairs
    assert {type(text) for texts in pairs for text in texts} == {str}
    assert pairs.sources != pairs.targets


def test_languages_are_features_of_text(tfds):
    with tfds.testing.mock_data(num_examples=3):
        assert len(sentence_pairs("opus", languages=("de", "en")).sources) == 3
        for name, languages, texts in (
            (TED, ("pt", "fr"), "'(pt|en)', '(pt|en)'"),
            (TED, ("pt",), "'(pt|en)', '(pt|en)'"),
            (TED, "pt", "'(pt|en)', '(pt|en)'"),
            ("mnist", None, "none"),
            ("tatoeba", None, "'source_sentence', 'target_sentence', .*"),
        ):
            with pytest.raises(
                ValueError,
                match=f"`languages` must be two of the text features of '{name}', "
                f"{texts}; received",
            ):
                sentence_pairs(name, languages=languages)


def write_data_set(tfds, folder, title, splits):
    """A data set of `tensorflow_datasets` in its own files."""

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        name = title

        def _info(self):
            languages = "pt", "en"
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.Translation(languages),
                supervised_keys=languages,
            )

        def _split_generators(self, manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            yield from enumerate(splits[split])

    Made(data_dir=folder).download_and_prepare()


def test_a_data_set_is_read_from_its_files(tfds, tmp_path, monkeypatch):
    rows = [{"pt": f"olá, avó {i}", "en": f"hello, granny {i}"} for i in range(50)]
    blank = [{"pt": " ", "en": "nothing"}, {"pt": "nada", "en": ""}]
    splits = {"train": rows[:30] + blank, "validation": rows[30:40], "test": rows[40:]}
    write_data_set(tfds, tmp_path, "several", splits)
    write_data_set(tfds, tmp_path, "single", {"train": rows})
    monkeypatch.setattr(
        tfds.core.utils.file_utils, "_REGISTERED_DATA_DIRS", {Path(tmp_path)}
    )
    for split, listed in splits.items():
        pairs = sentence_pairs("several", split)
        expected = {(row["pt"], row["en"]) for row in listed if row not in blank}
        assert set(zip(*pairs, strict=True)) == expected
        assert len(pairs.sources) == len(expected)
    assert len(sentence_pairs("several", "train[:10]").sources) == 10
    with pytest.raises(ValueError, match="Unknown split .everything"):
        sentence_pairs("several", "everything")
    # With no split but "train" it is split as a file is.
    assert everything("single") == {
        (row["pt"], row["en"]): split_of(row["pt"]) for row in rows
    }
