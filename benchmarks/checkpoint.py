"""Checkpoint of a run, so that an interrupted benchmark resumes."""

import hashlib
import json
import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import keras_rnnkit


class Checkpoint:
    """Results of a run by key, each written to a file as soon as it exists.

    Args:
        path: file; its folder is created if missing.
        settings: dict, what the results depend on besides their keys. The library
            versions and a digest of the code of `keras_rnnkit` are added.

    Attributes:
        seconds: float, how long the results returned so far took to compute.
    """

    def __init__(self, path: Path, settings: dict):
        self.path = path
        self.seconds = 0.0
        self._results = json.loads(path.read_text()) if path.exists() else {}
        self._settings = settings | versions() | {"code": digest()}

    def get(self, key: str, make):
        """Returns the result of `make()` and whether it was stored already.

        Calls `make` only if there is no result for `key` and the settings.
        """
        key = json.dumps([key, self._settings])
        is_stored = key in self._results
        if not is_stored:
            start = time.perf_counter()
            result = make()
            self._results[key] = {
                "result": result,
                "seconds": time.perf_counter() - start,
            }
            write(self.path, json.dumps(self._results, indent=1))
        self.seconds += self._results[key]["seconds"]
        return self._results[key]["result"], is_stored

    def delete(self):
        self.path.unlink(missing_ok=True)


def write(path: Path, content: str | bytes):
    """Writes a file atomically: a reader finds the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def versions() -> dict[str, str]:
    """Returns the versions of the installed libraries."""
    found = {}
    for name in ("tensorflow", "keras", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def digest() -> str:
    """Returns a short hash of the code of `keras_rnnkit`."""
    sources = sorted(Path(keras_rnnkit.__file__).parent.rglob("*.py"))
    code = b"".join(source.read_bytes() for source in sources)
    return hashlib.sha256(code).hexdigest()[:12]
