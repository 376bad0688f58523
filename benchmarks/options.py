"""Command-line arguments shared by the scripts."""

import argparse
from pathlib import Path

# Ignored by git. `make keep-bench` writes what the docs show to results/.
RESULTS = Path(__file__).resolve().parent.parent / "runs" / "benchmarks"


def parser(description: str) -> argparse.ArgumentParser:
    """Returns a parser of `--quick`, `--seed` and `--out`.

    Its help shows the first line of `description`.
    """
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="run few cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    return parser


def load() -> float | None:
    """Returns how many other threads are running, and warns if there are any.

    Threads that spin while they wait for each other, as PyTorch's do, become a hundred
    times slower if one core is busy; others suffer less.
    """
    try:
        running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    except OSError:
        return None
    load = int(running) - 1  # without this process
    if load:
        print(f"Load {load}: other processes are running, the times are unreliable")
    return load
