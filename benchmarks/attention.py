"""Measures sequence to sequence: decoding, and what attention costs in training.

    python benchmarks/attention.py [--quick] [--seed 0] [--out FOLDER]

- Decoding, 64 rows, greedy: `generate` beside a loop in Python that calls the model for
  each token. Both have to say the same.
- A training step with attention, beside one of the same encoder and decoder without,
  plus the products that attention consists of, alone, in the same shapes. Each model is
  built three times, as a graph's threads fall into step differently each time; its time
  is the median one.

Writes attention.md and attention.json, or attention-quick.*; a run that was stopped
goes on where it was.
"""

import ast
import os
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import parted
import tensorflow as tf
from report import table
from timing import interleaved

import keras_rnnkit as rk

BATCH, TOKENS, START, END = 64, 40, 2, 3
ATTENTIONS = {
    "Luong, dot": lambda units: rk.LuongAttention(units, "dot"),
    "Luong, general": lambda units: rk.LuongAttention(units, "general"),
    "Bahdanau": rk.BahdanauAttention,
}
# units, source and target steps
SHAPES = [(128, 12), (256, 12), (256, 32)]
LENGTHS = 10, 30
BUILDS = 3


def parts(quick):
    """What is measured: a name, the cases, and the function of a case and the seed."""
    shapes = SHAPES[:1] if quick else SHAPES
    return [
        ("decoding", LENGTHS[:1] if quick else LENGTHS, measure_decoding),
        (
            "training",
            [
                (name, feeding, *shape)
                for name in ATTENTIONS
                for feeding in (True, False)
                for shape in shapes
            ],
            measure_training,
        ),
    ]


def model_of(attention, units, feeding=True):
    """A bidirectional encoder and a decoder, of `units` each."""
    half = rk.LSTM(units // 2, return_sequences=True, return_state=True)
    model = rk.Seq2Seq(
        rk.Bidirectional(half),
        rk.AttentionDecoder(rk.LSTMCell(units), attention, input_feeding=feeding),
        keras.layers.Embedding(TOKENS, 64),
        keras.layers.Embedding(TOKENS, 64),
        keras.layers.Dense(TOKENS),
        start_id=START,
        end_id=END,
    )
    model.compile(keras.optimizers.SGD(0.01), weighted_metrics=None)
    return model


def measure_decoding(steps, seed):
    """Milliseconds for 64 answers of so many tokens."""
    keras.utils.set_random_seed(seed)
    model = model_of(rk.LuongAttention(256, "general"), 256)
    never = np.isin(np.arange(TOKENS), (0, END))  # padding, as in `generate`, and
    model.output_layer.bias.assign(np.where(never, -1e9, 0))  # all rows take all steps
    source = np.random.default_rng(seed).integers(4, TOKENS, (BATCH, steps))

    def by_steps():
        said = np.full((BATCH, 1), START)
        for _ in range(steps):
            logits = model((source, said))
            said = np.append(said, np.argmax(logits[:, -1], -1)[:, None], axis=1)
        return said[:, 1:]

    def at_once():
        return model.generate(source, max_length=steps)

    if not np.array_equal(by_steps(), at_once()):
        raise RuntimeError("`generate` and the loop in Python say different things")
    calls = {"here": at_once, "loop in Python": by_steps}
    return medians(calls)


def measure_training(case, seed):
    """Milliseconds of a training step."""
    name, feeding, units, steps = case
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    source, target = tf.constant(rng.integers(4, TOKENS, (2, BATCH, steps)), tf.int32)

    def training(attention):
        train = tf.function(model_of(attention, units, feeding).train_step)
        train((source, target))
        return lambda: train((source, target))

    attention = ATTENTIONS[name](units)
    calls = {"products": [products(attention, feeding, units, steps)]}
    calls["without"] = [training(None) for _ in range(BUILDS)]
    calls["with"] = [training(ATTENTIONS[name](units)) for _ in range(BUILDS)]
    spent = medians({(n, i): c for n, own in calls.items() for i, c in enumerate(own)})
    return {
        name: median(spent[name, i] for i in range(len(own)))
        for name, own in calls.items()
    }


def products(attention, feeding, units, steps):
    """The matrix products of attention, forwards and backwards, as a call.

    Each comes three times: forwards, and backwards by either factor. With feeding those
    of the decoder run step by step, but for gradients by weights, which take all steps
    at once.
    """
    turns, each = (steps, 1) if feeding else (1, steps)
    additive = isinstance(attention, rk.BahdanauAttention)
    rows, size = BATCH * each, (units, units)
    of_weights = [  # rows, sizes, turns
        (rows, (2 * units, units), turns),
        *[(rows, (units, 4 * units), turns)] * feeding,
        *[(rows, size, turns)] * additive,
        *[(BATCH * steps, size, 1)] * (additive or attention.kind != "dot"),
    ]
    of_memory = [(each, (steps, units)), *[(each, (units, steps))] * (not additive)]
    in_turns, at_once = [], []
    for m, (k, n), count in of_weights:
        a, b, c = (tf.random.normal(shape) for shape in ((m, k), (k, n), (m, n)))
        both = [(a, b, False, False), (c, b, False, True)]
        if count > 1:
            in_turns += both
            a, c = tf.tile(a, [count, 1]), tf.tile(c, [count, 1])
        else:
            at_once += both
        at_once.append((a, c, True, False))
    for m, (k, n) in of_memory:
        shapes = (BATCH, m, k), (BATCH, k, n), (BATCH, m, n)
        a, b, c = map(tf.random.normal, shapes)
        all_three = [(a, b, False, False), (c, b, False, True), (a, c, True, False)]
        (in_turns if feeding else at_once).extend(all_three)

    def total(these):
        results = [tf.matmul(a, b, ta, tb) for a, b, ta, tb in these]
        return tf.add_n([tf.reshape(y, [-1])[0] for y in results])

    @tf.function(autograph=False)
    def run():
        if not in_turns:
            return total(at_once)
        loop = tf.while_loop(
            lambda t, _: t < turns,
            lambda t, so_far: (t + 1, so_far + total(in_turns)),
            (0, 0.0),
        )
        return loop[1] + total(at_once)

    run()
    return run


def medians(calls):
    spent = interleaved(calls, repeats=15, budget=20)
    return {name: 1000 * median(each) for name, each in spent.items()}


def markdown(results) -> str:
    """The tables."""
    decoding = [
        [steps, f"{ms['loop in Python'] / ms['here']:.0f}"]
        for steps, ms in results["decoding"].items()
    ]
    training = []
    for case, ms in results["training"].items():
        name, feeding, units, steps = ast.literal_eval(case)
        over = ms["without"] + ms["products"], ms["without"]
        ratios = [f"{ms['with'] / each:.2f}" for each in over]
        sizes = str(units), str(steps)
        training.append([name, "yes" if feeding else "no", *sizes, *ratios])
    return "\n".join(
        [
            f"Greedy answers for {BATCH} sources: the time of a loop in Python that "
            "calls the model for each token, over that of `generate`.",
            "",
            table(["tokens", "times as fast"], decoding),
            "",
            f"A training step of {BATCH} rows, with attention: its time over that of "
            "the same encoder and decoder without plus the products that attention "
            "consists of, and over that without alone.",
            "",
            table(
                [
                    "attention",
                    "input feeding",
                    "units",
                    "steps",
                    "over both",
                    "over it",
                ],
                training,
            ),
            "",
        ]
    )


if __name__ == "__main__":
    parted.run("attention", "Sequence to sequence", __doc__, parts, markdown)
