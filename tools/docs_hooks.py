"""MkDocs hooks: add files from outside `docs/`, and check the API reference.

Pages link to files of the repository by relative paths, `../examples/x.py`, as on a
code host; the hooks rewrite these links for the site.
"""

import importlib
import inspect
import os
import re
import sys
import tempfile
from pathlib import Path

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "keras_rnnkit"
# Files outside `docs/` that the site includes.
INCLUDED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "benchmarks/results/*.md",
    "benchmarks/results/*.png",
    "examples/*.py",
    "saved_models/**/*.png",
)
OUTSIDE = "|".join(sorted({pattern.split("/")[0] for pattern in INCLUDED}))

log = get_plugin_logger("docs_hooks")
documented = set()


def on_files(files, config):
    """Adds the files from outside `docs/`."""
    for pattern in INCLUDED:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            directory_urls = config.use_directory_urls
            files.append(File(name, str(ROOT), config.site_dir, directory_urls))
    # Code on the pages runs in a temporary folder, with this Python on the PATH.
    os.chdir(tempfile.mkdtemp())
    folders = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join(folders)
    return files


def on_page_markdown(markdown, page, **_):
    """Rewrites links between `docs/` and the rest of the repository for the site."""
    if page.file.src_dir == str(ROOT):
        return markdown.replace("](docs/", "](" + "../" * page.url.count("/"))
    up = r"\.\./" * page.file.src_uri.count("/")
    return re.sub(rf"\]\(({up})\.\./(?=(?:{OUTSIDE})\b)", r"](\1", markdown)


def on_page_content(html, page, **_):
    """Records the names that a page of the API reference documents."""
    if page.url.startswith("api/"):
        documented.update(re.findall(rf'id="({PACKAGE}\.[\w.]+)"', html))


def on_post_build(**_):
    """Fails the strict build if a public name is not documented."""
    os.chdir(ROOT)
    documented_ids = {id(resolve(name)) for name in documented}
    for name, value in public_names(importlib.import_module(PACKAGE)):
        if id(value) not in documented_ids:
            log.warning(f"`{name}` is public, but no API page documents it")


def resolve(name):
    """Returns the object of a dotted name, or None; prefers a module to a function."""
    value, path = importlib.import_module(PACKAGE), PACKAGE
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        value = sys.modules.get(path) or getattr(value, part, None)
    return value


def public_names(module):
    """Yields `(name, object)` for what a module and its public submodules export."""
    for name in getattr(module, "__all__", None) or defined_names(module):
        value = getattr(module, name)
        if inspect.ismodule(value):
            yield from public_names(value)
        else:
            yield f"{module.__name__}.{name}", value


def defined_names(module):
    """Yields the public names that a module without `__all__` defines: classes, and
    functions whose docstrings describe their arguments."""
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == module.__name__
        is_function = inspect.isfunction(value) and "Args:" in (value.__doc__ or "")
        if is_own and name[0] != "_" and (inspect.isclass(value) or is_function):
            yield name
