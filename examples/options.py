"""Command-line arguments and folders shared by the examples."""

import argparse
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs"  # ignored by git
SAVED_MODELS = ROOT / "saved_models"  # written only by `make keep`


def parser(description: str, *needs: str, quick: str) -> argparse.ArgumentParser:
    """Returns a parser of `--quick`, `--seed` and `--out`.

    Args:
        description: str, docstring of the example; the help shows its first line.
        needs: str, optional packages that the example imports. The program exits at
            once if one is missing.
        quick: str, help of `--quick`.

    Raises:
        SystemExit: a package of `needs` is missing.
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
        help="output folder, created if missing; the default is one in runs/",
    )
    return parser


def _folder(text):
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"must be a folder; `{text}` is a file")
    return path


def folder(given: argparse.Namespace, name: str) -> Path:
    """Returns the output folder: `--out`, or `name` in runs/, plus `-quick` if quick.

    Does not create it.
    """
    return given.out or RUNS / (name + "-quick" * given.quick)
