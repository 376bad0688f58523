"""Times recurrent layers against Keras, Keras with XLA, and PyTorch.

    python benchmarks/speed.py [--quick] [--seed 0] [--repeats N] [--out FOLDER]

Writes speed.md, speed.json and speed.png, or speed-quick.*; a run that was stopped goes
on where it was.
"""

import gc
import os
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contestants
import keras
import options
import report
from cases import Case, grid
from contestants import KERAS, OURS, TORCH
from kept import Kept, versions
from timing import first_calls, interleaved, product_rate

from keras_rnnkit.recurrence.shards import available_cores


def main():
    arguments = parse()
    name = "speed-quick" if arguments.quick else "speed"
    settings = {"seed": arguments.seed, "repeats": arguments.repeats}
    kept = Kept(arguments.out / f"{name}.partial.json", settings)
    load = options.load()
    warm_up(arguments.seed)
    rates, _ = kept.get("product rate", lambda: product_rate(tries=20))
    cases, entries = grid(arguments.quick), []
    for number, case in enumerate(cases, 1):
        budget = 1 if arguments.quick else 6
        entry, was_there = kept.get(
            str(case),
            lambda case=case, budget=budget: measure(
                case, arguments.seed, arguments.repeats, budget
            ),
        )
        entries.append(entry)
        print(line(number, len(cases), case, entry, was_there), flush=True)
    facts = {
        "versions": versions(),
        "cores": available_cores(),
        "settings": settings,
        "load_before": load,
        "product_gflops": rates,
        "seconds": kept.seconds,
    }
    report.write_speed(arguments.out, name, entries, facts)
    kept.delete()
    print(f"Written to {arguments.out}: {name}.md {name}.json {name}.png")


def parse():
    parser = options.parser(__doc__)
    parser.add_argument("--repeats", type=int, help="default 15; 5 if quick")
    arguments = parser.parse_args()
    if arguments.repeats is None:
        arguments.repeats = 5 if arguments.quick else 15
    return arguments


def warm_up(seed: int):
    """Has the libraries load what only the first call of a process needs."""
    case = Case("LSTM", 2, 8, 4, 4, "train", masked=False)
    first_calls(contestants.build(case, seed))


def measure(case: Case, seed: int, repeats: int, budget: float) -> dict:
    """The medians of all contestants of a case, in milliseconds."""
    built = contestants.build(case, seed)
    first = first_calls(built)
    calls = {name: contestant.call for name, contestant in built.items()}
    spent = interleaved(calls, repeats, budget)
    del built, calls
    keras.backend.clear_session()
    gc.collect()
    return case._asdict() | {
        "flops": case.flops,
        "timings": len(spent[OURS]),
        "ms": {name: 1000 * median(each) for name, each in spent.items()},
        "least_ms": {name: 1000 * min(each) for name, each in spent.items()},
        "first_ms": {name: 1000 * each for name, each in first.items()},
    }


def line(number, count, case, entry, was_there) -> str:
    """What is printed when a case is done."""
    ratios = [
        f"{name} / ours {entry['ms'][name] / entry['ms'][OURS]:.2f}"
        for name in (KERAS, TORCH)
        if name in entry["ms"]
    ]
    kept = " (kept)" if was_there else ""
    return f"[{number}/{count}] {case}: {', '.join(ratios)}{kept}"


if __name__ == "__main__":
    main()
