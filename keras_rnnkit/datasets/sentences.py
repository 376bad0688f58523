"""Pairs of sentences in two languages, from a file or `tensorflow_datasets`."""

import os
from pathlib import Path
from typing import NamedTuple

from keras_rnnkit.arguments import check_choice
from keras_rnnkit.datasets.splits import SPLITS, split_indices
from keras_rnnkit.summary import summary_of


class Pairs(NamedTuple):
    """Sentences and their translations.

    Attributes:
        sources: list of str.
        targets: list of str, the translation of each source.
    """

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

    A file is UTF-8 text with one pair per line, separated by a tab; further columns and
    blank lines are ignored. https://www.manythings.org/anki has such files for many
    languages, with English first. The hash of a source sentence determines its split,
    in proportions of 80, 10 and 10 percent, so all translations of a sentence are in
    the same split. A data set whose only split is "train" is split in the same way;
    others keep their own splits.

    Args:
        source: the path of a file, or the name of a data set of `tensorflow_datasets`,
            such as "ted_hrlr_translate/pt_to_en", which is downloaded on first use.
        split: "train" (default), "validation" or "test"; for a data set with several
            splits, any of these.
        languages: for a data set, the names of its source and target features, such as
            ("de", "en"); default the data set's `supervised_keys`.

    Returns:
        `Pairs`: `sources` and `targets`, without pairs that have a blank side. Splits
        by hash are in the order of the hashes, others in that of the data set.

    Raises:
        FileNotFoundError: `source` is a `Path` without a file.
        ImportError: `tensorflow_datasets` is not installed.
        OSError: the data set is not on this machine and cannot be downloaded.
        ValueError: `source` is neither a file nor a data set, a line does not hold two
            sentences, the split is empty, or `split` or `languages` is invalid.

    Example:

    ```python
    from pathlib import Path
    import keras_rnnkit as rk

    lines = [f"{n} apples\\t{n} pommes" for n in range(100)]
    Path("pairs.txt").write_text("\\n".join(lines), "utf-8")
    sources, targets = rk.datasets.sentence_pairs("pairs.txt", "test")
    print(sources[0], targets[0])
    ```

    Source of "ted_hrlr_translate": Qi et al. 2018, arXiv:1804.06323.
    """
    if Path(source).is_file():
        if languages is not None:
            raise ValueError(
                "`languages` must be None for a file, whose first column is the "
                f"source; received {languages!r}"
            )
        check_choice("split", split, SPLITS)
        pairs = pairs_in_split(read_pairs(source), split)
    elif isinstance(source, str):
        pairs = load_pairs(source, split, languages)
    else:
        raise FileNotFoundError(f"`source` must be a file; there is none at `{source}`")
    if not pairs:
        raise ValueError(
            f"split {split!r} of `{source}` must contain a pair; it is empty"
        )
    return Pairs(*map(list, zip(*pairs, strict=True)))


def read_pairs(path) -> list[tuple[str, str]]:
    """The pairs of a file, in its order."""
    pairs = []
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                pair = tuple(column.strip() for column in line.split("\t")[:2])
                if len(pair) == 2 and all(pair):
                    pairs.append(pair)
                elif line.strip():
                    raise ValueError(
                        f"line {number} of `{path}` must be two sentences separated by "
                        f"a tab; received {line.rstrip()!r}"
                    )
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` must be text in UTF-8: {error}") from error
    return pairs


def pairs_in_split(pairs, split):
    """The pairs in a split, by the hash of their sources."""
    return [pairs[i] for i in split_indices((source for source, _ in pairs), split)]


def load_pairs(name, split, languages):
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
            "`source` must be a file, or a data set of `tensorflow_datasets`; neither "
            f"is named {name!r}: {str(error).splitlines()[0]}"
        ) from error
    features = builder.info.features
    texts = [key for key in features if isinstance(features[key], tfds.features.Text)]
    keys = languages or builder.info.supervised_keys or ()
    if len(keys) != 2 or not set(keys) <= set(texts):
        raise ValueError(
            f"`languages` must be two of the text features of {name!r}, "
            f"{', '.join(map(repr, texts)) or 'none'}; received {languages!r}"
        )
    try:
        builder.download_and_prepare()
    except (OSError, tfds.download.DownloadError) as error:
        raise OSError(
            f"data set {name!r} is not on this machine and could not be downloaded: "
            f"pass the path of a file of pairs as `source`; {error}"
        ) from error
    must_split = split in SPLITS and list(builder.info.splits) == ["train"]
    data = tfds.as_numpy(builder.as_dataset(split="train" if must_split else split))
    pairs = [tuple(each[key].decode() for key in keys) for each in data]
    pairs = [pair for pair in pairs if all(map(str.strip, pair))]
    return pairs_in_split(pairs, split) if must_split else pairs
