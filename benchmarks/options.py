"""The arguments that the scripts share."""

import argparse
from pathlib import Path

# Git does not look there. What the docs show is in results/, by `make keep-bench`.
RESULTS = Path(__file__).resolve().parent.parent / "runs" / "benchmarks"


def parser(description: str) -> argparse.ArgumentParser:
    """Takes `--quick`, `--seed`, `--out`; shows the description's first line."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few cases, a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    return parser


def load() -> float | None:
    """How many cores other processes keep busy now.

    Says so if they do: threads that wait for each other in a loop, as PyTorch's do, are
    slowed a hundredfold by a core that is taken, and the others' less.
    """
    try:
        running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    except OSError:
        return None
    load = int(running) - 1  # but for this process
    if load:
        print(f"Load {load}: other processes are running; do not trust the times")
    return load
