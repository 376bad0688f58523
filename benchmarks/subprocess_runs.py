"""Measurements that need a fresh process: the first step of `fit`, and peak memory.

The subprocess runs this file with a JSON list: the name of a measurement and its
arguments.
"""

import json
import os
import resource
import subprocess
import sys
import time
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CALLS = 3


def run_in_subprocess(name: str, *arguments):
    """Runs a function of `MEASUREMENTS` in a new process and returns its result.

    Raises:
        RuntimeError: the process fails.
    """
    command = [sys.executable, __file__, json.dumps([name, *arguments])]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{name} of {arguments} failed:\n{process.stderr}")
    return json.loads(process.stdout.splitlines()[-1])


def first_step(peer: str, layer: str, data_name: str) -> float:
    """Returns the seconds from the call of `fit` to the end of its first step.

    The clock stops before `fit` returns: when TensorFlow's data pipeline shuts down, it
    sometimes waits for half a second.
    """
    import keras
    import models

    ends = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    x, y, size = models.DATA[data_name]()
    batch = models.FitData([part[:size] for part in x], y[:size], size)
    model = models.make_model(peer, layer, batch)
    start = time.perf_counter()
    models.fit(model, batch, [clock])
    return ends[0] - start


def memory(peer: str, case: list, seed: int) -> dict[str, float]:
    """Returns peak memory after a few calls, and how much they add to it, in MB."""
    import peers
    from cases import Case

    before = peak_memory()
    call = peers.build(Case(*case), seed, only=[peer])[peer].call
    for _ in range(CALLS):
        call()
    return peak_and_rise(before)


def sparse_reservoir(seed: int) -> dict:
    """Measures 5,000 sparse units over 10,000 steps."""
    import keras
    import numpy as np

    import keras_rnnkit as rk

    before, steps = peak_memory(), 10_000
    layer = rk.ESN(5000, connectivity=0.01, seed=seed)
    model = keras.Sequential([keras.Input((steps, 1)), layer])
    x = np.random.default_rng(seed).normal(size=(1, steps, 1)).astype("float32")
    seconds = min(timed(lambda: model.predict_on_batch(x)) for _ in range(2))
    return reservoir_entry("5,000 sparse units, 10,000 steps", before, seconds, steps)


def long_reservoir(seed: int) -> dict:
    """Measures `fit_readout` on a million steps, and compares it with a short fit."""
    import keras
    import numpy as np

    import keras_rnnkit as rk

    before, steps, short = peak_memory(), 1_000_000, 10_000
    layers = [keras.Input((None, 1)), rk.ESN(200, seed=seed), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    x = np.random.default_rng(seed).normal(size=(1, steps + 1, 1)).astype("float32")
    fit = partial(rk.fit_readout, model, washout=100, verbose=0)
    brief = min(timed(lambda: fit(x[:, :short], x[:, 1 : short + 1])) for _ in range(5))
    seconds = timed(lambda: fit(x[:, :-1], x[:, 1:]))
    entry = reservoir_entry("fit of 200 units, a million steps", before, seconds, steps)
    return entry | {"share_of_short": brief / short * steps / seconds}


def reservoir_entry(what, before, seconds, steps) -> dict:
    return {
        "what": what,
        **peak_and_rise(before),
        "us_per_step": 1e6 * seconds / steps,
    }


def peak_and_rise(before: int) -> dict[str, float]:
    """Returns peak memory and its rise since `before`, in MB."""
    return {"whole": peak_memory() / 1e6, "raised": (peak_memory() - before) / 1e6}


def timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_memory() -> int:
    """Returns the peak resident memory of the process, in bytes.

    `ru_maxrss` is only the fallback: on Linux a new process inherits its parent's.
    """
    try:
        with open("/proc/self/status") as status:
            sizes = [line.split()[1] for line in status if line.startswith("VmHWM")]
            return 1024 * int(sizes[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


MEASUREMENTS = {
    "first step": first_step,
    "memory": memory,
    "sparse reservoir": sparse_reservoir,
    "long reservoir": long_reservoir,
}

if __name__ == "__main__":
    name, *arguments = json.loads(sys.argv[1])
    print(json.dumps(MEASUREMENTS[name](*arguments)))
