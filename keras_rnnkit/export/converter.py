"""From a SavedModel to TFLite, in a process of its own.

TFLite's converter can end the process in which it runs, without an exception: while it
calibrates a loop, for one. Its interpreter can, with a file that it has no kernels for.
So both run in a child first, which this file is the program of. The child needs nothing
of this package, and nothing of Keras.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

NOISE = "fully_quantize: "  # what the converter says of each conversion
IDLE_SECONDS = 120  # after which the child ends; the next conversion starts another one


class Converter:
    """The child, started when it is asked for and kept for the next conversion."""

    def __init__(self):
        self._lock = threading.Lock()
        self._child = None
        self._log = None

    def start(self):
        """Starts the child if there is none; it needs some seconds to be ready."""
        with self._lock:
            self._start()

    def convert(self, **request):
        """Has the child do `convert`, below, with these arguments.

        Raises:
            ValueError: TFLite's converter refused the model.
            RuntimeError: it ended the process.
        """
        self._have("convert", request)

    def attempt(self, path: str):
        """Has the child do `attempt`, below; raises as `convert`."""
        self._have("attempt", {"path": path})

    def _have(self, work, request):
        with self._lock:
            answer = self._ask([work, request])
            if not answer and self._child.wait() == 0:  # It had just left, being idle.
                answer = self._ask([work, request])
            if not answer:
                raise RuntimeError(
                    f"TFLite, asked to {work} a file, {self._obituary()}"
                )
            if error := json.loads(answer):
                raise ValueError(f"{error} {self._said()}".rstrip())

    def _ask(self, request):
        """Returns the child's answer, or an empty string if it has ended."""
        self._start()
        self._heard = os.fstat(self._log.fileno()).st_size
        try:
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
            return self._child.stdout.readline()
        except BrokenPipeError:
            return ""
        except BaseException:  # an interrupt: the answer would be the next one's
            self._stop()
            raise

    def _start(self):
        if self._child and self._child.poll() is None:
            return
        self._stop()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, it lives with the child
        self._child = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ
            | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        atexit.register(self._stop)

    def _said(self) -> str:
        """The errors that TFLite has printed since the last request: an exception of
        the quantizer has no text of its own."""
        size = os.fstat(self._log.fileno()).st_size - self._heard
        printed = os.pread(self._log.fileno(), size, self._heard)
        lines = printed.decode(errors="replace").splitlines()
        return " ".join(x for x in lines if x.startswith("loc(") and ": error: " in x)

    def _obituary(self):
        code = self._child.wait()
        self._log.seek(0)
        said = [line for line in self._log.read().split("\n") if line.strip()]
        last = next((line for line in said[::-1] if not line.startswith(NOISE)), "")
        self._stop()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"ended its process ({how}): nothing was written. {last}".rstrip()

    def _stop(self):
        child, self._child = self._child, None
        if child:
            atexit.unregister(self._stop)
            child.kill()
            child.wait()
            child.stdin.close()
            child.stdout.close()
            self._log.close()


CONVERTER = Converter()


def convert(saved, signatures, quantize, data, path):
    """Writes a SavedModel as a TFLite file.

    Args:
        saved: its folder.
        signatures: list of the names of its signatures.
        quantize: None, "dynamic", "float16", "int8" or "int16x8".
        data: an `.npz` file with `name:number`, the inputs of the first signature to
            calibrate on, or None.
        path: the file to write.
    """
    import numpy as np
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        saved, signature_keys=signatures
    )
    if quantize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    ops = {
        "int8": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8],
        # What has no operation for 16 bits computes in float.
        "int16x8": [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            tf.lite.OpsSet.TFLITE_BUILTINS,
        ],
    }
    if quantize == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    if quantize in ops:
        converter.target_spec.supported_ops = ops[quantize]
        samples = {}
        for key, value in np.load(data).items():
            name, number = key.rsplit(":", 1)
            samples.setdefault(int(number), {})[name] = value
        converter.representative_dataset = lambda: iter(samples.values())
    Path(path).write_bytes(converter.convert())


def attempt(path):
    """Runs each signature of a file on zeros, as small as may be."""
    from ai_edge_litert.interpreter import Interpreter
    from numpy import maximum, zeros

    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    for name in interpreter.get_signature_list():
        run = interpreter.get_signature_runner(name)
        inputs = run.get_input_details().items()
        # An exception does not matter: real data, and the caller's proof, come later.
        with suppress(ValueError, RuntimeError):
            run(
                **{
                    name: zeros(maximum(each["shape_signature"], 1), each["dtype"])
                    for name, each in inputs
                }
            )


def serve():
    """Answers requests, one a line, with the error of each or null."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what others print must not stand between the answers
    import tensorflow  # noqa: F401, made ready before the first request

    while True:
        idle = threading.Timer(IDLE_SECONDS, os._exit, [0])
        idle.daemon = True
        idle.start()
        line = sys.stdin.readline()
        idle.cancel()
        if not line:
            return
        try:
            work, request = json.loads(line)
            error = {"convert": convert, "attempt": attempt}[work](**request)
        except Exception as exception:
            error = f"{type(exception).__name__}: {exception}"
        print(json.dumps(error), file=answers, flush=True)


if __name__ == "__main__":
    here = Path(__file__).parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    serve()
