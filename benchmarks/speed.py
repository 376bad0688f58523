"""Times recurrent layers against Keras, Keras with XLA, and PyTorch.

    python benchmarks/speed.py [--quick] [--seed 0] [--repeats N] [--out FOLDER]

Writes speed.md, speed.json and speed.png, or speed-quick.*. An interrupted run resumes.
"""

import gc
import os
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import options
import peers
import report
from cases import Case, grid
from checkpoint import Checkpoint, versions
from peers import KERAS, OURS, TORCH
from timing import first_calls, interleaved, product_rate

from keras_rnnkit.recurrence.shards import available_cores


def main():
    arguments = parse()
    name = "speed-quick" if arguments.quick else "speed"
    settings = {"seed": arguments.seed, "repeats": arguments.repeats}
    checkpoint = Checkpoint(arguments.out / f"{name}.partial.json", settings)
    load = options.load()
    warm_up(arguments.seed)
    rates, _ = checkpoint.get("product rate", lambda: product_rate(tries=20))
    cases, entries = grid(arguments.quick), []
    for number, case in enumerate(cases, 1):
        budget = 1 if arguments.quick else 6
        entry, is_stored = checkpoint.get(
            str(case),
            lambda case=case, budget=budget: measure(
                case, arguments.seed, arguments.repeats, budget
            ),
        )
        entries.append(entry)
        print(line(number, len(cases), case, entry, is_stored), flush=True)
    metadata = {
        "versions": versions(),
        "cores": available_cores(),
        "settings": settings,
        "load_before": load,
        "product_gflops": rates,
        "seconds": checkpoint.seconds,
    }
    report.write_speed(arguments.out, name, entries, metadata)
    checkpoint.delete()
    print(f"Written to {arguments.out}: {name}.md {name}.json {name}.png")


def parse():
    parser = options.parser(__doc__)
    parser.add_argument("--repeats", type=int, help="default 15; 5 if quick")
    arguments = parser.parse_args()
    if arguments.repeats is None:
        arguments.repeats = 5 if arguments.quick else 15
    return arguments


def warm_up(seed: int):
    """Makes the libraries load what they load at the first call of a process."""
    case = Case("LSTM", 2, 8, 4, 4, "train", masked=False)
    first_calls(peers.build(case, seed))


def measure(case: Case, seed: int, repeats: int, budget: float) -> dict:
    """Times all peers of a case; returns the case and times in milliseconds."""
    built = peers.build(case, seed)
    first = first_calls(built)
    calls = {name: peer.call for name, peer in built.items()}
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


def line(number, count, case, entry, is_stored) -> str:
    """Returns the line to print after a case."""
    ratios = [
        f"{name} / ours {entry['ms'][name] / entry['ms'][OURS]:.2f}"
        for name in (KERAS, TORCH)
        if name in entry["ms"]
    ]
    stored = " (from the checkpoint)" if is_stored else ""
    return f"[{number}/{count}] {case}: {', '.join(ratios)}{stored}"


if __name__ == "__main__":
    main()
