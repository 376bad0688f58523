"""Searches against plain NumPy: exhaustive, by beams, and what draws are drawn from."""

import re
from itertools import product
from typing import NamedTuple

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_rnnkit.seq2seq.search import beam, greedy, sample

PAD, END, START = 0, 1, 2
IDS = {"start_id": START, "end_id": END, "pad_id": PAD}
UNITS = 5
SEARCHES = {
    "greedy": greedy,
    "beam": lambda *args, **more: beam(*args, beam_width=3, n_best=3, **more),
    "sample": lambda *args, **more: sample(*args, **{"seed": 5} | more),
}


class Toy:
    """A decoder with attention, as a step of TensorFlow and for one row of NumPy.

    With `hard` attention it looks at one place only, that of the token's number.
    """

    def __init__(self, seed, vocabulary, hard=False):
        draw = np.random.default_rng([seed, vocabulary]).normal
        self.recurrent = draw(size=(UNITS, UNITS)).astype("float32")
        self.embedding = draw(size=(vocabulary, UNITS)).astype("float32")
        self.output = draw(size=(UNITS, vocabulary)).astype("float32")
        self.hard = hard

    def step(self, tokens, state):
        h = tf.tanh(state["h"] @ self.recurrent + tf.gather(self.embedding, tokens))
        look = tf.where(state["seen"], tf.linalg.matvec(state["memory"], h), -1e9)
        weights = tf.nn.softmax(look)
        if self.hard:
            weights = tf.one_hot(tokens, tf.shape(look)[1])
        context = tf.linalg.matvec(state["memory"], weights, transpose_a=True)
        return (h + context) @ self.output, state | {"h": h}, weights

    def by_hand(self, h, memory, token):
        """Log-probabilities, state and record of a row `(units,)` in float64."""
        h = np.tanh(h @ self.recurrent.astype(float) + self.embedding[token])
        look = memory @ h
        weights = np.exp(look - look.max()) / np.exp(look - look.max()).sum()
        if self.hard:
            weights = np.eye(len(memory))[token]
        logits = (h + weights @ memory) @ self.output.astype(float)
        return logits - np.log(np.exp(logits).sum()), h, weights


def states(batch, seed=0, width=4, masked=True):
    """What a toy begins with; the last places of a row's memory may be masked."""
    draw = np.random.default_rng([seed, batch]).normal
    lengths = width - np.arange(batch) % 3 * masked
    return {
        "h": draw(size=(batch, UNITS)).astype("float32"),
        "memory": draw(size=(batch, width, UNITS)).astype("float32"),
        "seen": np.arange(width) < lengths[:, None],
    }


def row_of(state, b):
    """The state and the memory of a row, of the places that count."""
    return state["h"][b].astype(float), state["memory"][b][state["seen"][b]]


class Path(NamedTuple):
    """A sequence, followed by hand."""

    h: np.ndarray
    memory: np.ndarray
    tokens: tuple = ()
    total: float = 0.0
    records: tuple = ()

    def next(self, toy, tokens):
        gains, h, record = toy.by_hand(
            self.h, self.memory, self.tokens[-1] if self.tokens else START
        )
        records = (*self.records, record)
        return [
            Path(h, self.memory, (*self.tokens, v), self.total + gains[v], records)
            for v in tokens
        ]

    def along(self, toy, tokens):
        path = self
        for token in tokens:
            (path,) = path.next(toy, [token])
        return path

    def score(self, alpha=0.0, beta=0.0, counted=slice(None)):
        covered = np.sum(self.records, axis=0)[counted]
        cp = sum(np.log(max(min(each, 1), 1e-6)) for each in covered)
        return self.total / ((5 + len(self.tokens)) / 6) ** alpha + beta * cp


def every_sequence(toy, start, vocabulary, max_length, **penalties):
    """All sequences, each followed from the start, the best first."""
    others = [v for v in range(vocabulary) if v != END]
    sequences = list(product(others, repeat=max_length))
    for n in range(max_length):
        sequences += [(*body, END) for body in product(others, repeat=n)]
    paths = [start.along(toy, each) for each in sequences]
    return sorted(paths, key=lambda path: -path.score(**penalties))


