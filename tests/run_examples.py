"""Examples as processes of their own, and as modules."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parent.parent


def start(example, *arguments):
    """Starts an example where warnings are errors."""
    return subprocess.Popen(
        [sys.executable, "-u", "-W", "error::UserWarning", example, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_at(process, line):
    """Kills a run when it prints a line that begins so."""
    for printed_line in process.stdout:
        if printed_line.startswith(line):
            process.kill()
    process.communicate()


def printed(process):
    """What a run prints to its end."""
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out


def names_of(example, monkeypatch):
    """The names of an example."""
    monkeypatch.syspath_prepend(example.parent)
    return SimpleNamespace(**runpy.run_path(str(example)))
