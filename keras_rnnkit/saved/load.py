"""Loads a model from a file, or says what the file is instead."""

import json
import os
import re
import shutil
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras

from keras_rnnkit.saved.keras2 import convert_config
from keras_rnnkit.saved.weights import load_hdf5, load_variables

HDF5 = b"\x89HDF\r\n\x1a\n"
TFLITE = b"TFL3"
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
MAX_CHARACTERS = 300  # quoted from an error of Keras


def load_model(
    path: str | os.PathLike[str],
    custom_objects: dict[str, Any] | None = None,
    unsafe: bool = False,
) -> keras.Model:
    """Loads a model that was saved by Keras 3 or Keras 2, uncompiled.

    Files of Keras 2, `.h5` and `.keras`, become models of Keras 3 with the same
    outputs. This converts `hard_sigmoid`, `GRU` layers without `reset_after`, and the
    weights of `CuDNNLSTM` and `CuDNNGRU`.

    Args:
        path: str or path-like, the file. Its format is detected from the content, not
            from the suffix.
        custom_objects: dict of classes and functions by their names in the file, in
            addition to registered ones. Default: None.
        unsafe: bool, whether to run the code in `Lambda` layers of the file.
            Default: False.

    Returns:
        A model of stock Keras.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a model, or the model cannot be loaded, with the
            layer and the reason.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    keras.Sequential([keras.Input((8, 3)), rk.GRU(4)]).save("model.keras")
    print(rk.load_model("model.keras").output_shape)  # (None, 4)
    ```
    """
    path = Path(path)
    custom_objects = dict(custom_objects or {})
    if not path.exists():
        raise FileNotFoundError(f"there is no file `{path}`")
    load = _load_zip if _kind(path) == "zip" else _load_hdf5
    try:
        return load(path, custom_objects, unsafe)
    except (ValueError, TypeError, OSError, KeyError, AttributeError) as error:
        raise ValueError(f"Keras cannot load `{path}`: {_reason(error)}") from error


def _kind(path):
    """Returns "zip" or "hdf5"; raises `ValueError` for other formats."""
    wanted = f"`{path}` must be a model saved by Keras, a .keras or .h5 file"
    if (path / "saved_model.pb").exists():
        raise ValueError(
            f"{wanted}; received a SavedModel, which has no layers: save the model as "
            ".keras where it was built (one of Keras 2: load it with the package "
            "tf_keras and save it as .h5)"
        )
    if path.is_dir():
        raise ValueError(f"{wanted}; received a folder")
    with path.open("rb") as file:
        head = file.read(8)
    if head == HDF5:
        return "hdf5"
    if zipfile.is_zipfile(path):
        return "zip"
    if not head:
        raise ValueError(f"{wanted}; received an empty file")
    if head[4:] == TFLITE:
        raise ValueError(
            f"{wanted}; received a TFLite file, which has no layers: take the file "
            "that it was exported from"
        )
    if path.suffix in (".h5", ".hdf5", ".keras"):
        raise ValueError(
            f"Keras cannot load `{path}`: it is damaged, or not a Keras file; it "
            f"begins with {head!r}"
        )
    raise ValueError(f"{wanted}; received one that begins with {head!r}")


def _load_zip(path, custom_objects, unsafe):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if CONFIG not in names:
            raise ValueError(f"the archive has no `{CONFIG}`; it holds {names[:5]}")
        version = json.loads(archive.read(METADATA))["keras_version"]
        if not _is_keras2(version):
            with _with_suffix(path, ".keras") as named:
                return _load_keras3(named, custom_objects, unsafe)
        config = json.loads(archive.read(CONFIG))
        model = _build(config, custom_objects, unsafe)
        with archive.open(WEIGHTS) as file, h5py.File(file, "r") as group:
            load_variables(model, config, group)
        return model


def _load_hdf5(path, custom_objects, unsafe):
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError(
                "it holds weights without a model: build the model, call "
                "`model.load_weights` with this file, and save it as .keras"
            )
        config = json.loads(file.attrs["model_config"])
        version = file.attrs.get("keras_version", "2")
        version = version.decode() if isinstance(version, bytes) else version
        if _is_keras2(version):
            model = _build(config, custom_objects, unsafe)
            load_hdf5(model, config, file["model_weights"])
            return model
    with _with_suffix(path, ".h5", ".hdf5") as named:
        return _load_keras3(named, custom_objects, unsafe)


def _is_keras2(version):
    """Returns whether a version is of Keras 2; raises `ValueError` for Keras 1."""
    if version.startswith("1"):
        raise ValueError(
            f"it is a file of Keras {version}: load it with Keras 2.2, save it there, "
            "and take that file"
        )
    return version.startswith("2")


def _build(config, custom_objects, unsafe):
    """Builds a model from a configuration of Keras 2."""
    return keras.saving.deserialize_keras_object(
        convert_config(config, custom_objects), custom_objects, safe_mode=not unsafe
    )


def _load_keras3(path, custom_objects, unsafe):
    return keras.models.load_model(
        path, custom_objects=custom_objects, compile=False, safe_mode=not unsafe
    )


@contextmanager
def _with_suffix(path, *suffixes):
    """Yields a path to the file with a suffix that Keras recognizes."""
    if path.suffix in suffixes:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"model{suffixes[0]}"
        shutil.copyfile(path, copy)
        yield copy


def _reason(error) -> str:
    """Returns the message of an error of Keras as a sentence with a remedy."""
    text = str(error)
    if "safe_mode" in text:  # named in Keras's message
        return (
            "it has a Lambda layer, whose code would be run: pass --unsafe "
            "(`unsafe=True` in Python) if you trust the file"
        )
    unknown = re.search(
        r"(?:Could not locate (?:class|function)|Unknown \w+:) '(\w+)'", text
    )
    if unknown:
        return (
            f"it has a `{unknown[1]}` that Keras does not know: import the module that "
            "registers it (--import MODULE), or give it in `custom_objects`"
        )
    return " ".join(text.split())[:MAX_CHARACTERS]
