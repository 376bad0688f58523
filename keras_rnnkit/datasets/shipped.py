"""Data files that other packages ship."""

from importlib.util import find_spec
from pathlib import Path


def shipped_file(loader: str, package: str, *parts: str) -> Path:
    """Returns the path of a file in a package, without importing the package.

    Args:
        loader: the name of the function that needs the file, for the error message.
        package: the name of the package.
        *parts: the path of the file within the package.

    Raises:
        ImportError: the package is not installed.
    """
    spec = find_spec(package)
    if spec is None:
        raise ImportError(
            f"`{loader}` needs the package `{package}`, which ships the data: "
            "pip install 'keras_rnnkit[datasets]'"
        )
    return Path(spec.origin).parent.joinpath(*parts)
