"""Exported models of sequences answer as the model does, wherever they are run."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.export.test_export_stock import assert_builtin
from tests.layers.test_bad_input import assert_raises
from tests.seq2seq.test_seq2seq import mixed_float16 as mixed_float16  # a fixture
from tests.small_seq2seq import (
    END,
    KINDS,
    PAD,
    SLOW,
    make,
    pairs,
    stacked,
    trained_to_reverse,
)

LONGEST = 6


def answers_of(model, x, **options):
    """What a file is to return, by name."""
    looks = model.decoder.cell.attention is not None
    found = model.generate(
        x,
        max_length=LONGEST,
        return_scores=True,
        return_attention=looks,
        **options,
    )
    tokens = found[0]
    ended = np.cumsum(tokens == END, axis=1) - (tokens == END) > 0
    outputs = dict(zip(("tokens", "scores", "attention"), found, strict=False))
    return outputs | {"lengths": np.sum(~ended, axis=1)}


def assert_answers(outputs, expected, tolerance=1e-5):
    assert set(outputs) == set(expected)
    for name in "tokens", "lengths":
        np.testing.assert_array_equal(outputs[name], expected[name])
    for name in {"scores", "attention"} & set(expected):
        assert outputs[name].shape == expected[name].shape
        np.testing.assert_allclose(
            outputs[name], expected[name], rtol=tolerance, atol=tolerance
        )


# SavedModel

BEAM = {"method": "beam", "beam_width": 3, "length_penalty": 0.7}
SIZES = (3, 5), (1, 9), (4, 2)
CHILD = """
import sys
sys.modules["keras"] = sys.modules["keras_rnnkit"] = None
import numpy as np, tensorflow as tf
data = np.load("data.npz")
for model in "looking", "blind":
    signatures = tf.saved_model.load(model).signatures
    assert {"generate", "generate_beam"} <= set(signatures)
    for number in range(3):
        x = tf.constant(data[f"x{number}"], tf.int32)
        for name in "generate", "generate_beam":
            outputs = signatures[name](source=x)
            start = f"{model} {number} {name} "
            wanted = [each for each in data if each.startswith(start)]
            assert {start + each for each in outputs} == set(wanted), wanted
            for each, y in outputs.items():
                difference = abs(y.numpy() - data[start + each]).max(initial=0)
                print(start + each, difference, sep=":")
