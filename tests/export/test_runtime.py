"""A file runs rightly, whoever calls it and however it is called."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

import keras_rnnkit as rk
from tests.helpers import assert_close, randomize


@pytest.fixture
def frames(rng):
    return rng.normal(size=(5, 6, 3)).astype("float32")


def model_of(rng, steps=6, sequences=False):
    inputs = keras.Input((steps, 3), name="frames")
    hidden = rk.GRU(16, return_sequences=sequences)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    randomize(model, rng)
    return model


def file_of(model, tmp_path, kind=rk.TFLiteModel, **arguments):
    arguments["streaming"] = kind is rk.StreamingModel
    rk.export_tflite(model, tmp_path / "m.tflite", **arguments)
    return kind(tmp_path / "m.tflite")


def two_inputs(rng):
    """A model whose inputs have one shape and are not exchangeable."""
    inputs = [keras.Input((4, 3), name=name) for name in ("left", "right")]
    hidden = [rk.LSTM(3)(inputs[0]), rk.GRU(3)(inputs[1])]
    model = keras.Model(inputs, keras.layers.Concatenate()(hidden))
    randomize(model, rng)
    return model


@pytest.mark.parametrize("steps", [6, None])
def test_threads_get_their_own_answers(steps, rng, tmp_path):
    model = model_of(rng, steps, sequences=True)
    file = file_of(model, tmp_path)
    lengths = [steps or int(rng.integers(1, 40)) for _ in range(20)]
    xs = [rng.normal(size=(1, n, 3)).astype("float32") for n in lengths]
    right = [file(frames=x)["output_0"] for x in xs]
    assert_close(right[0], model(xs[0]))
    order = rng.integers(0, 20, 1500)
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda n: file(frames=xs[n])["output_0"], order))
    for number, y in zip(order, got, strict=True):
        np.testing.assert_array_equal(y, right[number])


def test_threads_share_a_stream_step_by_step(rng, tmp_path):
    """Each thread's step is taken whole: as many calls as steps, none lost or mixed."""
    inputs = keras.Input((None, 1), name="x")
    count = rk.SimpleRNN(1, activation="linear", return_sequences=True)
    model = keras.Model(inputs, count(inputs))
    model.set_weights([np.ones((1, 1)), np.ones((1, 1)), np.zeros(1)])
    file = file_of(model, tmp_path, rk.StreamingModel)
    one = np.ones((1, 1, 1), "float32")
    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda _: float(file.step(one).item()), range(600)))
    assert sorted(got) == list(range(1, 601))


def test_an_object_is_pickled_with_its_file(rng, frames, tmp_path):
    file = file_of(model_of(rng), tmp_path)
    (tmp_path / "m.tflite").unlink()
    for other in pickle.loads(pickle.dumps(file)), copy.deepcopy(file):
        np.testing.assert_array_equal(
            other.predict(frames)["output_0"], file.predict(frames)["output_0"]
        )
        assert (other.input_names, other.batch_size) == (["frames"], 1)


def test_a_pickled_stream_goes_on_by_itself(rng, frames, tmp_path):
    model = model_of(rng, None, sequences=True)
    file = file_of(model, tmp_path, rk.StreamingModel)
    x = frames[:1]
    for t in range(3):
        file.step(x[:, [t]])
    other = pickle.loads(pickle.dumps(file))
    other.step(-x[:, [0]])
    parts = [file.step(x[:, [t]]) for t in range(3, 6)]
    assert_close(np.concatenate(parts, axis=1), model(x)[:, 3:])


def _in_child(file, x, answers):
    answers.put(file.predict(x)["output_0"])


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork"
)
def test_a_file_runs_after_a_fork_amidst_a_call(rng, frames, tmp_path):
    file = file_of(model_of(rng), tmp_path)
    right = file.predict(frames)["output_0"]
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with file._lock, ThreadPoolExecutor(1) as pool:
        # As if another thread were in a call; it is not there in the child.
        child = context.Process(target=_in_child, args=(file, frames, answers))
        pool.submit(child.start).result()
        got = answers.get(timeout=60)
    child.join(60)
    np.testing.assert_array_equal(got, right)
    np.testing.assert_array_equal(file.predict(frames)["output_0"], right)


