"""Writing a file or folder that appears whole under its name, or not at all."""

import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: what a killed export has left stays
    fcntl = None

PREFIX = ".export-"
NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")
NEW, OLD = "new", "old"


@contextmanager
def whole(path, folder: bool = False):
    """Yields a temporary path that takes the place of `path` if all goes well.

    What stood at `path` stays until then, and for good if the body raises.

    Args:
        path: the file to write, or with `folder` the folder.

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
    """Returns the absolute path of what is to be written.

    Raises:
        FileNotFoundError: the folder around it does not exist.
        NotADirectoryError, IsADirectoryError, FileExistsError: there is something else
            in its place, which would be lost.
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
        held = sorted(each.name for each in path.iterdir())
        if held and "saved_model.pb" not in held:
            raise FileExistsError(
                "`path` must be a new or empty folder, or a SavedModel, which is "
                f"replaced; received `{path}`, which holds {held[:3]}"
            )
    return path


@contextmanager
def _workspace(parent):
    """A temporary folder beside what is written, locked as long as it is in use.

    The lock of a process goes when it ends, however it ends: a folder without one is
    what a killed export has left. While folders are made and removed the one around
    them is locked too.
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
    """Removes what killed exports have left, and puts back what they had moved."""
    for work in parent.iterdir():
        lock = _lock(work) if NAME.fullmatch(work.name) else None
        if lock is None:
            continue
        # One that is just done may have removed its folder in between.
        with suppress(FileNotFoundError, NotADirectoryError):
            if {each.name for each in work.iterdir()} <= {NEW, OLD}:
                for old in (work / OLD).glob("*"):
                    if not (parent / old.name).exists():
                        os.replace(old, parent / old.name)
                shutil.rmtree(work, ignore_errors=True)
        _unlock(lock)


def _lock(folder, wait=False):
    """Locks a folder; returns its open descriptor, or None if that cannot be."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # another process has it, or the file system knows no locks
        os.close(descriptor)
        return None
    return descriptor


def _unlock(descriptor):
    if descriptor is not None:
        os.close(descriptor)


def size_of(path: str | os.PathLike[str]) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    path = Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
