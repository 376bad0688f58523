"""Writing a file or folder that appears whole under its name, or not at all."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path):
    """Yields a temporary path that takes the place of `path` if all goes well.

    What stood at `path` stays until then, and for good if the body raises.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        new = Path(folder) / "new"
        yield new
        if path.is_dir():
            os.replace(path, Path(folder) / "old")
        os.replace(new, path)


def size_of(path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    path = Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