def beams_by_hand(toy, start, vocabulary, max_length, width, **penalties):
    paths = [start]
    for _ in range(max_length):
        longer = []
        for path in paths:
            done = END in path.tokens
            longer += [path] if done else path.next(toy, range(vocabulary))
        paths = sorted(longer, key=lambda path: -path.score(**penalties))[:width]
    return paths


def assert_found(found, b, paths, **penalties):
    """Row `b` holds these paths, and nothing but impossible ones behind them."""
    tokens, lengths, scores = (np.asarray(each[b]) for each in found[:3])
    n, max_length = tokens.shape
    expected = [(*p.tokens, *[PAD] * (max_length - len(p.tokens))) for p in paths[:n]]
    blank = [(PAD,) * max_length] * (n - len(paths))
    assert [tuple(each) for each in tokens] == expected + blank
    assert lengths.tolist() == [len(p.tokens) for p in paths[:n]] + [0] * len(blank)
    scored = [p.score(**penalties) for p in paths[:n]] + [-np.inf] * len(blank)
    np.testing.assert_allclose(scores, scored, rtol=2e-5, atol=2e-5)


def assert_equal(found, other):
    """To the bit."""
    for ours, theirs in zip(found, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)


PENALTIES = [{"alpha": a, "beta": b} for a in (0.0, 0.6, 1.0, 2.0) for b in (0.0, 0.4)]


def named(penalties):
    return dict(length_penalty=penalties["alpha"], coverage_penalty=penalties["beta"])


# Beams


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("vocabulary", [3, 4])
def test_a_wide_beam_is_an_exhaustive_search(vocabulary, seed, penalties):
    toy, state = Toy(seed, vocabulary), states(3, seed)
    count = sum((vocabulary - 1) ** n for n in range(4)) + (vocabulary - 1) ** 4
    options = {"beam_width": count + 4, "n_best": count + 2} | named(penalties)
    found = beam(toy.step, state, batch_size=3, max_length=4, **IDS, **options)
    for b in range(3):
        start = Path(*row_of(state, b))
        paths = every_sequence(toy, start, vocabulary, 4, **penalties)
        assert len(paths) == count
        assert_found(found, b, paths, **penalties)


@pytest.mark.parametrize("penalties", PENALTIES)
@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize(("vocabulary", "seed"), [(3, 0), (7, 0), (7, 1)])
def test_a_narrow_beam(vocabulary, seed, width, penalties):
    toy, state = Toy(seed, vocabulary), states(3, seed)
    options = {"beam_width": width, "n_best": width} | named(penalties)
    found = beam(toy.step, state, batch_size=3, max_length=7, **IDS, **options)
    for b in range(3):
        start = Path(*row_of(state, b))
        paths = beams_by_hand(toy, start, vocabulary, 7, width, **penalties)
        assert_found(found, b, paths, **penalties)
        for path, records in zip(paths, found.records[b].numpy(), strict=True):
            n, seen = len(path.tokens), state["seen"][b]
            np.testing.assert_allclose(records[:n, seen], path.records, atol=1e-5)
            assert not records[n:].any()
            assert not records[:, ~seen].any()


def test_the_beam_of_a_narrow_search_is_not_the_best():
    """Or else the tests above would not tell a beam from an exhaustive search."""
    toy, state = Toy(0, 7), states(3)
    best = [
        beam(
            toy.step, state, batch_size=3, max_length=7, beam_width=width, **IDS
        ).scores.numpy()
        for width in (1, 2, 300)
    ]
    assert (best[0] <= best[2]).all()
    assert (best[0] < best[2]).any()
    assert (best[1] <= best[2]).all()


def test_a_beam_of_one_is_greedy():
    toy, state = Toy(0, 11), states(50)
    options = {"batch_size": 50, "max_length": 12, **IDS}
    one = greedy(toy.step, state, **options)
    assert len(set(one.lengths.numpy().ravel())) > 3
    assert_equal(beam(toy.step, state, beam_width=1, **options), one)
    penalties = {"length_penalty": 0.8, "coverage_penalty": 0.3}
    again = beam(toy.step, state, beam_width=1, **options, **penalties)
    assert_equal((again.tokens, again.lengths, again.records), (*one[:2], one.records))


