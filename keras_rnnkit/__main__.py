"""Converts a Keras model file to a TFLite file from the command line."""

import argparse
import importlib
import math
import os
import re
import sys
import warnings
import zipfile
import zlib
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import keras_rnnkit as rk

QUANTIZE = "dynamic", "float16", "int8", "int16x8"
FORMS = "auto", "fused", "loop", "unrolled"
MAX_CHARACTERS = 1000  # of an error: messages of Keras and the converter can be long
SCRIPT, MODULE = "rnnkit", "python -m keras_rnnkit"  # two ways to start it
EXAMPLES = """examples:
  {0} export model.keras model.tflite
  {0} export old.h5 model.tflite --batch-size any --time-steps any
  {0} export model.keras small.tflite --quantize int8 --data x.npy
  {0} export mine.keras model.tflite --import mycells
  {0} inspect model.tflite --json

exit codes: 0 done, 1 failed (nothing was written), 2 wrong arguments, 130 interrupted
"""


def main(arguments=None) -> int:
    """Runs a command; returns the exit code.

    Wrong arguments end the process with exit code 2, as `argparse` does.
    """
    args = parser().parse_args(arguments)
    # The package requires this backend; ~/.keras/keras.json may name another one.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with quiet(), redirect_stdout(sys.stderr):
            result = args.run(args)
            text = result.to_json() if args.json else str(result)
        show(text, sys.stdout)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        show(f"error: {one_line(error)}", sys.stderr)
        return 1
    return 0


def show(text, stream):
    """Prints text; characters that the stream cannot encode are escaped."""
    encoding = stream.encoding or "utf-8"
    encoded = text.encode(encoding, "backslashreplace")
    print(encoded.decode(encoding), file=stream, flush=True)


class Parser(argparse.ArgumentParser):
    """Reports errors in one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message} (--help shows the arguments)\n")


def parser():
    """Returns the parser of the two commands and their options."""
    prog = SCRIPT if Path(sys.argv[0]).stem == SCRIPT else MODULE
    usage = Parser(
        prog=prog,
        description=__doc__,
        epilog=EXAMPLES.format(prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"keras_rnnkit {rk.__version__}"
    usage.add_argument("--version", action="version", version=version)
    commands = usage.add_subparsers(required=True, metavar="command")
    export = commands.add_parser(
        "export",
        help="write a TFLite file and verify it",
        description="Writes a model as a TFLite file of builtin operations, runs it, "
        "and compares it with the model before it appears.",
    )
    export.set_defaults(run=run_export)
    add_files(export.add_argument)
    add_quantization(export.add_argument)
    add_sizes(export.add_argument)
    add_kinds(export.add_argument)
    add_own_code(export.add_argument)
    inspect = commands.add_parser(
        "inspect",
        help="show what is in a TFLite file",
        description="Shows size, inputs, outputs and operations of a TFLite file.",
    )
    inspect.set_defaults(run=lambda args: rk.inspect_tflite(args.path))
    inspect.add_argument("path", type=Path, help="the TFLite file")
    for command in (export, inspect):
        command.add_argument(
            "--json", action="store_true", help="print JSON instead of a table"
        )
    return usage


def add_files(add):
    """Adds the arguments for the files to read and write."""
    add("model", type=Path, help="a model saved by Keras 3 or 2: a .keras or .h5 file")
    add("path", type=Path, help="the TFLite file to write")


def add_quantization(add):
    """Adds the options for quantization and verification."""
    add(
        "--quantize",
        choices=QUANTIZE,
        help="dynamic: weights in 8 bits; float16: weights in 16 bits; int8: all in 8 "
        "bits; int16x8: weights in 8 bits, values in 16; default: 32 bits",
    )
    add(
        "--data",
        type=Path,
        metavar="FILE",
        help="inputs to calibrate and compare on: .npy, or .npz by input name",
    )
    add(
        "--check",
        type=Path,
        metavar="FILE",
        help="inputs to compare on, in the same format; default: --data, or random",
    )
    add(
        "--tolerance",
        type=tolerance,
        metavar="X",
        help="the largest difference to the model, relative to its outputs; default: "
        "1e-5, more if quantized",
    )


def add_sizes(add):
    """Adds the options for the shapes of a call."""
    add(
        "--batch-size",
        type=size,
        default=1,
        metavar="N",
        help="rows in a call: a number >= 1, or any; default: 1",
    )
    add(
        "--time-steps",
        type=steps,
        default="model",
        metavar="N",
        help="steps in a call: a number >= 1, or any; default: those of the model's "
        "input",
    )


def add_kinds(add):
    """Adds the options for the form of loops and the kind of file."""
    add(
        "--form",
        choices=FORMS,
        default="auto",
        help="how recurrent layers are written: one operation of TFLite (LSTM), a "
        "loop, or unrolled; default: the fastest that is exact",
    )
    kind = "write a file that"
    add("--streaming", action="store_true", help=f"{kind} takes a stream step by step")
    add("--forecast", type=count, metavar="N", help=f"{kind} continues series N steps")
    answer = "maximum number of tokens of a Seq2Seq answer"
    add("--max-length", type=count, metavar="N", help=answer)


def add_own_code(add):
    """Adds the options for code of your own."""
    add(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="import a module, also from this folder, that registers your layers and "
        "cells; may be repeated",
    )
    add(
        "--unsafe", action="store_true", help="run the code in the file's Lambda layers"
    )


def size(text):
    """Parses a number, or "any" as None."""
    return None if text == "any" else number(text, "a number >= 1, or any")


def steps(text):
    """Parses a number, "any" as None, or the default."""
    return text if text == "model" else size(text)


def count(text):
    """Parses a number of at least 1."""
    return number(text, "a number >= 1")


def number(text, rule):
    """Parses an integer in the range of sizes in a TFLite file."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:11]) < 2**31):
        raise argparse.ArgumentTypeError(f"must be {rule}; received {text!r}")
    return int(text)


