"""The arguments that the examples share, and where they write."""

import argparse
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"  # git does not look there
KEPT = ROOT / "saved_models"  # written by `make keep` alone


def parser(description: str, *needs: str, quick: str) -> argparse.ArgumentParser:
    """Takes `--quick`, `--seed` and `--out`; shows the description's first line.

    Args:
        description: the docstring of the example.
        needs: packages of the extras. The program ends here if one is missing, and not
            when all but the last picture is done.
        quick: what `--quick` does.
    """
    missing = [name for name in needs if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"This example needs {', '.join(missing)}: run `pip install '.[all]'` "
            f"in {ROOT}"
        )
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        *("--out", "--output", "--folder"),
        type=_folder,
        metavar="FOLDER",
        help="of what is written, made if need be; default one in runs/",
    )
    return parser


def _folder(text):
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder; `{text}` is a file")
    return path


def folder(given: argparse.Namespace, name: str) -> Path:
    """Where a run writes: `--out`, or `name` in runs/, with `-quick` for quick runs.

    Make it when there is something to write.
    """
    return given.out or RUNS / (name + "-quick" * given.quick)