def test_a_mask_tells_which_columns_are_to_be_covered():
    """Hard attention: the record of the first step is 0 in all columns but one."""
    toy, state = Toy(4, 4, hard=True), states(2, masked=False)
    mask = np.array([[True, True, True, True], [True, False, False, True]])
    options = {"batch_size": 2, "max_length": 4, "beam_width": 121, "n_best": 9, **IDS}
    found = beam(
        toy.step, state, coverage_penalty=0.1, memory_mask=tf.constant(mask), **options
    )
    for b in range(2):
        start, penalties = Path(*row_of(state, b)), {"beta": 0.1, "counted": mask[b]}
        paths = every_sequence(toy, start, 4, 4, **penalties)
        assert_found(found, b, paths, **penalties)


@pytest.mark.parametrize("penalties", PENALTIES[:4])
def test_a_sequence_that_is_not_a_number_leaves_the_others_of_its_row(penalties):
    def step(tokens, state):
        logits, state, record = toy.step(tokens, state)
        gone = tokens[:, None] == 3
        return tf.where(gone, np.nan, logits), state, tf.where(gone, np.nan, record)

    toy, state = Toy(1, 4), states(2)
    options = {"batch_size": 2, "max_length": 4, **IDS} | named(penalties)
    found = beam(step, state, beam_width=121, n_best=80, **options)
    for b in range(2):
        paths = every_sequence(toy, Path(*row_of(state, b)), 4, 4, **penalties)
        paths = [path for path in paths if 3 not in path.tokens[:-1]]
        assert len(paths) < 80
        assert_found(found, b, paths, **penalties)


def test_padding_leaves_the_coverage_as_it_is():
    toy, state = Toy(1, 5), states(3, masked=False)
    wider = {
        "h": state["h"],
        "memory": np.pad(state["memory"], [(0, 0), (0, 3), (0, 0)]),
        "seen": np.pad(state["seen"], [(0, 0), (0, 3)]),
    }
    options = {"batch_size": 3, "max_length": 5, "beam_width": 4, "n_best": 4, **IDS}
    options["coverage_penalty"] = 0.7
    short = beam(toy.step, state, **options)
    wide = beam(toy.step, wider, **options)
    assert_equal(short[:2], wide[:2])
    np.testing.assert_allclose(short.scores, wide.scores, rtol=1e-5)


def test_equal_scores_go_to_the_first_token():
    def step(tokens, state):
        return tf.zeros([tf.shape(tokens)[0], 4]), state

    options = {"batch_size": 1, "max_length": 2, "start_id": 0, "end_id": 3}
    found = beam(step, (), beam_width=5, n_best=5, **options)
    first = [[3, 0], [0, 0], [0, 1], [0, 2], [0, 3]]
    assert found.tokens[0].numpy().tolist() == first
    assert greedy(step, (), **options).tokens.numpy().tolist() == [[[0, 0]]]


# One by one


def test_greedy_takes_the_likeliest():
    toy, state = Toy(3, 9), states(20)
    found = greedy(toy.step, state, batch_size=20, max_length=8, **IDS)
    for b in range(20):
        path = Path(*row_of(state, b))
        while len(path.tokens) < 8 and END not in path.tokens:
            path = max(path.next(toy, range(9)), key=Path.score)
        assert_found(found, b, [path])
        n, seen = len(path.tokens), state["seen"][b]
        records = found.records[b, 0].numpy()
        np.testing.assert_allclose(records[:n, seen], path.records, atol=1e-5)
        assert not records[n:].any()


def test_draws_depend_on_the_seed_alone():
    toy, state = Toy(0, 9), states(40)

    def draw(seed, **more):
        return sample(
            toy.step, state, batch_size=40, max_length=6, seed=seed, **IDS, **more
        )

    one = draw(7)
    tf.random.normal([3])
    assert_equal(draw(7), one)
    assert_equal(draw(np.int64(7)), one)
    assert_equal(draw(tf.constant(7)), one)
    assert_equal(draw([3, 4]), draw(tf.constant((3, 4))))
    graph = tf.function(draw)(tf.constant(7))
    assert_equal(graph[:2], one[:2])
    np.testing.assert_allclose(graph.scores, one.scores, rtol=1e-5)
    for other in (draw(8), draw((7, 1)), draw(2**40), draw(-7)):
        assert (other.tokens.numpy() != one.tokens.numpy()).mean() > 0.3


