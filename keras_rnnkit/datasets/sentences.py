"""Pairs of sentences in two languages, of a file or of `tensorflow_datasets`."""

import os
from pathlib import Path
from typing import NamedTuple

from keras_rnnkit.arguments import check_choice
from keras_rnnkit.datasets.splits import SPLITS, members
from keras_rnnkit.summary import summary_of


class Pairs(NamedTuple):
    """Sentences, and for each its translation."""

    sources: list[str]
    targets: list[str]

    def __repr__(self):
        return summary_of(self)


def sentence_pairs(
    source: str | os.PathLike,
    split: str = "train",
    *,
    languages: tuple[str, str] | None = None,
) -> Pairs:
    """Loads a split of sentences and their translations.

    A file is UTF-8 text with a pair a line and a tab between the two; further columns
    are left out, as are blank lines. Such files for many languages, with English first:
    https://www.manythings.org/anki. The hash of a source sentence says its split, 80 to
    10 to 10, so all translations of a sentence are in one. So it is with a data set
    that has no split but "train". Others have splits of their own.

    Args:
        source: the path of a file, or the name of a data set of `tensorflow_datasets`,
            such as "ted_hrlr_translate/pt_to_en", which downloads it when it is asked
            for the first time.
        split: "train", "validation" or "test"; of a data set with several, any that it
            has.
        languages: for a data set, the features that are source and target, such as
            ("de", "en"); default those it names itself.

    Returns:
        `sources` and `targets`; those split by hash in the order of the hash, others in
        that of the data set, pairs with a blank side left out.

    Raises:
        FileNotFoundError: there is no file at a `Path`.
        ImportError: `tensorflow_datasets` is not installed.
        OSError: the data set is not on this machine and cannot be downloaded.
        ValueError: there is neither file nor data set; a line without two sentences; no
            pair; wrong `split` or `languages`.

    Source of the default of examples: Qi et al. 2018, arXiv:1804.06323.
    """
    if Path(source).is_file():
        if languages is not None:
            raise ValueError(
                "`languages` must be None for a file, whose first column is the "
                f"source; received {languages!r}"
            )
        check_choice("split", split, SPLITS)
        pairs = by_hash(read(source), split)
    elif isinstance(source, str):
        pairs = load(source, split, languages)
    else:
        raise FileNotFoundError(f"`source` must be a file; there is none at `{source}`")
    if not pairs:
        raise ValueError(
            f"split {split!r} of `{source}` must hold a pair of sentences; it is empty"
        )
    return Pairs(*map(list, zip(*pairs, strict=True)))


def read(path) -> list[tuple[str, str]]:
    """All pairs of a file, in its order."""
    pairs = []
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                pair = tuple(column.strip() for column in line.split("\t")[:2])
                if len(pair) == 2 and all(pair):
                    pairs.append(pair)
                elif line.strip():
                    raise ValueError(
                        f"line {number} of `{path}` must be two sentences with a tab "
                        f"between; received {line.rstrip()!r}"
                    )
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` must be text in UTF-8: {error}") from error
    return pairs


def by_hash(pairs, split):
    """The pairs of a split."""
    return [pairs[i] for i in members((source for source, _ in pairs), split)]


def load(name, split, languages):
    """The pairs of a split of a data set."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"there is no file `{name}`, and for a data set `sentence_pairs` needs the "
            "package `tensorflow_datasets`: pip install 'keras_rnnkit[datasets]'"
        ) from error
    try:
        builder = tfds.builder(name)
    except ValueError as error:
        raise ValueError(
            "`source` must be a file, or a data set of `tensorflow_datasets`; there is "
            f"neither of the name {name!r}: {str(error).splitlines()[0]}"
        ) from error
    features = builder.info.features
    texts = [key for key in features if isinstance(features[key], tfds.features.Text)]
    keys = languages or builder.info.supervised_keys or ()
    if len(keys) != 2 or not set(keys) <= set(texts):
        raise ValueError(
            f"`languages` must be two of the texts that {name!r} has, "
            f"{', '.join(map(repr, texts)) or 'none'}; received {languages!r}"
        )
    try:
        builder.download_and_prepare()
    except (OSError, tfds.download.DownloadError) as error:
        raise OSError(
            f"data set {name!r} is not on this machine and could not be downloaded: "
            f"pass the path of a file of pairs as `source`; {error}"
        ) from error
    alone = split in SPLITS and list(builder.info.splits) == ["train"]
    data = tfds.as_numpy(builder.as_dataset(split="train" if alone else split))
    pairs = [tuple(each[key].decode() for key in keys) for each in data]
    pairs = [pair for pair in pairs if all(map(str.strip, pair))]
    return by_hash(pairs, split) if alone else pairs
