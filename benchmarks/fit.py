"""Times `model.fit` as a user has it, and takes the peak of the memory of training.

    python benchmarks/fit.py [--quick] [--seed 0] [--out FOLDER]

Writes fit.md and fit.json, or fit-quick.*; a run that was stopped goes on where it was.
"""

import functools
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import options
from alone import in_own_process
from cases import Case
from contestants import KERAS, OURS, TORCH
from fit_report import markdown
from kept import Kept, versions, write
from models import CONTESTANTS, LAYERS, TASKS, Task, fit, make_model
from with_torch import torch

from keras_rnnkit.recurrence.shards import available_cores

LOSS_TOLERANCE = 1e-3
MEMORY_SHAPES = [(32, 100, 64, 128), (64, 100, 128, 256)]
LONG = (8, 10000, 64, 64)


class Clock(keras.callbacks.Callback):
    """Takes the seconds of an epoch's steps."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.start


def main():
    arguments = options.parser(__doc__).parse_args()
    quick, seed = arguments.quick, arguments.seed
    load, name = options.load(), "fit-quick" if quick else "fit"
    settings = {"seed": seed, "epochs": 3 if quick else 5, "runs": 1 if quick else 3}
    kept = Kept(arguments.out / f"{name}.partial.json", settings)

    def results(of, keys, make):
        found = {}
        for key in keys:
            found[key], there = kept.get(f"{of}: {key}", lambda key=key: make(*key))
            print(f"{of}, {', '.join(map(str, key))}", "(kept)" * there, flush=True)
        return found

    layers = LAYERS[:1] if quick else LAYERS
    every = [(layer, task) for layer in layers for task in TASKS]
    fitted = results(
        "epochs", every, lambda *key: epochs(*key, seed, settings["epochs"])
    )
    some = [key for key in every if key[1] != "vowels, batch 8"]
    first = results("first step", some, lambda *key: steps(*key, settings["runs"]))
    shapes = MEMORY_SHAPES[:1] if quick else [*MEMORY_SHAPES, LONG]
    peaks = results("memory", shapes, lambda *shape: memory(shape, seed))

    facts = {
        "versions": versions(),
        "cores": available_cores(),
        "settings": settings,
        "load_before": load,
        "seconds": kept.seconds,
        "epoch_ms": listed(fitted),
        "first_step_ms": listed(first),
        "memory_mb": listed(peaks),
    }
    write(arguments.out / f"{name}.json", json.dumps(facts, indent=1))
    write(arguments.out / f"{name}.md", markdown(fitted, first, peaks))
    kept.delete()
    print(f"Written to {arguments.out}: {name}.md {name}.json")


def epochs(layer: str, task_name: str, seed: int, count: int) -> dict:
    """The milliseconds of the first epoch and of the median of the next.

    The contestants take turns. Returns `{contestant: {"first": ms, "next": ms}}`.

    Raises:
        RuntimeError: their losses in the first epoch differ.
    """
    warm_up()
    keras.utils.set_random_seed(seed)
    task, clock = TASKS[task_name](), Clock()
    fitted = {name: make_model(name, layer, task) for name in CONTESTANTS}
    weights = fitted[KERAS].get_weights()
    first, losses, following = {}, {}, {name: [] for name in fitted}
    for name, model in fitted.items():
        model.set_weights(weights)
        start = time.perf_counter()
        losses[name] = fit(model, task).history["loss"][0]
        first[name] = time.perf_counter() - start
    if not np.allclose(list(losses.values()), losses[KERAS], rtol=LOSS_TOLERANCE):
        raise RuntimeError(f"the losses of {layer}, {task_name} differ: {losses}")
    for _ in range(count):
        for name, model in fitted.items():
            fit(model, task, [clock])
            following[name].append(clock.seconds)
    keras.backend.clear_session()
    return {
        name: {
            "first": 1000 * first[name],
            "next": 1000 * statistics.median(following[name]),
        }
        for name in fitted
    }


@functools.cache
def warm_up():
    """Has TensorFlow load what only the first call of a process needs."""
    task = Task([np.zeros((4, 8, 3), np.float32)], np.arange(4, dtype=np.int32), 4)
    for name in CONTESTANTS:
        fit(make_model(name, "LSTM", task), task)


def steps(layer: str, task: str, runs: int) -> dict:
    """The median milliseconds of the first step, each in a process of its own."""
    spent = {name: [] for name in CONTESTANTS}
    for _ in range(runs):
        for name, each in spent.items():
            each.append(1000 * in_own_process("first step", name, layer, task))
    return {name: statistics.median(each) for name, each in spent.items()}


def memory(shape: tuple, seed: int) -> dict:
    """The MB that processes take that train an LSTM."""
    case = Case("LSTM", *shape, "train", masked=False)
    names = [OURS] if shape == LONG else [*CONTESTANTS, *[TORCH] * (torch is not None)]
    return {name: in_own_process("memory", name, case, seed) for name in names}


def listed(results: dict) -> list[dict]:
    """Results for a JSON file, which has no tuples for keys."""
    return [{"case": list(key)} | result for key, result in results.items()]


if __name__ == "__main__":
    main()