def test_without_a_seed_keras_gives_one():
    toy, state = Toy(0, 9), states(40)

    def draw():
        return sample(toy.step, state, batch_size=40, max_length=6, **IDS).tokens

    drawn = []
    for compiled in (False, True, True):
        keras.utils.set_random_seed(1)
        run = tf.function(draw) if compiled else draw
        drawn.append([run().numpy() for _ in range(2)])
        assert (drawn[-1][0] != drawn[-1][1]).any()
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[1], drawn[2])


def test_the_likeliest_of_one_is_greedy():
    toy, state = Toy(2, 9), states(30)
    options = {"batch_size": 30, "max_length": 6, **IDS}
    one = greedy(toy.step, state, **options)
    assert_equal(sample(toy.step, state, top_k=1, seed=1, **options), one)
    assert_equal(sample(toy.step, state, top_p=1e-6, seed=1, **options), one)
    assert_equal(sample(toy.step, state, temperature=1e-4, seed=1, **options), one)


LOGITS = np.array([0.3, -1.0, 1.2, 0.9, -0.2, -2.5, 0.0, 1.0], "float32")


def constant_step(tokens, state):
    return tf.tile(LOGITS[None], [tf.shape(tokens)[0], 1]), state


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [
        (1.0, None, None),
        (0.5, None, None),
        (2.0, 3, None),
        (1.0, None, 0.8),
        (1.5, 5, 0.6),
        (0.7, 99, 1.0),
    ],
)
def test_draws_follow_the_distribution(temperature, top_k, top_p):
    q = np.exp(LOGITS.astype(float) / temperature)
    likeliest = np.argsort(-q)
    q[likeliest[top_k or 99 :]] = 0
    q /= q.sum()
    share = np.cumsum(q[likeliest])
    needed = 1 + int(np.sum(share < (top_p or 9) - 1e-9))
    q[likeliest[needed:]] = 0
    q /= q.sum()
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": 3}
    found = sample(constant_step, (), batch_size=20_000, max_length=2, **options, **IDS)
    first, second = found.tokens.numpy()[:, 0].T
    counts = np.bincount(first, minlength=8)
    assert not counts[q == 0].any()
    kept = q > 0
    assert scipy.stats.chisquare(counts[kept], 20_000 * q[kept]).pvalue > 1e-3
    # The second draw knows nothing of the first.
    second, first = second[first != END], first[first != END]
    pairs = np.bincount(8 * first + second, minlength=64)
    both = np.outer(np.where(np.arange(8) == END, 0, q), q).ravel()
    assert not pairs[both == 0].any()
    expected = both * len(first) / both.sum()
    often = expected >= 5
    pairs, expected = (
        [*x[often], x[~often].sum() + 1] for x in (pairs, expected)
    )  # the rare ones together
    assert scipy.stats.chisquare(pairs, expected).pvalue > 1e-3


def test_the_score_of_draws_is_that_of_the_model():
    toy, state = Toy(5, 6), states(20)
    options = {"temperature": 3.0, "top_k": 4, "top_p": 0.9, "seed": 0}
    found = sample(toy.step, state, batch_size=20, max_length=6, **options, **IDS)
    assert len(set(found.lengths.numpy().ravel())) > 2
    for b in range(20):
        tokens = found.tokens[b, 0, : found.lengths[b, 0]].numpy()
        assert_found(found, b, [Path(*row_of(state, b)).along(toy, tokens)])


# All of them