def test_inputs_without_names(rng, frames, tmp_path):
    file = file_of(model_of(rng), tmp_path)
    right = file(frames=frames[:1])
    one = frames[:1]
    for given in (
        one,
        [one],
        (one,),
        one.tolist(),
        one.astype("float64"),
        {"frames": one},
    ):
        assert_close(file(given), right)
        assert_close(file.predict(given), right)


def test_a_list_of_inputs_is_in_the_order_of_their_names(rng, tmp_path):
    model = two_inputs(rng)
    file = file_of(model, tmp_path, batch_size=2)
    x = dict(zip(file.input_names, rng.normal(size=(2, 2, 4, 3)), strict=True))
    right = model([x["left"], x["right"]])
    for got in file(**x), file(list(x.values())), file(x), file.predict([*x.values()]):
        assert_close(got["output_0"], right)


WRONG = {
    "names": ({"other": 1}, r"the inputs must be \['left', 'right'\]; .*\['other'\]"),
    "one of two": ([np.zeros((1, 4, 3))], "by name, .*; received 1 without a name"),
    "an array": (np.zeros((2, 1, 4, 3)), "by name, .*; received one without a name"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_inputs_are_told_the_names(what, rng, tmp_path):
    file = file_of(two_inputs(rng), tmp_path)
    given, message = WRONG[what]
    with pytest.raises(ValueError, match=message):
        file(given)
    x = np.zeros((1, 4, 3))
    with pytest.raises(ValueError, match=r"by name, .*; received 2 .*\['left'\]"):
        file([x, x], left=x)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("batch_size", [1, 2, 4, None])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_any_number_of_rows(batch_size, rows, rng, frames, tmp_path):
    model = model_of(rng)
    file = file_of(model, tmp_path, batch_size=batch_size)
    got = file.predict(frames[:rows])["output_0"]
    assert got.shape == (rows, 2)
    assert got.dtype == "float32"
    if rows:
        assert_close(got, model(frames[:rows]))


def test_rows_have_to_be_as_many_in_each_input(rng, tmp_path):
    file = file_of(two_inputs(rng), tmp_path)
    message = "same number of rows; received {'left': 2, 'right': 3}"
    with pytest.raises(ValueError, match=message):
        file.predict(left=np.zeros((2, 4, 3)), right=np.zeros((3, 4, 3)))


BAD = {
    "words": ([[["a"] * 3] * 6], "input `frames` must hold numbers; received <U1"),
    "rows of two lengths": ([[[1.0] * 3] * 6, [[1.0] * 3] * 5], "must be an array"),
    "objects": ([[[None] * 3] * 6], "must hold numbers; received object"),
    "complex numbers": (np.zeros((1, 6, 3), complex), "received complex128"),
    "another shape": (np.zeros((1, 5, 3)), r"must have shape \(1, 6, 3\).*\(1, 5, 3\)"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_input_is_said(what, rng, frames, tmp_path):
    file = file_of(model_of(rng), tmp_path)
    right = file.predict(frames)
    given, message = BAD[what]
    for run in file, file.predict:
        with pytest.raises(ValueError, match=message):
            run(given)
    assert_close(file.predict(frames), right)


def test_steps_of_a_file_for_any_are_one_or_more(rng, tmp_path):
    file = file_of(model_of(rng, None), tmp_path)
    with pytest.raises(ValueError, match=r"\(1, -1, 3\), .*any size from 1; .*1, 0, 3"):
        file(np.zeros((1, 0, 3)))


def test_integers_are_finite_and_in_range(rng, frames, tmp_path):
    file = file_of(model_of(rng), tmp_path, quantize="int8", representative_data=frames)
    broken = frames.copy()
    broken[2, 3, 1] = np.nan
    with pytest.raises(ValueError, match="`frames` becomes int8 and must be finite"):
        file.predict(broken)
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    model = keras.Model(tokens, rk.GRU(2)(keras.layers.Embedding(5, 3)(tokens)))
    file = file_of(model, tmp_path)
    with pytest.raises(ValueError, match="`tokens` must be in the range of int32"):
        file([[0, 1, 2, 2**40]])


def test_running_needs_a_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        rk.TFLiteModel(tmp_path / "none.tflite")
