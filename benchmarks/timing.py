"""Clocks: calls that take turns, the rate of a matrix product, and means."""

import gc
import math
import statistics
import time

import numpy as np
import tensorflow as tf
from with_torch import torch

WARM_UP = 3
FEWEST = 3
TURN = 3  # timed calls
TURN_WARM_UP = 0.03  # seconds
SIDE = 1024
TOLERANCE = 1e-4


def seconds(call) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def first_calls(contestants) -> dict[str, float]:
    """The seconds of each contestant's first call, which traces and compiles.

    Raises:
        RuntimeError: their results differ.
    """
    spent, results = {}, {}
    for name, contestant in contestants.items():
        start = time.perf_counter()
        results[name] = contestant.call()
        spent[name] = time.perf_counter() - start
    check_equal(
        {name: contestants[name].arranged(result) for name, result in results.items()}
    )
    return spent


def check_equal(results):
    """Raises unless all give the same arrays, by the scale of each or of 1."""
    first, *others = results
    for other in others:
        for a, b in zip(results[first], results[other], strict=True):
            off = np.abs(a - b).max() / max(1, np.abs(b).max())
            if not off <= TOLERANCE:
                raise RuntimeError(f"{first} and {other} differ by {off:.1e}")


def interleaved(calls, repeats: int, budget: float) -> dict[str, list[float]]:
    """The seconds of calls that take turns: A A A B B B A A A B B B ...

    Each turn begins with calls that are not timed: they bring the data back near the
    core and outlast what the turn before left running, as in a loop over many batches.

    Args:
        calls: dict of callables.
        repeats: rounds.
        budget: seconds; fewer rounds are made where they would take longer.
    """
    spent = {name: [] for name in calls}
    once = [min(seconds(call) for _ in range(WARM_UP)) for call in calls.values()]
    turns = sum(max(TURN_WARM_UP, each) + TURN * each for each in once)
    repeats = max(FEWEST, min(repeats, int(budget / turns)))
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
    """The best GFLOP/s of each library in a float32 product of square matrices."""
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
    """`None` of no values."""
    values = list(values)
    if not values:
        return None
    return math.exp(statistics.fmean(math.log(value) for value in values))
