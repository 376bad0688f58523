"""Measures reservoirs: scores against published ones, time against ReservoirPy.

    python benchmarks/reservoir.py [--quick] [--seed 0] [--out FOLDER]

- Scores: mean over ten seeds of the matrices and of synthetic data.
- Time of states and of a fit, interleaved with ReservoirPy, which computes in float64,
  here in float32; 10,000 steps, a batch of 1, connectivity 0.1.
- Memory of 5,000 sparse units, and of a million steps, each in a new process.

Writes reservoir.md and reservoir.json, or reservoir-quick.*. An interrupted run
resumes.
"""

import os
from statistics import fmean, median, stdev

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import runner
from report import NONE, table
from subprocess_runs import run_in_subprocess
from tasks import Task, japanese_vowels, mackey_glass, memory_capacity, narma, santa_fe
from timing import interleaved

import keras_rnnkit as rk

SEEDS = 10
STEPS, WASHOUT, RIDGE = 10_000, 100, 1e-6
LINEAR = {"topology": "ring", "spectral_radius": 0.99, "input_scaling": 0.1}
FORECAST = {
    **{"spectral_radius": 0.95, "leak_rate": 0.8, "input_scaling": 0.5},
    "ridge": 1e-11,
}
LARGE = FORECAST | {"spectral_radius": 1.1, "bias_scaling": 0.2, "ridge": 1e-9}
AVERAGE = {
    **{"spectral_radius": 1.0057, "leak_rate": 0.8951, "input_scaling": 0.2079},
    **{"bias_scaling": 0.1603, "connectivity": 1.0, "ridge": 4.7e-9},
}
LASER = {
    **{"spectral_radius": 0.8365, "leak_rate": 0.8942, "input_scaling": 2.754},
    **{"bias_scaling": 0.2059, "connectivity": 1.0, "ridge": 9.7e-5},
}
SPEECH = {
    **{"spectral_radius": 0.6428, "leak_rate": 0.8973, "input_scaling": 0.5373},
    **{"bias_scaling": 0.2095, "ridge": 0.93},
}
TASKS = {
    "Mackey-Glass, 84 steps, of 3,000": Task(
        mackey_glass(3000), 400, FORECAST, wanted=2.0e-4, published="2.8e-4"
    ),
    "Mackey-Glass, 84 steps, of 21,000": Task(
        mackey_glass(21_000), 400, FORECAST, wanted=1.0e-4, published="1.2e-4"
    ),
    "Mackey-Glass, 84 steps, of 21,000 ": Task(
        mackey_glass(21_000), 1000, LARGE, wanted=5e-5, published="6.3e-5"
    ),
    "NARMA10": Task(narma, 50, AVERAGE, wanted=0.33),
    "NARMA10 ": Task(narma, 200, AVERAGE),
    "Santa Fe laser, one step": Task(
        santa_fe, 100, LASER, "NMSE", 0.0125, published="0.0125"
    ),
    "Santa Fe laser, one step ": Task(
        santa_fe, 200, LASER | {"ridge": 1e-3}, "NMSE", 0.008, published="0.0082"
    ),
    "Japanese Vowels": Task(
        japanese_vowels, 500, SPEECH, "accuracy", 0.985, True, "0.873 to 0.99"
    ),
    "linear memory": Task(memory_capacity, 100, LINEAR, "share of bound", 0.9, True),
}
SIZES = 100, 500, 1000


def parts(quick):
    """Returns the parts: a name, the cases, and a function of a case and the seed."""
    seeds = 2 if quick else SEEDS
    tasks = [name for name in TASKS if not quick or "Mackey" not in name]
    return [
        ("time", SIZES[:1] if quick else SIZES, measure_time),
        ("memory", [] if quick else ["sparse", "long"], measure_memory),
        ("scores", tasks, lambda case, seed: measure_task(case, seed, seeds)),
    ]


