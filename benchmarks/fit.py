"""Times `model.fit`, and measures the peak memory of training.

    python benchmarks/fit.py [--quick] [--seed 0] [--out FOLDER]

Writes fit.md and fit.json, or fit-quick.*. An interrupted run resumes.
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
from cases import Case
from checkpoint import Checkpoint, versions, write
from fit_report import markdown
from models import DATA, LAYERS, PEERS, FitData, fit, make_model
from peers import KERAS, OURS, TORCH
from subprocess_runs import run_in_subprocess
from with_torch import torch

from keras_rnnkit.recurrence.shards import available_cores

LOSS_TOLERANCE = 1e-3
MEMORY_SHAPES = [(32, 100, 64, 128), (64, 100, 128, 256)]
LONG = (8, 10000, 64, 64)


class Clock(keras.callbacks.Callback):
    """Records the seconds of an epoch's steps."""

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self.start


def main():
    arguments = options.parser(__doc__).parse_args()
    quick, seed = arguments.quick, arguments.seed
    load, name = options.load(), "fit-quick" if quick else "fit"
    settings = {"seed": seed, "epochs": 3 if quick else 5, "runs": 1 if quick else 3}
    checkpoint = Checkpoint(arguments.out / f"{name}.partial.json", settings)

    def measure_all(part, keys, measure):
        results = {}
        for key in keys:
            results[key], is_stored = checkpoint.get(
                f"{part}: {key}", lambda key=key: measure(*key)
            )
            stored = "(from the checkpoint)" * is_stored
            print(f"{part}, {', '.join(map(str, key))}", stored, flush=True)
        return results

    layers = LAYERS[:1] if quick else LAYERS
    cases = [(layer, data_name) for layer in layers for data_name in DATA]
    epochs = measure_all(
        "epochs", cases, lambda *key: time_epochs(*key, seed, settings["epochs"])
    )
    some = [key for key in cases if key[1] != "vowels, batch 8"]
    first_steps = measure_all(
        "first step", some, lambda *key: time_first_step(*key, settings["runs"])
    )
    shapes = MEMORY_SHAPES[:1] if quick else [*MEMORY_SHAPES, LONG]
    memory = measure_all("memory", shapes, lambda *key: measure_memory(key, seed))

    contents = {
        "versions": versions(),
        "cores": available_cores(),
        "settings": settings,
        "load_before": load,
        "seconds": checkpoint.seconds,
        "epoch_ms": as_list(epochs),
        "first_step_ms": as_list(first_steps),
        "memory_mb": as_list(memory),
    }
    write(arguments.out / f"{name}.json", json.dumps(contents, indent=1))
    write(arguments.out / f"{name}.md", markdown(epochs, first_steps, memory))
    checkpoint.delete()
    print(f"Written to {arguments.out}: {name}.md {name}.json")


def time_epochs(layer: str, data_name: str, seed: int, count: int) -> dict:
    """Times the first epoch and the median of `count` later ones, in milliseconds.

    The peers take turns. Returns `{peer: {"first": ms, "next": ms}}`.

    Raises:
        RuntimeError: the losses of the first epoch differ between peers.
    """
    warm_up()
    keras.utils.set_random_seed(seed)
    data, clock = DATA[data_name](), Clock()
    models = {name: make_model(name, layer, data) for name in PEERS}
    weights = models[KERAS].get_weights()
    first, losses, later = {}, {}, {name: [] for name in models}
    for name, model in models.items():
        model.set_weights(weights)
        start = time.perf_counter()
        losses[name] = fit(model, data).history["loss"][0]
        first[name] = time.perf_counter() - start
    if not np.allclose(list(losses.values()), losses[KERAS], rtol=LOSS_TOLERANCE):
        raise RuntimeError(f"the losses of {layer}, {data_name} differ: {losses}")
    for _ in range(count):
        for name, model in models.items():
            fit(model, data, [clock])
            later[name].append(clock.seconds)
    keras.backend.clear_session()
    return {
        name: {
            "first": 1000 * first[name],
            "next": 1000 * statistics.median(later[name]),
        }
        for name in models
    }


@functools.cache
def warm_up():
    """Makes TensorFlow load what it loads at the first call of a process."""
    data = FitData([np.zeros((4, 8, 3), np.float32)], np.arange(4, dtype=np.int32), 4)
    for name in PEERS:
        fit(make_model(name, "LSTM", data), data)


def time_first_step(layer: str, data_name: str, runs: int) -> dict:
    """Returns the median milliseconds of the first step over new processes."""
    spent = {name: [] for name in PEERS}
    for _ in range(runs):
        for name, each in spent.items():
            each.append(1000 * run_in_subprocess("first step", name, layer, data_name))
    return {name: statistics.median(each) for name, each in spent.items()}


def measure_memory(shape: tuple, seed: int) -> dict:
    """Returns the peak memory of processes that train an LSTM, in MB."""
    case = Case("LSTM", *shape, "train", masked=False)
    names = [OURS] if shape == LONG else [*PEERS, *[TORCH] * (torch is not None)]
    return {name: run_in_subprocess("memory", name, case, seed) for name in names}


def as_list(results: dict) -> list[dict]:
    """Converts results for JSON, whose keys cannot be tuples."""
    return [{"case": list(key)} | result for key, result in results.items()]


if __name__ == "__main__":
    main()
