"""Converts a SavedModel to TFLite in a child process.

TFLite's converter can crash its process, for example while it calibrates a loop. So can
its interpreter, with a file that it has no kernels for. So both run in a child process
first, whose program is this file. It imports neither this package nor Keras.
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

PROGRESS = "fully_quantize: "  # begins a line that is printed at each conversion
IDLE_SECONDS = 120  # after which the child exits; the next conversion starts a new one


class Converter:
    """Manages the child process, which is kept for the next conversion."""

    def __init__(self):
        self._lock = threading.Lock()
        self._child = None
        self._log = None

    def start(self):
        """Starts the child unless it runs; it needs some seconds to be ready."""
        with self._lock:
            self._start()

    def convert(self, **request):
        """Runs `convert`, below, in the child.

        Raises:
            ValueError: TFLite's converter rejected the model.
            RuntimeError: it crashed the process.
        """
        self._request("convert", request)

    def run(self, path: str):
        """Runs `run`, below, in the child; raises as `convert`."""
        self._request("run", {"path": path})

    def _request(self, work, request):
        with self._lock:
            answer = self._ask([work, request])
            if not answer and self._child.wait() == 0:  # It was idle and exited.
                answer = self._ask([work, request])
            if not answer:
                raise RuntimeError(
                    f"TFLite, asked to {work} a file, {self._exit_message()}"
                )
            if error := json.loads(answer):
                raise ValueError(f"{error} {self._logged_errors()}".rstrip())

    def _ask(self, request):
        """Returns the child's answer, or an empty string if it has exited."""
        self._start()
        self._log_start = os.fstat(self._log.fileno()).st_size
        try:
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
            return self._child.stdout.readline()
        except BrokenPipeError:
            return ""
        except BaseException:  # an interrupt: the next request would get this answer
            self._stop()
            raise

    def _start(self):
        if self._child and self._child.poll() is None:
            return
        self._stop()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the child
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

    def _logged_errors(self) -> str:
        """Returns the errors that TFLite has printed since the last request; exceptions
        of the quantizer have no message."""
        size = os.fstat(self._log.fileno()).st_size - self._log_start
        printed = os.pread(self._log.fileno(), size, self._log_start)
        lines = printed.decode(errors="replace").splitlines()
        return " ".join(x for x in lines if x.startswith("loc(") and ": error: " in x)

    def _exit_message(self):
        code = self._child.wait()
        self._log.seek(0)
        lines = [line for line in self._log.read().split("\n") if line.strip()]
        last = next((x for x in lines[::-1] if not x.startswith(PROGRESS)), "")
        self._stop()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"ended its process ({cause}): nothing was written. {last}".rstrip()

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
        saved: str, its folder.
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
        # Operations without a 16-bit kernel compute in float.
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


def run(path):
    """Runs each signature of a file on zeros of the smallest shape."""
    from ai_edge_litert.interpreter import Interpreter
    from numpy import maximum, zeros

    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    for name in interpreter.get_signature_list():
        runner = interpreter.get_signature_runner(name)
        inputs = runner.get_input_details().items()
        # Exceptions do not matter here: the caller verifies the file on real data.
        with suppress(ValueError, RuntimeError):
            runner(
                **{
                    name: zeros(maximum(each["shape_signature"], 1), each["dtype"])
                    for name, each in inputs
                }
            )


def serve():
    """Answers each request, a line of JSON, with its error or null."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that nothing else is printed between the answers
    import tensorflow  # noqa: F401, loaded before the first request

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
            error = {"convert": convert, "run": run}[work](**request)
        except Exception as exception:
            error = f"{type(exception).__name__}: {exception}"
        print(json.dumps(error), file=answers, flush=True)


if __name__ == "__main__":
    here = Path(__file__).parent
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != here]
    serve()
