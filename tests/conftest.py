"""Settings of all tests: no chatter, no surprise, the same numbers every time."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_rnnkit.recurrence import often

tf.get_logger().setLevel("ERROR")


def pytest_addoption(parser):
    parser.addoption(
        "--as-used",
        action="store_true",
        help="let a graph that is made for one shape compile at its third call, as it "
        "does for users, not at its first",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow all cases but one in n of a test that is marked `one_in(n)`: the
    first of n, then the second of the next n, so that each value of each argument is
    among those that stay."""
    met = Counter()
    for item in items:
        marker = item.get_closest_marker("one_in")
        if marker and not item.get_closest_marker("slow"):
            (n,), test = marker.args, (item.parent, item.originalname)
            if met[test] % n != met[test] // n % n:
                item.add_marker(pytest.mark.slow)
            met[test] += 1


def pytest_collection_finish():
    """Tracing makes objects by the million, a seventh of the time went to looking for
    dead ones among them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@pytest.fixture(autouse=True)
def _seeds():
    """Every test starts from the same seeds."""
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _one_call_compiles(monkeypatch, request):
    """What is traced for one shape compiles at its first call, not at its third, so
    that a test of one call is one of the compiled loop."""
    if not request.config.getoption("--as-used"):
        monkeypatch.setattr(often, "KNOWN_AT_ONCE", True)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def float64():
    """Layers compute in float64."""
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)