"""


def test_a_saved_model_answers_without_keras(rng, tmp_path):
    models = {
        "looking": make(**stacked(), rng=rng),
        "blind": make("none", rng=rng),
    }
    data = {f"x{n}": pairs(rng, *size)[0] for n, size in enumerate(SIZES)}
    for name, model in models.items():
        own = {"beam_width": 3, "length_penalty": 0.7}
        path = tmp_path / name
        assert rk.export_saved_model(model, path, max_length=LONGEST, **own) == path
        for number in range(len(SIZES)):
            x = data[f"x{number}"]
            for method, options in {"generate": {}, "generate_beam": BEAM}.items():
                for each, y in answers_of(model, x, **options).items():
                    data[f"{name} {number} {method} {each}"] = y
    np.savez(tmp_path / "data.npz", **data)
    run = [sys.executable, "-c", CHILD]
    out = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    found = dict(line.split(":") for line in out.stdout.splitlines())
    assert set(found) == {name for name in data if " " in name}
    for name, difference in found.items():
        exact = name.endswith(("tokens", "lengths"))
        assert float(difference) <= (0 if exact else 2e-5), name


def test_a_saved_model_may_take_sources_of_one_size(rng, tmp_path):
    model, (x, _) = make(rng=rng), pairs(rng, 2, 5)
    size = {"batch_size": 2, "time_steps": 5}
    rk.export_saved_model(model, tmp_path / "saved", max_length=LONGEST, **size)
    run = tf.saved_model.load(tmp_path / "saved").signatures["generate"]
    assert run.structured_input_signature[1]["source"].shape == (2, 5)
    outputs = run(source=tf.constant(x, tf.int32))
    assert_answers({n: y.numpy() for n, y in outputs.items()}, answers_of(model, x))


# TFLite

FILES = [  # kind, rows and steps of a call
    ("bahdanau", None, None),
    ("none", 1, 5),
    *(
        pytest.param(kind, rows, steps, marks=SLOW)
        for kind, rows, steps in [
            ("luong", 1, 7),
            ("luong", None, 4),
            ("local", None, None),
            ("local", 2, 5),
            ("none", 1, None),
            ("zeros", None, None),
            ("stacked", 3, None),
            ("tied", None, None),
            ("bidirectional", None, None),
            ("bidirectional", 1, 5),
            ("backwards", None, None),
            ("cells", 1, None),
        ]
    ),
]


@pytest.mark.parametrize(("kind", "rows", "steps"), FILES)
def test_a_file_answers_call_after_call(kind, rows, steps, rng, tmp_path):
    model = make(**KINDS[kind](), rng=rng, scale=0.8)
    path = tmp_path / "m.tflite"
    report = rk.export_tflite(
        model, path, max_length=LONGEST, batch_size=rows, time_steps=steps or "model"
    )
    content = rk.inspect_tflite(path)
    assert_builtin(content.counted)
    assert content.counted == report.ops
    assert list(content.signatures) == ["generate"]
    assert report.max_relative < 1e-5
    file = rk.TFLiteModel(path)
    assert file.input_names == ["source"]
    assert file.batch_size == rows
    said = set()
    for size in (2, 5), (1, 9), (3, 2), (1, 5):
        x = pairs(rng, rows or size[0], steps or size[1])[0][::-1]  # its last is empty
        expected = answers_of(model, x)
        for _ in range(2):
            assert_answers(file(source=x), expected)
        said |= {tuple(row) for row in expected["tokens"]}
    x = pairs(rng, 12, steps or 4)[0]
    expected = answers_of(model, x)
    assert_answers(file.predict(source=x), expected)
    assert len({*said, *map(tuple, expected["tokens"])}) > 2


@pytest.fixture(scope="module")
def trained():
    model, x, y = trained_to_reverse("luong")
    words = model.generate(x, max_length=7)
    right = np.all(words == y, axis=1)
    return model, x[right].astype("int32"), words[right]


@pytest.mark.parametrize(
    ("quantize", "smaller"), [("float16", 1.6), pytest.param("dynamic", 2, marks=SLOW)]
)
def test_a_trained_model_keeps_its_answers_in_few_bits(
    quantize, smaller, trained, tmp_path
):
    model, x, words = trained
    given = {"max_length": 7, "batch_size": None, "check": x[:32]}
    path = tmp_path / "m.tflite"
    report = rk.export_tflite(model, path, quantize=quantize, **given)
    assert report.quantize == quantize
    assert_builtin(report.ops)
    weights = 4 * model.count_params()
    assert rk.inspect_tflite(path).weights < weights / smaller
    got = rk.TFLiteModel(path).predict(source=x)
    right = np.all(got["tokens"] == words, axis=1)
    assert np.mean(right) > 0.98
    expected = model.generate(x, max_length=7, return_scores=True)[1]
    assert np.abs(got["scores"] - expected)[right].max() < 0.3


def test_random_data_to_compare_on_is_padded(trained, tmp_path):
    model = trained[0]
    signatures = rk.export.signatures.GenerateSignatures(
        model, None, "model", False, LONGEST
    )
    calls = [call["source"] for call in signatures.random_calls()]
    assert len({x.shape for x in calls}) == 3
    for x in calls:
        assert x.dtype == "int32"
        assert x.max() < model.source_embedding.input_dim
        lengths = np.count_nonzero(x, axis=1)
        assert lengths.min() > 0
        assert np.all((x != PAD) == (np.arange(x.shape[1]) < lengths[:, None]))
    assert any(PAD in x for x in calls)


# What is wrong

TOKENS = np.ones((3, 4), "int32")
REFUSED = {
    "no length": (
        {"max_length": None},
        "`max_length` must say how long an answer of `seq2_seq.*` may be; rec.* None",
    ),
    "length": ({"max_length": 0}, "`max_length` must be a positive integer; rec.* 0"),
    "int8": (
        {"quantize": "int8", "representative_data": TOKENS},
        "`seq2_seq.*` needs a loop, which TFLite cannot quantize to integers: use "
        "'dynamic' or 'float16'",
    ),
    "int16x8": (
        {"quantize": "int16x8", "representative_data": TOKENS},
        "TFLite cannot quantize to integers",
    ),
    "streaming": (
        {"streaming": True},
        "`seq2_seq.*` can neither stream nor forecast, as it answers complete sources; "
        "received `streaming=True`",
    ),
    "forecast": ({"forecast": 3}, "neither stream nor forecast.* `forecast=3`"),
    "check": ({"check": np.ones(3)}, "`check` must hold 1 arrays of .*'source'"),
    "form": ({"form": {"other": "loop"}}, "`form` must name recurrent layers"),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_file_cannot_do_is_refused(given, message, tmp_path):
    path = tmp_path / "m.tflite"
    given = {"max_length": LONGEST} | given
    assert_raises(message, rk.export_tflite, make(), path, **given)
    if {"forecast"} & set(given) or given["max_length"] != LONGEST:
        assert_raises(message, rk.export_saved_model, make(), path, **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("mixed_float16")
def test_a_model_that_computes_in_float16_is_written_in_float32(tmp_path):
    model, path = make(), tmp_path / "m.tflite"
    report = rk.export_tflite(model, path, max_length=LONGEST)
    assert report.max_relative < 1e-5
    assert model.encoder.compute_dtype == "float16"


def test_other_models_have_no_length_of_an_answer(tmp_path):
    model = keras.Sequential([keras.Input((3, 2)), rk.GRU(2)], name="mine")
    message = "`max_length` requires a `Seq2Seq`, which `mine` is not; received 5"
    for export in rk.export_tflite, rk.export_saved_model:
        assert_raises(message, export, model, tmp_path / "m", max_length=5)
    assert not list(tmp_path.iterdir())


def test_a_file_says_what_it_takes(rng, tmp_path):
    model, path = make("none", rng=rng), tmp_path / "m.tflite"
    rk.export_tflite(model, path, max_length=LONGEST, time_steps=5)
    file = rk.TFLiteModel(path)
    with pytest.raises(
        ValueError, match=r"`source` must have shape \(1, 5\), .*\(2, 4"
    ):
        file(source=np.ones((2, 4), int))
    with pytest.raises(ValueError, match=r"the inputs must be \['source'\]; received"):
        file(x=np.ones((1, 5), int))
    with pytest.raises(
        ValueError, match="must have a signature `step`; received .*gen"
    ):
        rk.StreamingModel(path)