def ends_at(calls):
    """A step that ends each row after as many tokens as the state says."""

    def step(tokens, state):
        calls.assign_add(1)
        left = state - 1
        token = tf.where(left > 0, 3, END)
        return tf.where(tf.one_hot(token, 4) > 0, 0.0, -np.inf), left

    return step


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("compiled", [False, True])
def test_the_search_stops_when_every_row_has_ended(kind, compiled):
    calls = tf.Variable(0)

    def run(left):
        options = {"batch_size": tf.shape(left)[0], "max_length": 9, **IDS}
        return SEARCHES[kind](ends_at(calls), left, **options)

    run = tf.function(run) if compiled else run
    for left in ([2, 5, 1], [1], [12, 1]):
        calls.assign(0)
        found = run(tf.constant(left))
        assert calls.numpy() == min(max(left), 9)
        assert found.lengths[:, 0].numpy().tolist() == [min(n, 9) for n in left]
        assert found.scores[:, 0].numpy().tolist() == [0] * len(left)
        assert not np.isfinite(found.scores[:, 1:]).any()
        assert not np.any(found.tokens[:, 1:] != PAD)
        for n, tokens in zip(left, found.tokens[:, 0].numpy(), strict=True):
            assert tokens.tolist() == ([3] * (n - 1) + [END] + [PAD] * 9)[:9]


@pytest.mark.parametrize("kind", SEARCHES)
def test_a_sequence_need_not_end(kind):
    def step(tokens, state):
        logits, state, record = toy.step(tokens, state)
        return tf.where(tf.range(6) == END, -np.inf, logits), state, record

    toy = Toy(0, 6)
    options = {"batch_size": 4, "max_length": 5, **IDS}
    found = SEARCHES[kind](step, states(4), **options)
    assert (found.lengths.numpy() == 5).all()
    assert (found.tokens.numpy() != END).all()
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("kind", SEARCHES)
def test_the_start_may_be_the_end(kind):
    toy, state = Toy(0, 6), states(4)
    options = {"batch_size": 4, "max_length": 5, "start_id": END, "end_id": END}
    found = SEARCHES[kind](toy.step, state, **options)
    assert (found.lengths.numpy() > 1).any()


@pytest.mark.parametrize("kind", SEARCHES)
def test_rows_do_not_influence_each_other(kind):
    toy, state = Toy(0, 9), states(8)
    options = {"batch_size": 8, "max_length": 6, **IDS}
    if kind == "beam":
        options |= {"length_penalty": 0.7, "coverage_penalty": 0.2}
    found = SEARCHES[kind](toy.step, state, **options)
    other = tf.nest.map_structure(np.copy, state)
    other["h"][3], other["memory"][3], other["h"][5] = -2.0, 0.5, np.nan
    changed = SEARCHES[kind](toy.step, other, **options)
    assert np.any(changed.tokens[3] != found.tokens[3])
    kept = [0, 1, 2, 4, 6, 7]
    for ours, theirs in zip(found, changed, strict=True):
        np.testing.assert_array_equal(ours.numpy()[kept], theirs.numpy()[kept])
    if kind != "sample":  # of which a draw belongs to a place
        order = np.random.default_rng(1).permutation(8)
        turned = tf.nest.map_structure(lambda x: x[order], state)
        turned = SEARCHES[kind](toy.step, turned, **options)
        assert_equal([x.numpy()[order] for x in found], turned)


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("late", [False, True])
def test_what_is_not_a_number_is_impossible(kind, late):
    """A row whose logits are NaN, at once or later, has no sequence."""

    def step(tokens, state):
        inner, t = state
        logits, inner, record = toy.step(tokens, inner)
        gone = (t >= 2 * late) & (inner["ill"] > 0)
        logits, record = (
            tf.where(gone[:, None], np.nan, each) for each in (logits, record)
        )
        logits = tf.where((tf.range(6) == END) & (t[:, None] < 2), -np.inf, logits)
        return logits, (inner, t + 1), record

    toy, state = Toy(0, 6), states(3)
    options = {"batch_size": 3, "max_length": 5, **IDS}
    if kind == "beam":
        options |= {"length_penalty": 0.7, "coverage_penalty": 0.2}
    runs = []
    for ill in (0, 1):
        state["ill"] = np.array([0, ill, 0])
        given = state, np.zeros(3, "int32")
        runs.append(SEARCHES[kind](step, given, **options))
    well, found = runs
    assert (well.lengths.numpy() > 2).all()
    for ours, theirs in zip(well, found, strict=True):
        np.testing.assert_array_equal(ours.numpy()[[0, 2]], theirs.numpy()[[0, 2]])
    assert (found.scores[1].numpy() == -np.inf).all()
    for blank in (found.tokens, found.lengths, found.records):
        assert not blank[1].numpy().any()


