"""The house keeps its order: who imports whom, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "keras_rnnkit"
ALLOWED = {
    "argument_docs": set(),
    "arguments": {"argument_docs"},
    "internals": set(),
    "summary": set(),
    "threads": set(),
    "initializers": {"arguments", "threads"},
    "cells": {"arguments", "initializers"},
    "explanation": {"internals", "recurrence"},
    "recurrence": {"internals"},
    "layers": {"arguments", "cells", "internals", "recurrence"},
    "convert": {"arguments", "cells", "internals", "layers", "recurrence"},
    "reservoir": {
        *{"arguments", "cells", "convert", "initializers", "internals", "layers"},
        *{"plots", "recurrence", "summary", "threads"},
    },
    "seq2seq": {"arguments", "cells", "internals", "layers", "recurrence"},
    "export": {
        *{"arguments", "cells", "convert", "internals", "recurrence", "reservoir"},
        "seq2seq",
    },
    "saved": {"arguments", "convert", "internals"},
    "__main__": set(),
    "tuning": {"arguments", "layers"},
    "datasets": {"arguments", "summary"},
    "plots": set(),
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part):
    files = [*PACKAGE.glob(f"{part}.py"), *PACKAGE.glob(f"{part}/**/*.py")]
    assert files
    for file in files:
        for name in imports_of(file):
            if name.startswith("keras_rnnkit."):
                other = name.split(".")[1]
                assert other == part or other in ALLOWED[part], f"{file}: {name}"


def test_every_part_has_a_rule():
    files = [path for path in PACKAGE.iterdir() if path.name[0] != "."]
    parts = {path.stem for path in files} - {"__init__", "__pycache__", "py"}
    assert parts == set(ALLOWED)


def test_the_import_needs_no_extra_and_another_backend_is_refused(tmp_path):
    extras = "keras_tuner", "tensorflow_datasets", "matplotlib", "sktime", "scipy"
    code = f"""
import sys
import keras, tensorflow, ai_edge_litert.interpreter
before = set(sys.modules)
import keras_rnnkit
print(sorted(set({extras}) & (set(sys.modules) - before)))
"""
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert out.stdout.strip() == "[]"
    fake = tmp_path / "keras" / "__init__.py"
    fake.parent.mkdir()
    fake.write_text("class backend:\n    backend = staticmethod(lambda: 'jax')\n")
    path = {"PYTHONPATH": f"{tmp_path}:{PACKAGE.parent}", "PATH": ""}
    run = [sys.executable, "-c", "import keras_rnnkit"]
    out = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=path)
    assert "needs Keras's TensorFlow backend; received 'jax'" in out.stderr
