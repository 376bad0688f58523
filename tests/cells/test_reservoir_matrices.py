"""The weights of a reservoir: radius, links and scales, and one seed for one draw."""

import hashlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from tests.layers.test_bad_input import assert_raises

TOPOLOGIES = "random", "ring", "orthogonal", "small_world"


def cell_of(units, features=3, **arguments):
    cell = rk.ESNCell(units, **{"seed": 4, **arguments})
    cell.build((None, features))
    return cell


def radius(matrix):
    """From all eigenvalues, where the cell looks for the largest alone."""
    return abs(np.linalg.eigvals(np.asarray(matrix, "float64"))).max()


# The recurrent matrix


@pytest.mark.parametrize(
    "units", [10, 100, 600, pytest.param(1500, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_spectral_radius_is_the_one_asked_for(topology, units):
    cell = cell_of(units, topology=topology, spectral_radius=0.8)
    assert radius(cell.matrix) == pytest.approx(0.8, rel=1e-4)


@pytest.mark.parametrize(
    ("topology", "sources"),
    [("random", 1), ("random", 3), ("random", 420), ("small_world", 3)],
)
def test_the_spectral_radius_holds_for_few_links_and_for_all(topology, sources):
    cell = cell_of(
        420, topology=topology, connectivity=sources / 420, spectral_radius=1.3
    )
    assert radius(cell.matrix) == pytest.approx(1.3, rel=1e-4)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("topology", ["random", "small_world"])
@pytest.mark.parametrize(
    ("units", "connectivity", "sources"),
    [(10, 0.1, 1), (10, 0.01, 1), (50, 0.3, 15), (33, 0.2, 7), (12, 0.99, 12)],
)
def test_each_unit_listens_to_its_share_of_the_units(
    units, connectivity, sources, topology, sparse
):
    sparse = sparse and sources < units
    cell = cell_of(units, topology=topology, connectivity=connectivity, sparse=sparse)
    links = cell.matrix != 0
    np.testing.assert_array_equal(links.sum(axis=0), sources)
    if sparse:
        assert cell.recurrent_kernel.shape == (units, sources)


@pytest.mark.parametrize("topology", ["random", "ring", "small_world"])
def test_the_links_alone_are_the_same_matrix(topology):
    dense, sparse = (cell_of(40, topology=topology, sparse=s) for s in (False, True))
    np.testing.assert_array_equal(dense.matrix, sparse.matrix)
    assert len(dense.weights) + 1 == len(sparse.weights)


def test_links_are_kept_alone_where_that_is_faster():
    assert cell_of(1000, topology="ring").is_sparse
    assert cell_of(1000, connectivity=0.01).is_sparse
    assert not cell_of(1000, connectivity=0.5).is_sparse
    assert not cell_of(200, topology="ring").is_sparse
    assert not cell_of(1000, topology="ring", sparse=False).is_sparse


@pytest.mark.parametrize("units", [1, 2, 30])
def test_a_ring_is_one_cycle_of_one_weight(units):
    expected = 0.7 * np.roll(np.eye(units), 1, axis=1)
    cell = cell_of(units, topology="ring", spectral_radius=0.7, dtype="float64")
    np.testing.assert_array_equal(cell.matrix, expected)


def test_an_orthogonal_matrix_turns_and_scales():
    cell = cell_of(50, topology="orthogonal", spectral_radius=0.7, dtype="float64")
    q = cell.matrix / 0.7
    np.testing.assert_allclose(q @ q.T, np.eye(50), atol=1e-12)


def test_a_small_world_has_mostly_near_neighbours():
    matrix = cell_of(300, topology="small_world", connectivity=0.1).matrix
    source, unit = np.nonzero(matrix)
    away = abs(source - unit)
    near = np.minimum(away, 300 - away) <= 15
    assert 0.87 < near.mean() < 0.95  # one in ten is drawn anew, from near too


@pytest.mark.parametrize("given", [np.asarray, np.ndarray.tolist])
def test_a_given_matrix_is_kept_or_scaled(given, rng):
    matrix = rng.normal(size=(6, 6))
    cell = cell_of(6, topology=given(matrix), spectral_radius=None, dtype="float64")
    np.testing.assert_array_equal(cell.matrix, matrix)
    scaled = cell_of(6, topology=given(matrix), spectral_radius=0.5, dtype="float64")
    np.testing.assert_allclose(scaled.matrix, 0.5 / radius(matrix) * matrix, rtol=1e-9)


@pytest.mark.parametrize("matrix", [np.zeros((4, 4)), np.triu(np.ones((4, 4)), 1)])
def test_a_matrix_without_a_spectral_radius_cannot_be_scaled(matrix):
    assert_raises(
        "`topology` must have a spectral radius above 0 to be scaled to 0.9; received",
        *(cell_of, 4),
        topology=matrix,
    )
    np.testing.assert_array_equal(
        cell_of(4, topology=matrix, spectral_radius=None).matrix, matrix
    )


# The other weights


def test_the_input_scaling_scales_each_feature():
    plain = cell_of(200, dtype="float64")
    kernel = plain.kernel.numpy()
    assert plain.bias is None
    assert 0.98 < abs(kernel).max() <= 1
    assert abs(kernel.mean()) < 5 / np.sqrt(3 * kernel.size)
    double = cell_of(200, input_scaling=2.0, dtype="float64")
    np.testing.assert_array_equal(double.kernel, 2 * kernel)
    listed = cell_of(200, input_scaling=[0.1, 0, 3.0], dtype="float64")
    scale = np.array([0.1, 0, 3.0])[:, None]
    np.testing.assert_array_equal(listed.kernel, scale * kernel)
    np.testing.assert_array_equal(listed.matrix, plain.matrix)


def test_the_input_connectivity_is_the_share_of_weights():
    full = cell_of(300).kernel.numpy()
    kernel = cell_of(300, input_connectivity=0.3).kernel.numpy()
    links = kernel != 0
    assert abs(links.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / links.size)
    np.testing.assert_array_equal(kernel, np.where(links, full, 0))


def test_bias_and_feedback_have_scales_of_their_own():
    arguments = {"input_scaling": [0.5], "feedback": 2, "dtype": "float64"}
    cell = cell_of(300, **arguments, bias_scaling=0.2, feedback_scaling=4.0)
    assert cell.kernel.shape == (3, 300)
    assert cell.bias.shape == (300,)
    own, *fed_back = abs(cell.kernel.numpy()).max(axis=1)
    for largest, scale in [(own, 0.5), *((f, 4) for f in fed_back)]:
        assert 0.95 * scale < largest <= scale
    assert 0.95 * 0.2 < abs(cell.bias.numpy()).max() <= 0.2
    other = cell_of(300, **arguments, feedback_scaling=1.0)
    np.testing.assert_array_equal(4 * other.kernel[1:], cell.kernel[1:])
    np.testing.assert_array_equal(other.kernel[:1], cell.kernel[:1])


# Seeds

DRAWN = {
    "random": {"bias_scaling": 0.5},
    "sparse": {"sparse": True, "input_connectivity": 0.5},
    "orthogonal": {"topology": "orthogonal", "feedback": 1},
    "small world": {"topology": "small_world"},
    "large": {"units": 420},
}


def layer_of(kind, seed=7):
    return rk.ESN(**{"units": 60, "seed": seed, **DRAWN[kind]})


def fingerprint(layer):
    weights = [weight.tobytes() for weight in layer.get_weights()]
    return hashlib.sha256(b"".join(weights)).hexdigest()


def eager(kind, **arguments):
    layer = layer_of(kind, **arguments)
    layer(np.zeros((1, 2, 3), "float32"))
    return fingerprint(layer)


CHILD = """
import json
from tests.cells.test_reservoir_matrices import DRAWN, eager
print(json.dumps({kind: eager(kind) for kind in DRAWN}))
"""


def test_a_seed_draws_the_same_in_another_process(pytestconfig):
    run, folder = [sys.executable, "-c", CHILD], pytestconfig.rootpath
    out = subprocess.run(run, capture_output=True, text=True, cwd=folder)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout.splitlines()[-1]) == {k: eager(k) for k in DRAWN}


@pytest.mark.parametrize("kind", DRAWN)
def test_a_seed_draws_the_same_eagerly_and_in_a_graph(kind):
    layer = layer_of(kind)

    @tf.function
    def run(x):
        return layer(x)

    run(tf.zeros((1, 2, 3)))
    model = keras.Sequential([keras.Input((None, 3)), layer_of(kind)])
    expected = eager(kind)
    assert fingerprint(layer) == fingerprint(model) == expected
    assert eager(kind, seed=8) != expected


def test_each_kind_of_weights_has_draws_of_its_own():
    cell = cell_of(50, connectivity=1.0, bias_scaling=1.0, features=50, feedback=1)
    weights = [cell.matrix[:1], cell.kernel[:1], cell.kernel[-1:], cell.bias[None]]
    correlation = np.corrcoef(np.concatenate(weights)) - np.eye(4)
    assert abs(correlation).max() < 0.6


def test_without_a_seed_keras_has_it():
    def draws():
        keras.utils.set_random_seed(3)
        return [eager("random", seed=None) for _ in range(2)]

    first, second = draws()
    assert first != second
    assert draws() == [first, second]


@pytest.mark.parametrize(
    "drawn",
    [
        rk.initializers.Reservoir(0.7, 0.3, "small_world", seed=2),
        rk.initializers.Reservoir(None, topology=[[0.0, 1], [2, 0]]),
        rk.initializers.SparseUniform([0.5] * 9, 0.4, seed=2),
    ],
    ids=["small world", "matrix", "uniform"],
)
def test_an_initializer_comes_back_from_its_config(drawn):
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(drawn)))
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == drawn.get_config()
    units = 2 if "topology" in saved["config"] and drawn.seed is None else 9
    shape = (units, units)
    np.testing.assert_array_equal(drawn(shape), drawn(shape))
    np.testing.assert_array_equal(again(shape, "float64"), drawn(shape, "float64"))
