"""Random models of Keras layers: each gives a right file, or one clear sentence."""

import re
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_rnnkit as rk
from tests.helpers import randomize

MODELS, AT_ONCE = 200, 10
STEPS, FEATURES, TOKENS = 6, 3, 7
PAGES = "in user code", "Traceback", "see current operation", "function_node"
LONGEST = 700  # letters of a sentence that names layer, rule, value and remedy


class Drawn:
    """A random model, its inputs' data, and how it is to be exported."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.known = self.maybe(0.7)  # whether the number of steps is
        self.shared = {}
        keras.utils.set_random_seed(seed)
        self.inputs, x = self.source()
        for _ in range(self.rng.integers(1, 5)):
            x = self.layer(x)
        outputs = [x]
        if self.maybe(0.3):
            outputs.append(self.layer(x))
        self.model = keras.Model(self.inputs, outputs)
        if self.maybe(0.2):  # nested
            inner, inputs = self.model, [self.like(x) for x in self.inputs]
            self.model = keras.Model(inputs, inner(inputs))
        randomize(self.model, self.rng, scale=0.4)
        for weight in self.model.weights:
            if weight.name == "moving_variance":
                weight.assign(ops.abs(weight) + 0.1)

    def maybe(self, share):
        return self.rng.random() < share

    def one_of(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def like(self, x):
        return keras.Input(x.shape[1:], dtype=x.dtype, name=x.name)

    def source(self):
        """Inputs, and a sequence made of them."""
        steps = STEPS if self.known else None
        kind = self.one_of("frames", "frames", "tokens", "both", "two", "film")
        frames = keras.Input((steps, FEATURES), name=self.one_of("frames", "x-1"))
        if kind == "frames":
            return [frames], frames
        if kind == "film":
            film = keras.Input((steps, 4, 4, 1), name="film")
            inner = self.one_of(layers.Flatten(), layers.Conv2D(2, 3))
            x = layers.TimeDistributed(inner)(film)
            rank = len(x.shape)
            return [film], x if rank == 3 else layers.TimeDistributed(
                layers.GlobalAveragePooling2D()
            )(x)
        tokens = keras.Input((steps,), dtype="int32", name="tokens")
        mask = self.maybe(0.5)
        x = layers.Embedding(TOKENS, FEATURES, mask_zero=mask)(tokens)
        if kind == "tokens":
            return [tokens], x
        if kind == "two":
            vector = keras.Input((2,), name="vector")
            return [frames, vector], layers.GRU(3, return_sequences=True)(
                frames, initial_state=layers.Dense(3)(vector)
            )
        return [tokens, frames], layers.Concatenate()([x, frames])

    def layer(self, x):
        """A layer on a sequence, or on a vector."""
        if len(x.shape) == 2:
            return self.one_of(
                lambda x: layers.Dense(3, self.one_of("relu", "tanh", "softmax"))(x),
                lambda x: layers.Concatenate()([x, ops.sin(x)]),
                lambda x: layers.BatchNormalization()(x),
                lambda x: layers.RepeatVector(3)(x),
            )(x)
        return self.one_of(
            self.recurrent,
            self.recurrent,
            self.recurrent,
            lambda x: layers.Dense(4, self.one_of(None, "sigmoid", "elu"))(x),
            lambda x: layers.Conv1D(3, 2, padding=self.one_of("causal", "same"))(x),
            lambda x: layers.MaxPooling1D(2, padding="same")(x),
            lambda x: layers.AveragePooling1D(2, padding="same")(x),
            lambda x: layers.GlobalMaxPooling1D()(x),
            lambda x: layers.GlobalAveragePooling1D()(x),
            lambda x: layers.LayerNormalization()(x),
            lambda x: layers.UpSampling1D(2)(x),
            lambda x: layers.Add()([x, layers.Dense(x.shape[-1])(x)]),
            lambda x: layers.Concatenate()([x, ops.tanh(x)]),
            lambda x: layers.TimeDistributed(layers.Dense(2))(x),
            lambda x: layers.Attention()([x, x]),
            lambda x: layers.MultiHeadAttention(2, 2)(x, x),
            lambda x: layers.Masking(0.0)(x),
            lambda x: ops.flip(x, 1),
            lambda x: x[:, ::2],
            self.twice,
        )(x)

    def twice(self, x):
        """A shared layer."""
        width = x.shape[-1]
        dense = layers.Dense(width, "tanh")
        return dense(dense(x))

    def recurrent(self, x):
        units, sequences = int(self.rng.integers(1, 6)), self.maybe(0.7)
        kind = self.one_of(
            *(layers.SimpleRNN, layers.LSTM, layers.GRU),
            *(rk.SimpleRNN, rk.LSTM, rk.GRU),
        )
        own = {}
        if kind is layers.GRU:
            own["reset_after"] = self.maybe(0.5)
        layer = kind(units, return_sequences=sequences, **own)
        wrapped = self.one_of(*[None] * 4, "both", "stacked")
        if wrapped == "both":
            layer = self.one_of(layers.Bidirectional, rk.Bidirectional)(layer)
        if wrapped == "stacked":
            layer = rk.StackedRNN([rk.LSTM(2), rk.GRU(2)], return_sequences=sequences)
        return layer(x)

    def data(self, rows):
        """Inputs by name."""
        return {
            x.name: self.rng.integers(1, TOKENS, (rows, STEPS)).astype("int32")
            if "int" in x.dtype
            else self.rng.normal(
                size=(rows, *(n or STEPS for n in x.shape[1:]))
            ).astype("float32")
            for x in self.model.inputs
        }

    def options(self):
        """Arguments of `export_tflite`."""
        options = {"batch_size": self.one_of(1, 1, 2, None)}
        options["quantize"] = self.one_of(*[None] * 4, "dynamic", "float16", "int8")
        if options["quantize"] == "int8":
            options["representative_data"] = self.data(24)
        if self.maybe(0.15):
            options["streaming"] = True
        elif self.maybe(0.2):
            options["time_steps"] = self.one_of(None, 4)
        return options


def assert_right(drawn, path, options):
    """A file answers as its model does, on data that the export did not see."""
    file, quantize = rk.TFLiteModel(path), options["quantize"]
    rows = options["batch_size"] or 3
    data = drawn.data(rows)
    if options.get("time_steps"):
        return  # of another number of steps than the model's own
    names = (
        dict(zip(data, file.input_names, strict=True))
        if len(data) == 1
        else {name: re.sub(r"\W", "_", name) for name in data}
    )
    got = file.predict({names[name]: x for name, x in data.items()})
    want = [np.asarray(y) for y in keras.tree.flatten(drawn.model(list(data.values())))]
    assert len(got) == len(want)
    bound = {None: 1e-4, "float16": 0.03, "dynamic": 0.3, "int8": 0.6}[quantize]
    for number, y in enumerate(want):
        x = got[f"output_{number}"]
        assert x.shape == y.shape
        assert np.isfinite(y).all()
        assert np.sqrt(np.mean((x - y) ** 2)) <= bound * np.sqrt(np.mean(y**2)) + 1e-6


def assert_sentence(error):
    said = str(error)
    assert isinstance(error, (ValueError, RuntimeError)), repr(error)
    assert not any(page in said for page in PAGES), said
    assert said.count("\n") == 0, said
    assert len(said) <= LONGEST, said
    assert "`" in said, said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer .* does not support masking:UserWarning")
@pytest.mark.parametrize("first", range(0, MODELS, AT_ONCE))
def test_a_random_model_gives_a_right_file_or_one_sentence(first):
    written, failed = 0, {}
    for seed in range(first, first + AT_ONCE):
        drawn = Drawn(seed)
        options = drawn.options()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.tflite"
            try:
                rk.export_tflite(drawn.model, path, **options)
            except Exception as error:
                assert not list(Path(folder).iterdir())
                try:
                    assert_sentence(error)
                except AssertionError as fault:
                    failed[seed] = f"{options}: {fault}"[:900]
                continue
            written += 1
            if not options.get("streaming"):
                assert_right(drawn, path, options)
        with tempfile.TemporaryDirectory() as folder:
            rk.export_saved_model(drawn.model, Path(folder) / "m")
    assert not failed, "\n\n".join(f"{seed}: {text}" for seed, text in failed.items())
    assert written >= AT_ONCE // 2
