"""MkDocs hooks: files from outside `docs/`, and a check of the API reference.

Pages link to files of the repository as they do on a code host, `../examples/x.py`.
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
# What the site shows from outside `docs/`.
SHOWN = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "benchmarks/results/*.md",
    "benchmarks/results/*.png",
    "examples/*.py",
    "saved_models/**/*.png",
)
OUTSIDE = "|".join(sorted({shown.split("/")[0] for shown in SHOWN}))

log = get_plugin_logger("docs_hooks")
documented = set()


def on_files(files, config):
    """Adds the files from outside."""
    for shown in SHOWN:
        for path in sorted(ROOT.glob(shown)):
            name = path.relative_to(ROOT).as_posix()
            directory_urls = config.use_directory_urls
            files.append(File(name, str(ROOT), config.site_dir, directory_urls))
    # Code on the pages writes its files here, and its `python` is this one.
    os.chdir(tempfile.mkdtemp())
    folders = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join(folders)
    return files


def on_page_markdown(markdown, page, **_):
    """Makes links between `docs/` and the rest of the repository those of the site."""
    if page.file.src_dir == str(ROOT):
        return markdown.replace("](docs/", "](" + "../" * page.url.count("/"))
    up = r"\.\./" * page.file.src_uri.count("/")
    return re.sub(rf"\]\(({up})\.\./(?=(?:{OUTSIDE})\b)", r"](\1", markdown)


def on_page_content(html, page, **_):
    """Notes which names a page of the API reference documents."""
    if page.url.startswith("api/"):
        documented.update(re.findall(rf'id="({PACKAGE}\.[\w.]+)"', html))


def on_post_build(**_):
    """Fails the strict build if a public name is not documented."""
    os.chdir(ROOT)
    known = {id(resolve(name)) for name in documented}
    for name, value in public(importlib.import_module(PACKAGE)):
        if id(value) not in known:
            log.warning(f"`{name}` is public, but no API page documents it")


def resolve(name):
    """The object of a dotted name, or None; a module hides a function of its name."""
    value, path = importlib.import_module(PACKAGE), PACKAGE
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        value = sys.modules.get(path) or getattr(value, part, None)
    return value


def public(module):
    """Yields all public names of a module and of the modules that it names."""
    for name in getattr(module, "__all__", None) or defined(module):
        value = getattr(module, name)
        if inspect.ismodule(value):
            yield from public(value)
        else:
            yield f"{module.__name__}.{name}", value


def defined(module):
    """The classes that a module without `__all__` defines, and those of its functions
    whose docstrings describe their arguments."""
    for name, value in vars(module).items():
        is_own = getattr(value, "__module__", None) == module.__name__
        is_function = inspect.isfunction(value) and "Args:" in (value.__doc__ or "")
        if is_own and name[0] != "_" and (inspect.isclass(value) or is_function):
            yield name
