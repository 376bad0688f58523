"""Data as people hold them give what their sequences, run one by one, give."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.reservoir import feature_extractor
from tests.helpers import assert_close
from tests.layers.test_bad_input import assert_raises
from tests.reservoirs import L, assert_solved, counted, esn, features_of, frozen, ridge
from tests.reservoirs import model_of as model_of_two

pytestmark = pytest.mark.usefixtures("float64")
LENGTHS = 12, 30, 9, 12, 17


def model_of(*layers, features=2, **options):
    return model_of_two(*layers, shape=(None, features), **options)


def drawn(rng, features=2, lengths=LENGTHS):
    return [rng.normal(size=(n, features)) for n in lengths]


def rows_of(model, x, y, washout=0, weights=None):
    """Features, targets and weights of all sequences, which are run one by one."""
    dense, parts = model.layers[-1], []
    for number, (one, target) in enumerate(zip(x, y, strict=True)):
        phi = features_of(model, dense, np.asarray(one)[None])
        w = None if weights is None else np.atleast_1d(weights[number])
        if phi.ndim == 2:
            w = None if w is None else w[-1:]
            parts.append(counted(phi, np.reshape(target, (1, -1)), w))
        else:
            w = None if w is None else np.broadcast_to(w, len(one))[None]
            target = np.reshape(target, (1, len(one), -1))
            parts.append(counted(phi, target, w, washout))
    return [np.concatenate(each) for each in zip(*parts, strict=True)]


def ragged(parts):
    lengths = [len(each) for each in parts]
    return tf.RaggedTensor.from_row_lengths(np.concatenate(parts), lengths)


def objects(parts):
    held = np.empty(len(parts), object)
    held[:] = parts
    return held


def table(values):
    pandas = pytest.importorskip("pandas")
    kind = pandas.Series if np.ndim(values) == 1 else pandas.DataFrame
    return kind(values, index=range(7, 7 + len(values)))


FORMS = {
    "arrays": list,
    "tuple": tuple,
    "lists": lambda parts: [each.tolist() for each in parts],
    "objects": objects,
    "ragged": ragged,
    "ragged twice": tf.ragged.stack,
    "tensors": lambda parts: [tf.constant(each) for each in parts],
    "tables": lambda parts: [table(each) for each in parts],
}
BODIES = {
    "sequence": lambda: esn(loop="auto"),
    "last state": lambda: esn(loop="auto", return_sequences=False),
    "last state, portable": lambda: esn(return_sequences=False),
    "deep, last": lambda: rk.StackedRNN([esn(1), esn(2, 4)], outputs="all"),
    "LSTM": lambda: frozen(rk.LSTM(4, return_sequences=True)),
    "Bidirectional": lambda: frozen(rk.Bidirectional(rk.GRU(3))),
    "convolution": lambda: frozen(L.Conv1D(4, 3, padding="same")),
    "words": lambda: L.TimeDistributed(L.Dense(3, trainable=False)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_in_any_form(form, rng):
    model, x, y = model_of(esn()), drawn(rng), drawn(rng)
    rk.fit_readout(model, FORMS[form](x), FORMS[form](y), ridge=0.01, washout=5)
    assert_solved(model.layers[-1], ridge(*rows_of(model, x, y, 5)))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("weighted", [None, "rows", "steps"])
@pytest.mark.parametrize("name", BODIES)
def test_a_list_for_any_model(name, weighted, rng, monkeypatch):
    monkeypatch.setattr(feature_extractor, "MAX_CHUNK_STEPS", 11)
    model, x, y = model_of(BODIES[name]()), drawn(rng), drawn(rng)
    weights = rng.random(len(x)) if weighted == "rows" else None
    weights = [rng.random(len(each)) for each in x] if weighted == "steps" else weights
    y = y if len(model.output_shape) == 3 else np.stack([each[-1] for each in y])
    rk.fit_readout(model, x, y, ridge=0.01, sample_weight=weights, batch_size=3)
    rows = rows_of(model, x, y, 0, weights)
    assert_solved(model.layers[-1], ridge(*rows))


def test_a_list_of_one_length_is_a_batch(rng):
    model, other = model_of(esn(loop="auto")), model_of(esn(loop="auto"))
    x, y = drawn(rng, lengths=(9, 9, 9)), drawn(rng, lengths=(9, 9, 9))
    rk.fit_readout(model, x, y)
    rk.fit_readout(other, np.stack(x), np.stack(y))
    np.testing.assert_array_equal(*[m.layers[-1].kernel for m in (model, other)])


def test_masked_steps_of_a_list_do_not_count(rng):
    model, x, y = model_of(L.Masking(), esn()), drawn(rng), drawn(rng)
    for each in x:
        each[3:6] = 0
    rk.fit_readout(model, x, y, ridge=0.01, batch_size=4)
    rows = rows_of(model, x, y)
    there = np.concatenate([np.any(each != 0, axis=1) for each in x])
    assert_solved(model.layers[-1], ridge(*[each[there] for each in rows]))


ALONE = {
    "array": (2, 2, np.asarray),
    "table": (2, 2, table),
    "series": (1, 1, lambda values: table(values[:, 0])),
    "steps": (1, 1, lambda values: values[:, 0]),
    "lists": (2, 2, np.ndarray.tolist),
    "list of numbers": (1, 1, lambda values: values[:, 0].tolist()),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ALONE)
def test_one_sequence(name, weighted, rng):
    features, units, form = ALONE[name]
    (x,), (y,) = drawn(rng, features, [40]), drawn(rng, units, [40])
    weights = rng.random(40) if weighted else None
    model = model_of(esn(), features=features, units=units)
    found = rk.fit_readout(
        model, form(x), form(y), ridge=0.01, washout=4, sample_weight=weights
    )
    assert_solved(
        model.layers[-1],
        ridge(*rows_of(model, [x], [y], 4, [weights] if weighted else None)),
    )
    assert found.count == pytest.approx(weights[4:].sum() if weighted else 36)


@pytest.mark.parametrize("targets", ["one", "(1, outputs)"])
def test_one_output_a_sequence(targets, rng):
    model, x = model_of(esn(return_sequences=False)), drawn(rng)
    y = rng.normal(size=(len(x), 2))
    given = y if targets == "one" else [each[None] for each in y]
    rk.fit_readout(model, x, given, ridge=0.01)
    assert_solved(model.layers[-1], ridge(*rows_of(model, x, y)))
    alone = rk.fit_readout(model, x[0], y[0], ridge=0.01)
    assert alone.count == 1


def test_series_of_several_lengths(rng):
    model, x, y = model_of(esn(), features=1, units=1), drawn(rng, 1), drawn(rng, 1)
    rk.fit_readout(model, [e[:, 0] for e in x], [table(e[:, 0]) for e in y], ridge=0.01)
    assert_solved(model.layers[-1], ridge(*rows_of(model, x, y)))


def test_words(rng):
    layers = frozen(L.Embedding(5, 3)), esn()
    model = model_of_two(*layers, shape=(None,))
    x, y = [rng.integers(0, 5, n) for n in LENGTHS], drawn(rng)
    rk.fit_readout(model, [each.tolist() for each in x], y, ridge=0.01)
    assert_solved(model.layers[-1], ridge(*rows_of(model, x, y)))
    rk.fit_readout(model, x[1], y[1], ridge=0.01)
    assert_solved(model.layers[-1], ridge(*rows_of(model, x[1:2], y[1:2])))


def test_rows_without_steps_stay_rows(rng):
    model = model_of_two(frozen(L.Dense(4, "tanh")), shape=(3,), units=1)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    for form in np.asarray, table, list:
        rk.fit_readout(model, form(x), form(y), ridge=0.01)
        dense = model.layers[-1]
        assert_solved(dense, ridge(features_of(model, dense, x), y))


@pytest.mark.parametrize("nest", [list, dict])
def test_a_model_of_two_inputs_and_outputs(nest, rng):
    inputs = [keras.Input((None, 2), name="a"), keras.Input((None, 1), name="b")]
    constant = keras.Input((3,), name="c")
    states = esn()(L.Concatenate()(inputs))
    last = L.Concatenate()([esn(2, return_sequences=False)(inputs[0]), constant])
    readouts = [L.Dense(2, name="p"), L.Dense(1, name="q")]
    outputs = [readouts[0](states), readouts[1](last)]
    model = keras.Model([*inputs, constant], outputs)
    x = [drawn(rng), drawn(rng, 1), rng.normal(size=(len(LENGTHS), 3))]
    y = [drawn(rng), rng.normal(size=len(LENGTHS))]
    given = x, y
    if nest is dict:
        given = dict(zip("abc", x, strict=True)), dict(zip("pq", y, strict=True))
    rk.fit_readout(model, *given, ridge=0.01)
    for dense, target in zip(readouts, y, strict=True):
        below = keras.Model(model.inputs, dense.input)
        phi = [below([each[i][None] for each in x])[0] for i in range(len(LENGTHS))]
        phi = np.concatenate([np.atleast_2d(each) for each in phi])
        assert_solved(
            dense, ridge(phi, np.concatenate(target) if dense.units > 1 else target)
        )


YIELDED = {
    "lists": lambda x, y: iter([(x[:2], y[:2]), (x[2:], y[2:])]),
    "one by one": lambda x, y: [(a[None], b[None]) for a, b in zip(x, y, strict=True)],
    "alone": lambda x, y: list(zip(x, y, strict=True)),
    "tf.data": lambda x, y: tf.data.Dataset.from_tensor_slices(
        (ragged(x), ragged(y))
    ).batch(2),
}


@pytest.mark.parametrize("form", YIELDED)
def test_what_yields_lists(form, rng):
    model, x, y = model_of(esn()), drawn(rng), drawn(rng)
    rk.fit_readout(model, YIELDED[form](x, y), ridge=0.01)
    assert_solved(model.layers[-1], ridge(*rows_of(model, x, y)))


def test_validation_by_a_list(rng):
    model, x, y = model_of(esn()), drawn(rng), drawn(rng)
    ridges = [1e-3, 1.0]
    other = drawn(rng, lengths=(8, 21)), drawn(rng, lengths=(8, 21))
    found = rk.fit_readout(
        model, x, y, ridge=ridges, washout=3, validation_data=other, batch_size=2
    )
    phi, target, _ = rows_of(model, *other, 3)
    for alpha in ridges:
        solved = ridge(*rows_of(model, x, y, 3), alpha)
        expected = np.square(target - solved.predict(phi)).mean()
        assert found.errors[alpha] == pytest.approx(expected, rel=1e-8)


def test_reservoirpy_finds_the_same(rng):
    nodes = pytest.importorskip("reservoirpy.nodes")
    x, y, model = drawn(rng), drawn(rng), model_of(esn(bias_scaling=0.0))
    cell = model.layers[0].cell
    matrices = {"W": cell.matrix.T, "Win": cell.kernel.numpy().T, "bias": np.zeros(6)}
    readout = nodes.Ridge(ridge=0.01)
    (nodes.Reservoir(**matrices) >> readout).fit(x, y, warmup=4)
    rk.fit_readout(model, x, y, ridge=0.01, washout=4)
    kernel, bias = model.layers[-1].get_weights()
    assert_close(kernel, readout.Wout, "float64")
    assert_close(bias, readout.bias, "float64")


# Forecasts, and learning step by step


def model_that_predicts(features=2, outputs=2, sequences=True, **options):
    layer = esn(return_sequences=sequences, leak_rate=0.5, **options)
    return model_of(layer, features=features, units=outputs)


@pytest.mark.parametrize("loop", ["auto", "portable"])
@pytest.mark.parametrize("sequences", [True, False])
def test_each_of_a_list_is_continued_from_its_own_end(sequences, loop, rng):
    model, parts = model_that_predicts(sequences=sequences, loop=loop), drawn(rng)
    expected = np.concatenate([rk.forecast(model, each[None], 5) for each in parts])
    for form in list, ragged:
        got = rk.forecast(model, form(parts), 5)
        assert_close(got, expected, "float64")


def test_a_list_with_inputs_from_outside(rng):
    model, parts = model_that_predicts(3), drawn(rng, 3)
    inputs = drawn(rng, 1, lengths=(4, 9, 4, 5, 6))
    got = rk.forecast(model, parts, 5, inputs=inputs)
    for row, part, outside in zip(got, parts, inputs, strict=True):
        alone = rk.forecast(model, part, 5, inputs=outside)
        assert_close(alone, rk.forecast(model, part[None], 5, inputs=outside[None])[0])
        assert_close(row, alone)
        assert_close(rk.forecast(model, part, 5, inputs=outside[:, 0]), alone)


def test_masked_warmups_of_several_lengths(rng):
    model, parts = model_of(L.Masking(), esn(leak_rate=0.5)), drawn(rng)
    parts[0][-2:] = parts[1][4:9] = 0
    got = rk.forecast(model, parts, 4)
    for row, part in zip(got, parts, strict=True):
        assert_close(row, rk.forecast(model, part[None], 4)[0], "float64")


def test_a_forecast_has_the_rank_of_its_warmup(rng):
    model, series = model_that_predicts(1, 1), rng.normal(size=25)
    expected = rk.forecast(model, series[None, :, None], 6)
    assert expected.shape == (1, 6, 1)
    given = {
        "batch": (series[None, :, None], expected),
        "one": (series[:, None], expected[0]),
        "table": (table(series[:, None]), expected[0]),
        "steps": (series, expected[0, :, 0]),
        "list": (series.tolist(), expected[0, :, 0]),
        "series": (table(series), expected[0, :, 0]),
    }
    for form, result in given.values():
        np.testing.assert_array_equal(rk.forecast(model, form, 6), result)


@pytest.mark.parametrize("feedback", [False, True])
def test_learning_step_by_step_from_a_list(feedback, rng):
    """Sequences that have ended change nothing, and go on where they ended."""
    features = 1 if feedback else 2
    parts, ys = drawn(rng, features, (6, 3, 9)), drawn(rng, 2, (6, 3, 9))
    more, more_ys = drawn(rng, features, (2, 2, 2)), drawn(rng, 2, (2, 2, 2))
    model, other = (model_of(esn(), features=features + 2 * feedback) for _ in "ab")
    other.set_weights(model.get_weights())
    rls, again = rk.RLS(model), rk.RLS(other)
    got = rls.partial_fit(parts, ys, feedback=feedback)
    got = [*got, *rls.partial_fit(np.stack(more), np.stack(more_ys), feedback=feedback)]
    # By hand: step by step, with only those rows that still go on.
    cells, weights = np.zeros((3, 6)), None
    dense, cell = other.layers[-1], other.layers[0].cell
    w, r, b = (np.asarray(v, float) for v in (cell.kernel, cell.matrix, cell.bias))
    weights = np.vstack(dense.get_weights())
    inverse, last = np.eye(7), np.zeros((3, 2))
    said = [[], [], []]
    for t in range(11):
        for i, (x, y) in enumerate(zip(parts, ys, strict=True)):
            ended = t >= 9
            if not ended and t >= len(x):
                continue
            x, y = (more[i][t - 9], more_ys[i][t - 9]) if ended else (x[t], y[t])
            x = np.concatenate([x, last[i]]) if feedback else x
            cells[i] = np.tanh(x @ w + cells[i] @ r + b)
        phis = np.hstack([cells, np.ones((3, 1))])
        now = phis @ weights
        for i, y in enumerate(ys):
            ended = t >= 9
            if ended or t < len(y):
                last[i] = now[i]
                said[i].append(now[i])
                p = inverse @ phis[i]
                gain = p / (1 + phis[i] @ p)
                target = more_ys[i][t - 9] if ended else y[t]
                weights = weights + np.outer(gain, target - phis[i] @ weights)
                inverse = inverse - np.outer(gain, p)
    for i in range(3):
        assert_close(np.concatenate([got[i], got[3 + i]]), np.stack(said[i]), "float64")
    assert_close(np.vstack(model.layers[-1].get_weights()), weights, "float64")
    del again


def test_learning_step_by_step_from_one_sequence(rng):
    x, y = rng.normal(size=20), rng.normal(size=20)
    models = [model_of(esn(), features=1, units=1) for _ in "abc"]
    for model in models[1:]:
        model.set_weights(models[0].get_weights())
    first = rk.RLS(models[0]).partial_fit(x[None, :, None], y[None, :, None])
    second = rk.RLS(models[1]).partial_fit(table(x), table(y))
    third = rk.RLS(models[2]).partial_fit(x[:, None], y[:, None])
    np.testing.assert_array_equal(second, first[0, :, 0])
    np.testing.assert_array_equal(third, first[0])


def test_measures_take_a_series(rng):
    layer, x = rk.ESN(8, seed=1, spectral_radius=0.5), rng.uniform(-1, 1, 300)
    expected = rk.reservoir.measures.echo_state(layer, x[:, None]).distances
    for form in x, table(x), x.tolist(), table(x[:, None]):
        got = rk.reservoir.measures.echo_state(layer, form).distances
        np.testing.assert_array_equal(got, expected)
    assert_raises(
        "`inputs` must be one sequence",
        rk.reservoir.measures.echo_state,
        layer,
        [x[:3], x],
    )


# What does not fit

X, Y = (drawn(np.random.default_rng(0)) for _ in "xy")
BAD = {
    "steps": (
        {"y": [*Y[:2], np.ones((10, 2)), *Y[3:]]},
        r"`y\[2\]` must have 9 steps, as `x\[2\]`; received 10",
    ),
    "steps of a batch": (
        {"x": np.stack([X[0], X[3]]), "y": [Y[0], Y[1]]},
        r"`y\[1\]` must have 12 steps, as `x\[1\]`; received 30",
    ),
    "steps of one": (
        {"x": X[0], "y": Y[1]},
        "`y` must have 12 steps, as `x`; received 30",
    ),
    "features": (
        {"x": [*X[:1], X[1][:, :1], *X[2:]]},
        r"`x\[1\]` must have shape \(steps, 2\); received shape \(30, 1\)",
    ),
    "features of one": (
        {"x": np.ones((9, 3)), "y": np.ones((9, 2))},
        r"`x` must have shape \(batch, steps, 2\), or \(steps, 2\) for one sequence; "
        r"received shape \(9, 3\)",
    ),
    "outputs": (
        {"y": [Y[0][:, :1], *Y[1:]]},
        r"`y\[0\]` must have shape \(12, 2\); received shape \(12, 1\)",
    ),
    "sequences": (
        {"y": Y[1:]},
        r"must have the same number of rows; received \[4, 5\]",
    ),
    "weights": (
        {"sample_weight": [np.ones(len(x) - (x is X[4])) for x in X]},
        r"`sample_weight\[4\]` must have 17 steps, as `x\[4\]`; received 16",
    ),
    "washout": (
        {"washout": 9},
        r"`washout` must be less than .*, 9 of `x\[2\]`; received 9",
    ),
    "not finite": (
        {"x": [*X[:4], np.where(np.arange(17)[:, None] == 5, np.nan, X[4])]},
        "`x` must be finite; received nan in row 4, step 5",
    ),
    "words": ({"x": [["a", "b"], ["c"]]}, r"`x\[0\]` must hold numbers"),
    "nothing": ({"x": [None, X[0]]}, r"`x\[0\]` must hold numbers; received None"),
    "ragged features": (
        {"x": tf.ragged.constant([[[1.0, 2.0], [3.0]], [[1.0, 2.0]]]), "y": Y[:2]},
        "`x` must be ragged in its steps alone; received features of 1, 2",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_told_and_changes_nothing(name):
    given, pattern = BAD[name]
    model = model_of(esn())
    before = model.get_weights()
    assert_raises(pattern, rk.fit_readout, model, **{"x": X, "y": Y} | given)
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


BAD_WARMUP = {
    "none": ([X[0], X[1][:0]], r"at least one step; received none in `warmup\[1\]`"),
    "features": ([X[0], X[1][:, :1]], r"`warmup\[1\]` must have shape \(steps, 2\)"),
}


@pytest.mark.parametrize(("warmup", "pattern"), BAD_WARMUP.values(), ids=BAD_WARMUP)
def test_a_wrong_list_to_be_continued_is_told(warmup, pattern):
    assert_raises(pattern, rk.forecast, model_that_predicts(), warmup, 3)
    short = drawn(np.random.default_rng(0), 1, (4, 2))
    assert_raises(
        r"`inputs\[1\]` must have 4 steps or more; received 2",
        rk.forecast,
        model_that_predicts(3),
        drawn(np.random.default_rng(0), 3, (5, 6)),
        5,
        inputs=short,
    )
