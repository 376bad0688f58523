"""Translates from one language to another, with attention.

A bidirectional LSTM reads a sentence, an LSTM with attention writes its translation.
Sentence pairs come from tensorflow_datasets, or from a file with one tab-separated pair
per line, such as those of https://www.manythings.org/anki.

    python examples/translate.py [--quick] [--data deu.txt] [SENTENCE ..]

It trains if there is no model yet, and resumes an interrupted training. Sentences are
converted to lower case. With `--quick` on the 300 numbers in words and digits of
tests/test_translate.py it prints, after training:

    {
     "parameters": 350287,
     "token_accuracy": 0.9912,
     "perplexity": 1.17
    }

    Sentences are read and written in small letters:

    Eight hundred and twenty five.
        8 2 5 .
        (8 2 5.)
    Six hundred and twenty five.
        6 2 5 .
        (6 2 5.)
    One hundred and sixty two.
        1 6 2 .
        (1 6 2.)
"""

import json
import math
import os
from itertools import zip_longest
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import options
import tensorflow as tf
from grapheme_to_phoneme import END, START, batches, train

import keras_rnnkit as rk

PUNCTUATION = r"([^\p{L}\p{M}\p{N}\s'’-])"
LONGEST = 48  # tokens, with END
FULL = {"units": 256, "epochs": 15, "batch": 64, "rate": 1e-3, "limit": None}
QUICK = {"units": 64, "epochs": 15, "batch": 32, "rate": 1e-2, "limit": 2000}


@keras.saving.register_keras_serializable("translate", "apart")
def standardize(text):
    """Converts to lower case and puts spaces around punctuation."""
    text = tf.strings.lower(text, encoding="utf-8")
    text = tf.strings.regex_replace(text, r"\p{Z}", " ")
    return tf.strings.regex_replace(text, PUNCTUATION, r" \1 ")


@keras.saving.register_keras_serializable("translate", "framed")
def standardize_target(text):
    """Does the same, and adds the tokens of start and end."""
    return tf.strings.join([START, standardize(text), END], " ")


def text_layers(folder, pairs=None):
    """Returns layers that map sentences and translations to ids.

    The vocabularies are in `folder`. If `pairs` are given they are built from these and
    written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layers, functions = [], {"source": standardize, "target": standardize_target}
    for number, (name, function) in enumerate(functions.items()):
        layer = keras.layers.TextVectorization(8000, standardize=function, ragged=True)
        file = folder / f"{name}.txt"
        if pairs:
            layer.adapt(pairs[number])
            words = layer.get_vocabulary(include_special_tokens=False)
            file.write_text("\n".join(words), "utf-8")
        layer.set_vocabulary(file.read_text("utf-8").split("\n"))
        layers.append(layer)
    return layers


def build(layers, units, seed):
    """Returns the model."""
    keras.utils.set_random_seed(seed)
    sizes = [layer.vocabulary_size() for layer in layers]
    known = layers[1].get_vocabulary()
    return rk.Seq2Seq(
        rk.Bidirectional(rk.LSTM(units, return_sequences=True, return_state=True)),
        rk.AttentionDecoder(
            rk.LSTMCell(2 * units), rk.LuongAttention(2 * units, "general")
        ),
        *(keras.layers.Embedding(size, units) for size in sizes),
        keras.layers.Dense(sizes[1]),
        start_id=known.index(START),
        end_id=known.index(END),
        dropout=0.3,
        seed=seed,
    )


def ids(layers, pairs):
    """Returns ids of sentences and translations, without pairs that are too long."""
    x, y = (layer(texts) for layer, texts in zip(layers, pairs, strict=True))
    y = y[:, 1:]  # without its start
    short = tf.maximum(x.row_lengths(), y.row_lengths()) <= LONGEST
    if not np.any(short):
        raise ValueError(
            f"a pair must be at most {LONGEST} tokens long; each of the {len(short)} "
            "given is longer: cut them into sentences"
        )
    both = (tf.ragged.boolean_mask(tokens, short) for tokens in (x, y))
    return [np.int32(tokens.to_tensor(shape=(None, LONGEST))) for tokens in both]


def report(model, data):
    """Returns how well the model predicts the next token of translations in `data`."""
    loss = keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="nats")
    model.compile(weighted_metrics=["accuracy", loss])
    found = model.evaluate(data, verbose=0, return_dict=True)
    return {
        "parameters": model.count_params(),
        "token_accuracy": round(found["accuracy"], 4),
        "perplexity": round(math.exp(found["nats"]), 2),
    }


def tokens(sentence):
    """Returns the words and punctuation of a sentence, as the model receives them."""
    return [token.decode() for token in tf.strings.split(standardize(sentence)).numpy()]


def translate(model, layers, sentences):
    """Returns for each sentence its tokens, those of the translation, and attention."""
    x = layers[0](sentences).to_tensor().numpy()
    options = {"method": "beam", "length_penalty": 1.0, "return_attention": True}
    y, weights = model.generate(x, max_length=LONGEST, **options)
    vocabulary = layers[1].get_vocabulary()
    return [
        (tokens(sentence), [vocabulary[i] for i in target if i], weight)
        for sentence, target, weight in zip(sentences, y, weights, strict=True)
    ]


def sentence(text):
    """Argparse type of a sentence that is not empty."""
    if not text.strip():
        raise ValueError
    return text


def main():
    parser = options.parser(__doc__, "matplotlib", quick="train a small model")
    add = parser.add_argument
    add("sentences", nargs="*", type=sentence, help="sentences to translate")
    add("--data", default="ted_hrlr_translate/pt_to_en", help="a file or a data set")
    add("--limit", type=int, help="largest number of pairs of a split")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    folder = options.folder(given, f"translate_{Path(given.data).stem}")
    weights, report_file = folder / "translate.weights.h5", folder / "report.json"

    def pairs(split):
        found = rk.datasets.sentence_pairs(given.data, split)
        return [texts[: given.limit or size["limit"]] for texts in found]

    def load(split):
        return batches(*ids(layers, pairs(split)), size["batch"], given.seed)

    is_new = not weights.exists() and not (folder / "backup").exists()
    layers = text_layers(folder, pairs("train") if is_new else None)
    model = build(layers, size["units"], given.seed)
    if weights.exists():
        model.load_weights(weights)
    else:
        splits = load("train"), load("validation")
        train(model, *splits, folder, size["epochs"], size["rate"])
        model.save_weights(weights)
    if not report_file.exists():
        found = report(model, load("test"))
        report_file.write_text(json.dumps(found, indent=1) + "\n")
    print(report_file.read_text())
    sources, targets = given.sentences, []
    if not sources:
        sources, targets = (texts[:3] for texts in pairs("test"))
    print("Sentences are read and written in small letters:\n")
    found, known = translate(model, layers, sources), layers[0].get_vocabulary()
    rk.plots.attention(*found[0]).savefig(folder / "attention.png", dpi=120)
    page = rk.plots.attention_html(found, "Which words a word looks at")
    (folder / "attention.html").write_text(page, "utf-8")
    for source, target, (_, words, _) in zip_longest(sources, targets, found):
        translation = " ".join(words).removesuffix(f" {END}")
        print(f"{source}\n    {translation}" + (f"\n    ({target})" if target else ""))
        unknown = [token for token in tokens(source) if token not in known]
        if unknown:  # the model cannot distinguish these
            print(f"    not known: {', '.join(unknown)}")


if __name__ == "__main__":
    main()