def tolerance(text):
    """Parses a positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number > 0; received {text!r}")
    return value


def run_export(args):
    """Exports a model file; returns the report."""
    if args.quantize in ("int8", "int16x8") and args.data is None:
        raise ValueError(
            f"`quantize={args.quantize!r}` needs `representative_data`, inputs to "
            "measure the ranges of values on: give them with --data FILE"
        )
    for given in args.model, args.data, args.check:
        if given and given.exists() and given.resolve() == args.path.resolve():
            raise ValueError(
                f"the file to write must differ from the files to read; "
                f"received `{args.path}`"
            )
    rk.export.check_target(args.path)
    data = args.data and load_data(args.data)
    check = load_data(args.check) if args.check else True
    for name in args.modules:
        import_module(name)
    return rk.export_tflite(
        rk.load_model(args.model, unsafe=args.unsafe),
        args.path,
        batch_size=args.batch_size,
        time_steps=args.time_steps,
        quantize=args.quantize,
        representative_data=data,
        form=args.form,
        streaming=args.streaming,
        forecast=args.forecast,
        max_length=args.max_length,
        check=check,
        tolerance=args.tolerance,
    )


def import_module(name):
    """Imports a module, also from the current folder."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"`--import` must name a module that can be imported; received {name!r}: "
            f"{type(error).__name__}: {error}"
        ) from error


def load_data(path):
    """Loads an array, or a dict of arrays by name."""
    import numpy as np

    if not path.exists():
        raise FileNotFoundError(f"there is no file `{path}`")
    if path.is_dir():
        raise ValueError(f"`{path}` must be an .npy or .npz file; received a folder")
    try:
        with path.open("rb") as file:
            data = np.load(file)
            data = dict(data) if isinstance(data, np.lib.npyio.NpzFile) else data
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        objects = "allow_pickle" in str(error)
        raise ValueError(
            f"`{path}` must be an .npy or .npz file of numbers; received "
            f"{'Python objects, or another format' if objects else error}"
        ) from error
    for name, x in data.items() if isinstance(data, dict) else [(None, data)]:
        subject = f"`{path}`" if name is None else f"`{name}` in `{path}`"
        if x.dtype.kind not in "fiub":
            raise ValueError(f"{subject} must hold numbers; received {x.dtype}")
        if not np.isfinite(x).all():
            raise ValueError(f"{subject} must be finite; received values that are not")
    return data


def one_line(error) -> str:
    """Returns the message of an error in one line."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: `{error.filename}`"
    else:
        text = str(error) or "no reason given"
    known = isinstance(error, (ValueError, RuntimeError, OSError))
    text = text if known else f"{type(error).__name__}: {text}"
    line = " ".join(re.sub(r"\x1b\[[\d;]*m", "", text).split())
    return line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]} ..."


@contextmanager
def quiet():
    """Hides warnings, and the log that TensorFlow writes to the file descriptor.

    The log is shown if TF_CPP_MIN_LOG_LEVEL is below 3 in the environment.
    """
    hidden = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3"
    stream = sys.stderr
    try:
        hidden = hidden and stream.fileno() == 2
    except (AttributeError, OSError):  # there is no stderr, or it is not a file
        hidden = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not hidden:
            yield
            return
        stream.flush()
        saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        with os.fdopen(saved, "w", buffering=1, errors=stream.errors) as sys.stderr:
            try:
                yield
            finally:
                sys.stderr.flush()
                os.dup2(saved, 2)
                sys.stderr = stream


if __name__ == "__main__":
    sys.exit(main())
