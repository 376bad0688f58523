"""Measures sequence to sequence: decoding, and the cost of attention in training.

    python benchmarks/attention.py [--quick] [--seed 0] [--out FOLDER]

- Greedy decoding of 64 rows: `generate` against a loop in Python that calls the model
  for each token. Both must return the same tokens.
- A training step with attention, against one without attention plus the matrix products
  of attention, run separately in the same shapes. Each model is built three times and
  the median time counts, because thread scheduling differs between graphs.

Writes attention.md and attention.json, or attention-quick.*. An interrupted run
resumes.
"""

import ast
import os
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import runner
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
    """Returns the parts: a name, the cases, and a function of a case and the seed."""
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
    """Returns a model with a bidirectional encoder and a decoder of `units` each."""
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
    """Times 64 answers of `steps` tokens, in milliseconds."""
    keras.utils.set_random_seed(seed)
    model = model_of(rk.LuongAttention(256, "general"), 256)
    # No padding, as in `generate`, and no end, so that all rows take all steps.
    excluded = np.isin(np.arange(TOKENS), (0, END))
    model.output_layer.bias.assign(np.where(excluded, -1e9, 0))
    source = np.random.default_rng(seed).integers(4, TOKENS, (BATCH, steps))

    def python_loop():
        tokens = np.full((BATCH, 1), START)
        for _ in range(steps):
            logits = model((source, tokens))
            tokens = np.append(tokens, np.argmax(logits[:, -1], -1)[:, None], axis=1)
        return tokens[:, 1:]

    def generate():
        return model.generate(source, max_length=steps)

    if not np.array_equal(python_loop(), generate()):
        raise RuntimeError("`generate` and the loop in Python return different tokens")
    calls = {"here": generate, "loop in Python": python_loop}
    return medians(calls)


def measure_training(case, seed):
    """Times a training step, in milliseconds."""
    name, feeding, units, steps = case
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    source, target = rng.integers(4, TOKENS, (2, BATCH, steps)).astype("int32")
    target[:, -1] = END
    source, target = tf.constant(source), tf.constant(target)

    def training(attention):
        train = tf.function(model_of(attention, units, feeding).train_step)
        train((source, target))
        return lambda: train((source, target))

    attention = ATTENTIONS[name](units)
    calls = {"products": [products(attention, feeding, units, steps)]}
    calls["without"] = [training(None) for _ in range(BUILDS)]
    calls["with"] = [training(ATTENTIONS[name](units)) for _ in range(BUILDS)]
    ms = medians({(n, i): c for n, each in calls.items() for i, c in enumerate(each)})
    return {
        name: median(ms[name, i] for i in range(len(each)))
        for name, each in calls.items()
    }


def products(attention, feeding, units, steps):
    """Returns a call that runs the matrix products of attention, forward and backward.

    Each product runs three times: forward, and backward for either factor. With input
    feeding those of the decoder run step by step, except the gradients of weights,
    which take all steps at once.
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

    def total(factors):
        results = [tf.matmul(a, b, ta, tb) for a, b, ta, tb in factors]
        return tf.add_n([tf.reshape(y, [-1])[0] for y in results])

    @tf.function(autograph=False)
    def run():
        if not in_turns:
            return total(at_once)
        loop = tf.while_loop(
            lambda t, _: t < turns,
            lambda t, y: (t + 1, y + total(in_turns)),
            (0, 0.0),
        )
        return loop[1] + total(at_once)

    run()
    return run


def medians(calls):
    spent = interleaved(calls, repeats=15, budget=20)
    return {name: 1000 * median(each) for name, each in spent.items()}


def markdown(results) -> str:
    """Returns the tables."""
    decoding = [
        [steps, f"{ms['loop in Python'] / ms['here']:.0f}"]
        for steps, ms in results["decoding"].items()
    ]
    training = []
    for case, ms in results["training"].items():
        name, feeding, units, steps = ast.literal_eval(case)
        baselines = ms["without"] + ms["products"], ms["without"]
        ratios = [f"{ms['with'] / each:.2f}" for each in baselines]
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
    runner.run("attention", "Sequence to sequence", __doc__, parts, markdown)
