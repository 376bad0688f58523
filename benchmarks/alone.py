"""What is measured in a process of its own: the first step of `fit`, and memory.

The process is this file, run with a JSON list: the task's name and its arguments.
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


def in_own_process(task: str, *arguments):
    """What the function `task` of `DONE` returns, run in a new process.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, __file__, json.dumps([task, *arguments])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{task} of {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def first_step(contestant: str, layer: str, task: str) -> float:
    """The seconds from the call of `fit` to the end of its first step.

    Not to its return: there TensorFlow's data pipeline, when it is taken down, waits
    for half a second or not, by chance.
    """
    import keras
    import models

    ends = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    x, y, size = models.TASKS[task]()
    batch = models.Task([part[:size] for part in x], y[:size], size)
    model = models.make_model(contestant, layer, batch)
    start = time.perf_counter()
    models.fit(model, batch, [clock])
    return ends[0] - start


def memory(contestant: str, case: list, seed: int) -> dict[str, float]:
    """The MB of the peak after some calls, and by how many they raised it."""
    import contestants
    from cases import Case

    before = peak()
    call = contestants.build(Case(*case), seed, only=[contestant])[contestant].call
    for _ in range(CALLS):
        call()
    return {"whole": peak() / 1e6, "raised": (peak() - before) / 1e6}


def sparse_reservoir(seed: int) -> dict:
    """5,000 sparse units over 10,000 steps."""
    import keras
    import numpy as np

    import keras_rnnkit as rk

    before, steps = peak(), 10_000
    layer = rk.ESN(5000, connectivity=0.01, seed=seed)
    model = keras.Sequential([keras.Input((steps, 1)), layer])
    x = np.random.default_rng(seed).normal(size=(1, steps, 1)).astype("float32")
    seconds = min(timed(lambda: model.predict_on_batch(x)) for _ in range(2))
    return of_reservoir("5,000 sparse units, 10,000 steps", before, seconds, steps)


def long_reservoir(seed: int) -> dict:
    """A million steps through `fit_readout`; and the speed of a short run beside it."""
    import keras
    import numpy as np

    import keras_rnnkit as rk

    before, steps, short = peak(), 1_000_000, 10_000
    layers = [keras.Input((None, 1)), rk.ESN(200, seed=seed), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    x = np.random.default_rng(seed).normal(size=(1, steps + 1, 1)).astype("float32")
    fit = partial(rk.fit_readout, model, washout=100, verbose=0)
    brief = min(timed(lambda: fit(x[:, :short], x[:, 1 : short + 1])) for _ in range(5))
    seconds = timed(lambda: fit(x[:, :-1], x[:, 1:]))
    found = of_reservoir("fit of 200 units, a million steps", before, seconds, steps)
    return found | {"share_of_short": brief / short * steps / seconds}


def of_reservoir(what, before, seconds, steps) -> dict:
    return {
        "what": what,
        "whole": peak() / 1e6,
        "raised": (peak() - before) / 1e6,
        "us_per_step": 1e6 * seconds / steps,
    }


def timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak() -> int:
    """The most bytes that the process has had in memory.

    `ru_maxrss` comes second: Linux hands that of the parent on to a new process.
    """
    try:
        with open("/proc/self/status") as status:
            sizes = [line.split()[1] for line in status if line.startswith("VmHWM")]
            return 1024 * int(sizes[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


DONE = {
    "first step": first_step,
    "memory": memory,
    "sparse reservoir": sparse_reservoir,
    "long reservoir": long_reservoir,
}

if __name__ == "__main__":
    task, *arguments = json.loads(sys.argv[1])
    print(json.dumps(DONE[task](*arguments)))