@pytest.mark.parametrize("kind", SEARCHES)
def test_one_graph_serves_all_batches(kind):
    """And memories of any length."""
    toy = Toy(0, 6)
    specs = {
        "h": tf.TensorSpec([None, UNITS]),
        "memory": tf.TensorSpec([None, None, UNITS]),
        "seen": tf.TensorSpec([None, None], tf.bool),
    }

    @tf.function(input_signature=[specs])
    def run(state):
        batch = tf.shape(state["h"], tf.int64)[0]
        options = {"batch_size": batch, "max_length": 6, **IDS}
        return SEARCHES[kind](toy.step, state, **options)

    for batch, width in [(3, 4), (1, 7), (0, 4), (6, 1)]:
        state = states(batch, width=width, masked=width > 2)
        found = run(tf.nest.map_structure(tf.constant, state))
        n = 3 if kind == "beam" else 1
        assert found.tokens.shape == (batch, n, 6)
        assert found.records.shape == (batch, n, 6, width)
        options = {"batch_size": batch, "max_length": 6, **IDS}
        eager = SEARCHES[kind](toy.step, state, **options)
        assert_equal(found[:2], eager[:2])
        np.testing.assert_allclose(found.scores, eager.scores, rtol=1e-5)
        np.testing.assert_allclose(found.records, eager.records, atol=1e-5)
    assert run.experimental_get_tracing_count() == 1
    shapes = run.get_concrete_function().structured_outputs
    assert shapes.tokens.shape.as_list() == [None, n, 6]
    assert [x.dtype for x in shapes] == [tf.int32, tf.int32, tf.float32, tf.float32]


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_logits_of_any_type(kind, dtype):
    def step(tokens, state, back=False):
        logits, state, record = toy.step(tokens, state)
        logits = tf.cast(logits, dtype)
        return tf.cast(logits, "float32") if back else logits, state, record

    toy, state = Toy(0, 9), states(6)
    options = {"batch_size": 6, "max_length": 6, **IDS}
    found = SEARCHES[kind](step, state, **options)
    assert found.scores.dtype == tf.float32
    back = SEARCHES[kind](lambda *args: step(*args, back=True), state, **options)
    assert_equal(found, back)


@pytest.mark.parametrize("kind", SEARCHES)
def test_records_are_optional_and_of_any_type(kind):
    toy, state = Toy(0, 9), states(6)
    options = {"batch_size": np.int64(6), "max_length": np.int32(6)}
    options |= {name: np.int64(value) for name, value in IDS.items()}
    plain = SEARCHES[kind](toy.step, state, **options)
    without = SEARCHES[kind](lambda *a: toy.step(*a)[:2], state, **options)
    none = SEARCHES[kind](lambda *a: (*toy.step(*a)[:2], None), state, **options)
    assert plain.records.shape[2:] == (6, 4)
    for found in (without, none):
        assert found.records is None
        assert_equal(found[:3], plain[:3])

    def tokens_too(tokens, state):
        return *toy.step(tokens, state)[:2], tokens[:, None]

    said = SEARCHES[kind](tokens_too, state, **options)
    assert said.records.dtype == tf.int32
    lengths = said.lengths.numpy()[..., None]
    fed = np.where(np.arange(1, 6) < lengths, said.tokens[..., :-1], PAD)
    assert (said.records[..., 0, 0].numpy() == START).all()
    np.testing.assert_array_equal(said.records[..., 1:, 0], fed)


