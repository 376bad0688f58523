"""Writes a file or folder atomically: it appears complete, or not at all."""

import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: the leftovers of a killed export stay
    fcntl = None

PREFIX = ".export-"
NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")
NEW, OLD = "new", "old"


@contextmanager
def atomic_write(path, folder: bool = False):
    """Yields a temporary path that replaces `path` when the context exits.

    If the context raises, `path` stays as it was.

    Args:
        path: the file to write, or the folder.
        folder: bool, whether `path` is a folder. Default: False.

    Raises:
        OSError: `path` cannot be written; see `check_target`.
    """
    path = check_target(path, folder)
    with _workspace(path.parent) as work:
        yield work / NEW
        if path.is_dir():
            (work / OLD).mkdir()
            os.replace(path, work / OLD / path.name)
        os.replace(work / NEW, path)


def check_target(path: str | os.PathLike[str], folder: bool = False) -> Path:
    """Checks that an export can write to a path, and returns the absolute path.

    Args:
        path: str or path-like, the file or folder to write.
        folder: bool, whether a SavedModel folder is written. Default: False, a file.

    Returns:
        `Path`, absolute.

    Raises:
        FileNotFoundError: the parent folder does not exist.
        NotADirectoryError: `path` is a file where a folder is written, or its parent is
            a file.
        IsADirectoryError: `path` is a folder where a file is written.
        FileExistsError: `path` is a folder with other files than a SavedModel.

    Example:

    ```python
    import keras_rnnkit as rk

    path = rk.export.check_target("model.tflite")
    print(path.is_absolute())  # True
    ```
    """
    path = Path(path).absolute()
    if not path.parent.is_dir():
        kind = NotADirectoryError if path.parent.exists() else FileNotFoundError
        raise kind(
            f"`path` must be in a folder that exists; there is no folder "
            f"`{path.parent}` for `{path.name}`"
        )
    if path.is_dir() and not folder:
        raise IsADirectoryError(
            f"`path` must be a file to write; received the folder `{path}`"
        )
    if folder and path.exists() and not path.is_dir():
        raise NotADirectoryError(
            f"`path` must be a folder to write; received the file `{path}`"
        )
    if folder and path.is_dir():
        names = sorted(each.name for each in path.iterdir())
        if names and "saved_model.pb" not in names:
            raise FileExistsError(
                "`path` must be a new or empty folder, or a SavedModel, which is "
                f"replaced; received `{path}`, which holds {names[:3]}"
            )
    return path


@contextmanager
def _workspace(parent):
    """Creates a temporary folder beside the target, locked while it is in use.

    The system releases a lock when its process ends, so an unlocked folder is the
    leftover of a killed export. The parent is locked while folders are created and
    removed.
    """
    outer = _lock(parent, wait=True)
    try:
        if outer is not None:
            _clean(parent)
        work = tempfile.TemporaryDirectory(dir=parent, prefix=PREFIX)
        inner = _lock(work.name)
    finally:
        _unlock(outer)
    try:
        with work:
            yield Path(work.name)
    finally:
        _unlock(inner)


def _clean(parent):
    """Removes the leftovers of killed exports and restores what they had moved."""
    for work in parent.iterdir():
        lock = _lock(work) if NAME.fullmatch(work.name) else None
        if lock is None:
            continue
        # An export that has just finished may have removed its folder.
        with suppress(FileNotFoundError, NotADirectoryError):
            if {each.name for each in work.iterdir()} <= {NEW, OLD}:
                for old in (work / OLD).glob("*"):
                    if not (parent / old.name).exists():
                        os.replace(old, parent / old.name)
                shutil.rmtree(work, ignore_errors=True)
        _unlock(lock)


def _lock(folder, wait=False):
    """Locks a folder; returns its open descriptor, or None if it cannot be locked."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # locked by another process, or no locks on this file system
        os.close(descriptor)
        return None
    return descriptor


def _unlock(descriptor):
    if descriptor is not None:
        os.close(descriptor)


def size_of(path: str | os.PathLike[str]) -> int:
    """Returns the size of a file, or of all files in a folder.

    Args:
        path: str or path-like, of a file or folder.

    Returns:
        int, in bytes.

    Raises:
        FileNotFoundError: there is no such file.

    Example:

    ```python
    from pathlib import Path
    import keras_rnnkit as rk

    Path("three.bin").write_bytes(b"abc")
    print(rk.export.size_of("three.bin"))  # 3
    ```
    """
    path = Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