def measure_task(name, seed, seeds):
    """Returns the scores of a task, one for each seed."""
    task = TASKS[name]
    scores = []
    for number in range(seed, seed + seeds):
        keras.utils.clear_session()
        scores.append(task.run(task.units, number, "test", task.settings))
    return scores


def measure_time(units, seed):
    """Times states and fits of both libraries on the same matrices, in milliseconds."""
    from reservoirpy.nodes import Reservoir, Ridge

    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(size=(STEPS + 1, 1)), axis=0)
    x = np.tanh(x - x.mean())
    theirs = Reservoir(units, sr=0.9, lr=1.0, seed=seed)
    fitted = Reservoir(units, sr=0.9, lr=1.0, seed=seed) >> Ridge(ridge=RIDGE)
    states = theirs.run(x[:-1])

    model = keras.Sequential(
        [keras.Input((None, 1)), rk.ESN(units, seed=seed), keras.layers.Dense(1)]
    )
    layer = model.layers[0]
    matrix = theirs.W.todense() if hasattr(theirs.W, "todense") else theirs.W
    kernel = theirs.Win.toarray() if hasattr(theirs.Win, "toarray") else theirs.Win
    layer.set_weights([np.asarray(kernel).T, np.asarray(matrix).T])
    states_model = keras.Sequential([keras.Input((None, 1)), layer])
    u, y = x[None, :-1].astype("float32"), x[None, 1:].astype("float32")
    off = np.abs(states_model.predict_on_batch(u)[0] - states).max()
    if not off < 1e-3:
        raise RuntimeError(f"the states differ from ReservoirPy's by {off:.1e}")
    calls = {
        "states here": lambda: states_model.predict_on_batch(u),
        "states ReservoirPy": lambda: theirs.run(x[:-1]),
        "fit here": lambda: rk.fit_readout(
            model, u, y, ridge=RIDGE, washout=WASHOUT, verbose=0
        ),
        "fit ReservoirPy": lambda: fitted.fit(x[:-1], x[1:], warmup=WASHOUT),
    }
    spent = interleaved(calls, repeats=10, budget=60)
    return {name: 1000 * median(each) for name, each in spent.items()}


def measure_memory(case, seed):
    return run_in_subprocess(f"{case} reservoir", seed)


def markdown(results) -> str:
    """Returns the tables."""
    return "\n".join(
        [
            f"Scores, mean and standard deviation over {SEEDS} seeds.",
            "",
            scores_table(results["scores"]),
            "",
            "Time of ReservoirPy over that here.",
            "",
            time_table(results["time"]),
            "",
            "Memory and time in a process of its own.",
            "",
            memory_table(results["memory"]),
            "",
        ]
    )


def scores_table(scores):
    rows = []
    for name, each in scores.items():
        task = TASKS[name]
        spread = stdev(each) if len(each) > 1 else 0.0
        wanted = NONE
        if task.wanted is not None:
            wanted = f"{'≥' if task.larger else '≤'} {task.wanted:g}"
        digits = ".1e" if fmean(each) < 0.001 else ".2g"
        score = f"{fmean(each):{digits}} ± {spread:.1g}"
        rows.append([name, str(task.units), task.score, score, wanted, task.published])
    return table(["task", "units", "score", "here", "wanted", "published"], rows)


def time_table(times):
    rows = [
        [
            units,
            f"{ms['states ReservoirPy'] / ms['states here']:.1f}",
            f"{ms['fit ReservoirPy'] / ms['fit here']:.1f}",
        ]
        for units, ms in times.items()
    ]
    return table(["units", "states", "fit"], rows)


def memory_table(entries):
    rows = [
        [
            each["what"],
            f"{each['whole']:.0f} MB",
            f"{each['raised']:.0f} MB",
            f"{each['us_per_step']:.0f} us",
        ]
        for each in entries.values()
    ]
    return table(["what", "process", "above the import", "time a step"], rows)


if __name__ == "__main__":
    runner.run("reservoir", "Reservoirs", __doc__, parts, markdown)