def test_greedy_runs_on_tflite():
    from ai_edge_litert.interpreter import Interpreter

    toy, state = Toy(3, 9), states(2)

    @tf.function
    def run(h, memory, seen):
        state = {"h": h, "memory": memory, "seen": seen}
        found = greedy(toy.step, state, batch_size=2, max_length=7, **IDS)
        return found._asdict()

    concrete = run.get_concrete_function(
        tf.TensorSpec([2, UNITS], name="h"),
        tf.TensorSpec([2, 4, UNITS], name="memory"),
        tf.TensorSpec([2, 4], tf.bool, name="seen"),
    )
    module = tf.Module()
    module.run = run
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    interpreter = Interpreter(model_content=converter.convert())
    got = interpreter.get_signature_runner()(**state)
    found = run(**state)
    np.testing.assert_array_equal(got["tokens"], found["tokens"])
    np.testing.assert_array_equal(got["lengths"], found["lengths"])
    np.testing.assert_allclose(got["scores"], found["scores"], rtol=1e-5)
    np.testing.assert_allclose(got["records"], found["records"], atol=1e-5)


COMMON = [
    ({"batch_size": -1}, "`batch_size` must be an integer >= 0; received -1"),
    ({"max_length": 0}, "`max_length` must be a positive integer; received 0"),
    ({"start_id": -1}, "`start_id` must be an integer >= 0; received -1"),
    ({"end_id": 1.0}, "`end_id` must be an integer >= 0; received 1.0"),
    ({"pad_id": None}, "`pad_id` must be an integer >= 0; received None"),
    ({"start_id": 6}, "`start_id` must be < 6, the size of the vocabulary; received 6"),
    ({"end_id": 9}, "`end_id` must be < 6, the size of the vocabulary; received 9"),
    ({"pad_id": 7}, "`pad_id` must be < 6, the size of the vocabulary; received 7"),
]
WRONG = {
    greedy: [],
    beam: [
        ({"beam_width": 0}, "`beam_width` must be a positive integer; received 0"),
        ({"beam_width": 2.0}, "`beam_width` must be a positive integer; received 2.0"),
        ({"n_best": 0}, "`n_best` must be a positive integer; received 0"),
        ({"n_best": 4}, "`n_best` must be <= 3, the `beam_width`; received 4"),
        ({"length_penalty": -0.1}, "`length_penalty` must be >= 0; received -0.1"),
        ({"coverage_penalty": -1}, "`coverage_penalty` must be >= 0; received -1"),
    ],
    sample: [
        ({"temperature": 0.0}, "`temperature` must be > 0; received 0.0"),
        ({"top_k": 0}, "`top_k` must be a positive integer; received 0"),
        ({"top_p": 0.0}, "`top_p` must lie in (0, 1]; received 0.0"),
        ({"top_p": 1.1}, "`top_p` must lie in (0, 1]; received 1.1"),
        ({"seed": 0.5}, "`seed` must be an integer or two; received 0.5"),
        ({"seed": (1, 2, 3)}, "`seed` must be an integer or two; received (1, 2, 3)"),
    ],
}


@pytest.mark.parametrize(
    ("search", "wrong", "message"),
    [(s, *each) for s, own in WRONG.items() for each in COMMON + own],
)
def test_wrong_arguments(search, wrong, message):
    def step(tokens, state):
        return toy.step(tf.minimum(tokens, 5), state)

    toy = Toy(0, 6)
    options = {"batch_size": 2, "max_length": 4, **IDS}
    options |= {"beam_width": 3} if search is beam else {}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        search(step, states(2), **options | wrong)


@pytest.mark.parametrize("search", SEARCHES.values())
def test_wrong_steps(search):
    toy, state = Toy(0, 6), states(2)
    options = {"batch_size": 2, "max_length": 4, **IDS}
    for step in (lambda *a: toy.step(*a)[0], lambda *a: (*toy.step(*a), 1)):
        with pytest.raises(ValueError, match=r"must return \(logits, state\) or"):
            search(step, state, **options)
    with pytest.raises(ValueError, match=r"received shape \([26], 1, 6\)"):
        search(lambda *a: (toy.step(*a)[0][:, None], a[1]), state, **options)


def test_coverage_needs_records():
    toy, state = Toy(0, 6), states(2)
    options = {"batch_size": 2, "max_length": 4, "beam_width": 2, **IDS}
    message = "for a `coverage_penalty`; received no record"
    with pytest.raises(ValueError, match=message):
        beam(lambda *a: toy.step(*a)[:2], state, coverage_penalty=0.2, **options)
