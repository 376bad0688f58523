"""Files that are written whole, and results that outlast a stop."""

import hashlib
import json
import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras_rnnkit


class Kept:
    """A dict of results in a file; what is put in is on disk at once.

    Args:
        path: the file; its folder is made.
        settings: what the results depend on besides their keys. The versions of the
            libraries and the code of `keras_rnnkit` are added.

    Attributes:
        seconds: what it took to make the results that were asked for.
    """

    def __init__(self, path: Path, settings: dict):
        self.path = path
        self.seconds = 0.0
        self._results = json.loads(path.read_text()) if path.exists() else {}
        self._settings = settings | versions() | {"code": digest()}

    def get(self, key: str, make):
        """The result of `make()`, made if it is not there yet; and whether it was."""
        key = json.dumps([key, self._settings])
        there = key in self._results
        if not there:
            start = time.perf_counter()
            result = make()
            self._results[key] = {
                "result": result,
                "seconds": time.perf_counter() - start,
            }
            write(self.path, json.dumps(self._results, indent=1))
        self.seconds += self._results[key]["seconds"]
        return self._results[key]["result"], there

    def delete(self):
        self.path.unlink(missing_ok=True)


def write(path: Path, content: str | bytes):
    """Writes a file whole: a reader finds the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def versions() -> dict[str, str]:
    """The versions of the libraries; those that are not installed are left out."""
    found = {}
    for name in ("tensorflow", "keras", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def digest() -> str:
    """Tells one state of this package's code from another."""
    sources = sorted(Path(keras_rnnkit.__file__).parent.rglob("*.py"))
    code = b"".join(source.read_bytes() for source in sources)
    return hashlib.sha256(code).hexdigest()[:12]
