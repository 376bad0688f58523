"""Timing: interleaved calls, the rate of a matrix product, and means."""

import gc
import math
import statistics
import time

import numpy as np
import tensorflow as tf
from with_torch import torch

WARM_UP = 3
MIN_ROUNDS = 3
TURN = 3  # timed calls
TURN_WARM_UP = 0.03  # seconds
SIDE = 1024
TOLERANCE = 1e-4


def seconds(call) -> float:
    """Returns how many seconds a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def first_calls(peers) -> dict[str, float]:
    """Times each peer's first call, which traces and compiles; returns seconds.

    Raises:
        RuntimeError: the results of two peers differ.
    """
    spent, results = {}, {}
    for name, peer in peers.items():
        start = time.perf_counter()
        results[name] = peer.call()
        spent[name] = time.perf_counter() - start
    check_equal(
        {name: peers[name].to_keras_order(result) for name, result in results.items()}
    )
    return spent


def check_equal(results):
    """Raises unless all arrays agree, relative to the larger of their scale and 1."""
    first, *others = results
    for other in others:
        for a, b in zip(results[first], results[other], strict=True):
            off = np.abs(a - b).max() / max(1, np.abs(b).max())
            if not off <= TOLERANCE:
                raise RuntimeError(f"{first} and {other} differ by {off:.1e}")


def interleaved(calls, repeats: int, budget: float) -> dict[str, list[float]]:
    """Times calls in turns, A A A B B B A A A B B B ..., and returns their seconds.

    Each turn begins with untimed calls. They bring the data back into the caches and
    outlast threads of the turn before, as in a loop over many batches.

    Args:
        calls: dict of callables without arguments.
        repeats: int, largest number of rounds.
        budget: float, seconds; fewer rounds run if `repeats` would take longer.
    """
    spent = {name: [] for name in calls}
    once = [min(seconds(call) for _ in range(WARM_UP)) for call in calls.values()]
    turns = sum(max(TURN_WARM_UP, each) + TURN * each for each in once)
    repeats = max(MIN_ROUNDS, min(repeats, int(budget / turns)))
    gc.collect()
    gc.disable()
    try:
        for _ in range(repeats):
            for name, call in calls.items():
                start = time.perf_counter()
                while time.perf_counter() - start < TURN_WARM_UP:
                    call()
                spent[name] += [seconds(call) for _ in range(TURN)]
    finally:
        gc.enable()
    return spent


def product_rate(tries: int) -> dict[str, float]:
    """Returns each library's best GFLOP/s for a float32 product of square matrices."""
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    a_tf = tf.constant(a)
    calls = {"TensorFlow": lambda: tf.matmul(a_tf, a_tf).numpy()}
    if torch is not None:
        a_torch = torch.from_numpy(a)
        calls["PyTorch"] = lambda: torch.matmul(a_torch, a_torch)
    return {
        name: 2 * SIDE**3 / 1e9 / min(seconds(call) for _ in range(tries))
        for name, call in calls.items()
    }


def geometric_mean(values) -> float | None:
    """Returns the geometric mean, or `None` if there are no values."""
    values = list(values)
    if not values:
        return None
    return math.exp(statistics.fmean(math.log(value) for value in values))
