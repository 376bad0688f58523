"""From a .keras file to a file for the phone, without a line of Python.

python -m keras_rnnkit export model.keras model.tflite [--quantize int8 --data x.npy]
python -m keras_rnnkit inspect model.tflite
"""

import argparse
import os
import sys
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_rnnkit as rk
from keras_rnnkit.recurrence import FORMS


def main(arguments=None) -> int:
    """Runs a command; returns the exit code."""
    args = parser().parse_args(arguments)
    try:
        print(args.run(args))
    except (ValueError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parser():
    """The two commands and their options."""
    usage = argparse.ArgumentParser(
        prog="python -m keras_rnnkit", description=__doc__.splitlines()[0]
    )
    commands = usage.add_subparsers(required=True, metavar="command")

    export = commands.add_parser("export", help="write a TFLite file, proven right")
    export.set_defaults(run=run_export)
    export.add_argument("model", type=Path, help="a model saved by Keras")
    export.add_argument("path", type=Path, help="the file to write")
    export.add_argument("--quantize", choices=["dynamic", "float16", "int8", "int16x8"])
    export.add_argument(
        "--data",
        type=Path,
        help="inputs to calibrate and compare on: .npy, or .npz by the inputs' names",
    )
    export.add_argument(
        "--batch-size", type=size, default=1, metavar="N", help="a number, or any"
    )
    export.add_argument(
        "--time-steps", type=size, default="model", metavar="N", help="a number, or any"
    )
    export.add_argument("--form", choices=["auto", *FORMS], default="auto")
    export.add_argument(
        "--streaming", action="store_true", help="steps and states in, states out"
    )
    export.add_argument(
        "--unsafe", action="store_true", help="run the code in the file's Lambda layers"
    )

    inspect = commands.add_parser("inspect", help="show what stands in a TFLite file")
    inspect.set_defaults(run=lambda args: show(rk.inspect_tflite(args.path), args.json))
    inspect.add_argument("path", type=Path)
    for command in (export, inspect):
        command.add_argument("--json", action="store_true", help="print JSON")
    return usage


def size(text):
    """A number, None for "any", or "model"."""
    return {"any": None, "model": "model"}[text] if text.isalpha() else int(text)


def show(result, json):
    return result.to_json() if json else str(result)


def run_export(args):
    """Exports a model that Keras has saved."""
    data = None if args.data is None else load_data(args.data)
    report = rk.export_tflite(
        load_model(args.model, args.unsafe),
        args.path,
        batch_size=args.batch_size,
        time_steps=args.time_steps,
        quantize=args.quantize,
        representative_data=data,
        form=args.form,
        streaming=args.streaming,
    )
    return show(report, args.json)


def load_model(path, unsafe):
    """A model from a file, with an error that says what is wrong with the file."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file `{path}`")
    if path.suffix not in (".h5", ".hdf5") and not zipfile.is_zipfile(path):
        raise ValueError(f"`{path}` must be a model saved by Keras, a .keras file")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not unsafe)
    except (ValueError, TypeError, OSError, KeyError) as error:
        text = str(error)
        if "Lambda" in text and not unsafe:
            raise ValueError(
                f"`{path}` has a Lambda layer, whose code would be run: pass --unsafe "
                "if you trust the file"
            ) from error
        raise ValueError(f"Keras cannot load `{path}`: {text}") from error


def load_data(path):
    """An array, or arrays by name."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file `{path}`")
    try:
        with path.open("rb") as file:
            data = np.load(file)
            return dict(data) if isinstance(data, np.lib.npyio.NpzFile) else data
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"`{path}` must be an .npy or .npz file: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
