"""The readout in closed form: scikit-learn's `Ridge` on the model's own features."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.reservoir import feature_extractor
from keras_rnnkit.reservoir.feature_extractor import feature_extractor_of
from tests.reservoirs import (
    ROWS,
    STEPS,
    UNITS,
    L,
    assert_same,
    assert_solved,
    counted,
    data,
    esn,
    features_of,
    frozen,
    model_of,
    ridge,
)

pytestmark = pytest.mark.usefixtures("float64")

# The equation

BODIES = {
    "sequence": lambda: esn(loop="auto"),
    "sparse": lambda: esn(sparse=True, leak_rate=0.3),
    "last state": lambda: esn(return_sequences=False),
    "deep": lambda: rk.StackedRNN(
        [esn(1), esn(2, 4)], outputs="all", return_sequences=True
    ),
    "LSTM": lambda: frozen(rk.LSTM(UNITS, return_sequences=True)),
    "Keras's GRU": lambda: frozen(L.GRU(UNITS)),
    "the input": lambda: L.Identity(),
}
CASES = [
    *[(body, {}) for body in BODIES],
    ("sequence", {"bias": False}),
    ("sequence", {"alpha": 10.0, "washout": 3}),
    ("sequence", {"alpha": 0.0, "washout": STEPS - 1, "rows": 20}),
    ("sequence", {"weights": "rows", "bias": False, "batch_size": 2}),
    ("deep", {"weights": "steps", "washout": 1, "batch_size": 1}),
    ("last state", {"weights": "rows", "alpha": 1e3}),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("body", "case"), CASES)
def test_the_readout_is_ridge_regression(body, case, rng):
    case = {"alpha": 0.01, "bias": True, "washout": 0, "rows": ROWS} | case
    model = model_of(BODIES[body](), bias=case["bias"])
    x, y = data(rng, case["rows"])
    y = 3 * y + 100 if case["bias"] else y  # far from zero
    dense = model.layers[-1]
    y = y if len(dense.input.shape) == 3 else y[:, -1]
    shapes = {"rows": len(x), "steps": x.shape[:2]}
    weights = rng.integers(0, 3, shapes[case["weights"]]) if "weights" in case else None
    found = rk.fit_readout(
        model,
        x,
        y,
        ridge=case["alpha"],
        washout=case["washout"],
        sample_weight=weights,
        batch_size=case.get("batch_size", 32),
    )
    phi, y, w = counted(features_of(model, dense, x), y, weights, case["washout"])
    assert_solved(dense, ridge(phi, y, w, case["alpha"], case["bias"]))
    assert found == rk.Readout(case["alpha"], {}, w.sum())


@pytest.mark.parametrize("kind", ["masking", "lengths"])
def test_masked_steps_do_not_count(kind, rng):
    x, y = data(rng)
    lengths = np.array([12, 1, 0, 7, 4])
    mask = np.arange(STEPS) < lengths[:, None]
    x, inputs = np.where(mask[..., None], x, 0), keras.Input((None, 2), name="x")
    dense = L.Dense(2)
    if kind == "masking":
        model = keras.Model(inputs, dense(esn()(L.Masking()(inputs))))
    else:
        inputs = {
            "lengths": keras.Input((), dtype="int32", name="lengths"),
            "x": inputs,
        }
        model = keras.Model(
            inputs, dense(esn()(inputs["x"], lengths=inputs["lengths"]))
        )
        x = {"x": x, "lengths": lengths}
    rk.fit_readout(model, x, y, ridge=0.01, washout=2, batch_size=3)
    rows = counted(features_of(model, dense, x), y, None, 2, mask)
    assert_solved(dense, ridge(*rows))


@pytest.mark.parametrize("form", [list, dict])
def test_each_output_is_solved_from_what_is_below_it(form, rng):
    inputs, readouts = keras.Input((None, 2)), [L.Dense(1, name="a"), L.Dense(3)]
    lower = esn(1)(inputs)
    outputs = readouts[0](lower), readouts[1](esn(2, 4, return_sequences=False)(lower))
    x, y = data(rng)
    ys = rng.normal(size=(ROWS, STEPS)), y[:, -1] @ rng.normal(size=(2, 3))
    if form is dict:  # by the names of the outputs, in no order
        outputs = {"b": outputs[0], "a": outputs[1]}
        model = keras.Model(inputs, outputs)
        given = {"b": ys[0], "a": ys[1]}
    else:
        model, given = keras.Model(inputs, list(outputs)), list(ys)
    found = rk.fit_readout(model, x, given, ridge=[0.01, 1e4], batch_size=2)
    for dense, y, alpha in zip(
        readouts, ys, found.ridge if form is list else found.ridge[::-1], strict=True
    ):
        phi, y, _ = counted(features_of(model, dense, x), y)
        assert_solved(dense, ridge(phi, y, alpha=alpha))


# What the data come in


class Sequence(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, number):
        return self.batches[number]


FORMS = {
    "tf.data": lambda arrays: tf.data.Dataset.from_tensor_slices(arrays).batch(2),
    "PyDataset": lambda arrays: Sequence(batches_of(arrays)),
    "generator": lambda arrays: iter(batches_of(arrays)),
    "list": lambda arrays: batches_of(arrays),
}


def batches_of(arrays, size=2):
    parts = [slice(i, i + size) for i in range(0, ROWS, size)]
    return [keras.tree.map_structure(lambda a, s=s: a[s], arrays) for s in parts]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_data_gives_the_same(form, weighted, rng):
    arrays = (*data(rng), rng.random((ROWS, STEPS)))[: 3 if weighted else 2]
    model, other = model_of(esn()), model_of(esn())
    rk.fit_readout(other, *arrays[:2], sample_weight=arrays[2] if weighted else None)
    rk.fit_readout(model, FORMS[form](arrays))
    assert_same(model, other)


@pytest.mark.parametrize("form", ["arrays", "tf.data", "generator"])
@pytest.mark.parametrize("nest", [list, dict])
def test_a_model_of_two_inputs_takes_lists_and_dicts(nest, form, rng):
    inputs = [keras.Input((None, 2), name=name) for name in ("left", "right")]
    dense = L.Dense(2)
    y = dense(esn()(L.Concatenate()(inputs)))
    both = inputs if nest is list else {each.name: each for each in inputs}
    model = keras.Model(both, y)
    (x, y), (more, _) = data(rng), data(rng)
    given = [x, more] if nest is list else {"right": more, "left": x}
    if form == "arrays":
        rk.fit_readout(model, given, y, ridge=0.01)
    else:
        given_now = tuple(given) if nest is list else given
        rk.fit_readout(model, FORMS[form]((given_now, y)), ridge=0.01)
    rows = counted(features_of(model, dense, given), y)
    assert_solved(dense, ridge(*rows))


# Some steps at a time


def functional(of, shape=(None, 2), units=2, dtype=None):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, L.Dense(units)(of(inputs)))


def with_squares(x):
    states = esn()(x)
    return L.Concatenate()([states, L.Multiply()([states, states]), x])


def from_last_state(x):
    _, state = esn(return_state=True)(x)
    return esn(2)(x, initial_state=[state])


def times_last_state(x):
    return L.Multiply()([esn(2)(x), esn(return_sequences=False)(x)])


CHUNKED = {
    "ESN": lambda: model_of(esn(loop="auto")),
    "fixed steps": lambda: model_of(esn(), shape=(30, 2)),
    "deep": lambda: model_of(BODIES["deep"]()),
    "last state": lambda: model_of(esn(return_sequences=False)),
    "masked": lambda: model_of(L.Masking(), esn(loop="auto"), BODIES["LSTM"]()),
    "masked, last state": lambda: model_of(
        L.Masking(), esn(loop="auto", return_sequences=False)
    ),
    "squares": lambda: functional(with_squares),
    "within a model": lambda: functional(keras.Sequential([L.Identity(), esn()])),
    "tokens": lambda: model_of(
        frozen(L.Embedding(5, 3, mask_zero=True)), esn(), shape=(None,)
    ),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CHUNKED)
def test_chunks_give_what_the_whole_gives(name, rng, monkeypatch):
    x, y = data(rng, steps=30)
    x[0, 4:] = x[1, :20] = x[2] = 0
    x = rng.integers(0, 5, (ROWS, 30)) if name == "tokens" else x
    model, other = CHUNKED[name](), CHUNKED[name]()
    other.set_weights(model.get_weights())
    y = y if len(model.output_shape) == 3 else y[:, -1]
    rk.fit_readout(other, x, y, ridge=0.01)
    monkeypatch.setattr(feature_extractor, "MAX_CHUNK_STEPS", 7)
    assert len(list(feature_extractor_of(model).chunks(tf.constant(x)))) == 5
    rk.fit_readout(model, x, y, ridge=0.01)
    assert_same(model, other)


WHOLE = {
    "Bidirectional": lambda x: rk.Bidirectional(esn(return_sequences=True))(x),
    "Conv1D": lambda x: frozen(L.Conv1D(4, 3, padding="same"))(esn()(x)),
    "backwards": lambda x: esn(go_backwards=True)(x),
    "Keras's LSTM": lambda x: frozen(L.LSTM(UNITS, return_sequences=True))(x),
    "softmax over time": lambda x: L.Softmax(axis=1)(esn()(x)),
    "from the last state": from_last_state,
    "times the last state": times_last_state,
}


@pytest.mark.parametrize("name", WHOLE)
def test_what_needs_the_whole_sequence_gets_it(name, rng, monkeypatch):
    monkeypatch.setattr(feature_extractor, "MAX_CHUNK_STEPS", 7)
    model = functional(WHOLE[name])
    x, y = data(rng)
    rk.fit_readout(model, x, y, ridge=0.01)
    assert not feature_extractor_of(model).can_stream
    assert_solved(
        model.layers[-1], ridge(*counted(features_of(model, model.layers[-1], x), y))
    )


def test_long_sequences_are_run_some_steps_at_a_time(rng, monkeypatch):
    monkeypatch.setattr(feature_extractor, "MAX_CHUNK_STEPS", 4096)
    model, (x, y) = model_of(esn(loop="auto")), data(rng, 3, 9000)
    sizes = [
        chunk.shape[1] for chunk in feature_extractor_of(model).chunks(tf.constant(x))
    ]
    assert sizes == [4096, 4096, 808]
    rk.fit_readout(model, x, y, ridge=0.01, washout=5000)
    rows = counted(features_of(model, model.layers[-1], x), y, None, 5000)
    assert_solved(model.layers[-1], ridge(*rows))


def test_what_has_no_steps_is_not_cut(rng, monkeypatch):
    monkeypatch.setattr(feature_extractor, "MAX_CHUNK_STEPS", 7)
    model = model_of(frozen(L.Dense(UNITS, "tanh")), shape=(20,), units=1)
    x, y = rng.normal(size=(30, 20)), rng.normal(size=30)
    rk.fit_readout(model, x, y, ridge=0.01)
    dense = model.layers[-1]
    assert_solved(dense, ridge(features_of(model, dense, x), y))


def test_noise_is_drawn_unless_it_is_not_to_be(rng):
    model, (x, y) = model_of(esn(noise=0.1)), data(rng)
    dense = model.layers[-1]
    rk.fit_readout(model, x, y, ridge=0.01, training=False)
    plain = dense.kernel.numpy()
    assert_solved(dense, ridge(*counted(features_of(model, dense, x), y)))
    rk.fit_readout(model, x, y, ridge=0.01)
    assert np.abs(dense.kernel.numpy() - plain).max() > 1e-3
