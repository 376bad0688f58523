"""The converter's own process: when it breaks, this one hears why and goes on."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_rnnkit as rk
from keras_rnnkit.export import converter
from keras_rnnkit.export.converter import CONVERTER, Converter
from keras_rnnkit.export.policy import TFLitePolicy
from keras_rnnkit.export.saved_model import (
    SIGNATURE,
    call_by_name,
    input_signature,
    write_saved_model,
)
from tests.helpers import assert_close

ROOT = Path(__file__).parents[2]
WORK = "    import numpy as np\n"  # the first line of the child's work


@pytest.fixture
def request_of(tmp_path):
    """What to ask a converter for: a GRU with a `WHILE` loop."""
    model = keras.Sequential([keras.Input((5, 2), name="x"), rk.GRU(3)])
    endpoint = lambda x: call_by_name(model, x=x), input_signature(model, 1)
    write_saved_model(tmp_path / "saved", {SIGNATURE: endpoint}, TFLitePolicy("loop"))
    np.savez(tmp_path / "data.npz", **{"x:0": np.ones((1, 5, 2), "float32")})
    return {
        "saved": str(tmp_path / "saved"),
        "signatures": [SIGNATURE],
        "quantize": None,
        "data": str(tmp_path / "data.npz"),
        "path": str(tmp_path / "m.tflite"),
    }


def assert_converts(child, request):
    """A conversion succeeds, and its file gives the answers of the SavedModel."""
    child.convert(**request)
    run = tf.saved_model.load(request["saved"]).signatures[SIGNATURE]
    x = np.ones((1, 5, 2), "float32")
    got = rk.TFLiteModel(request["path"])(x=x)
    assert_close(got["output_0"], run(x=tf.constant(x))["output_0"])


@pytest.fixture
def changed_program(monkeypatch, tmp_path):
    """Has the next child run a program with some text replaced."""

    def change(old, new):
        text = Path(converter.__file__).read_text()
        assert text.count(old) == 1
        (tmp_path / "program.py").write_text(text.replace(old, new))
        monkeypatch.setattr(converter, "__file__", str(tmp_path / "program.py"))

    return change


@pytest.fixture
def own_converter():
    """A converter whose child no other test has."""
    own = Converter()
    yield own
    own._stop()


def test_a_crash_is_an_error_with_the_signals_name(request_of):
    # TFLite's converter does not survive the calibration of a loop.
    with pytest.raises(RuntimeError, match=r"ended its process \(SIG(SEGV|ABRT)\)"):
        CONVERTER.convert(**request_of | {"quantize": "int8"})
    assert not Path(request_of["path"]).exists()
    assert_converts(CONVERTER, request_of)


@pytest.mark.parametrize(
    ("death", "told"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
    ],
)
def test_a_child_that_ends_at_work_is_an_error_with_its_last_words(
    death, told, request_of, own_converter, changed_program
):
    changed_program(WORK, f'    os.write(2, b"that is all")\n    {death}\n')
    with pytest.raises(RuntimeError, match=rf"process \({told}\).* that is all$"):
        own_converter.convert(**request_of)


def test_after_an_interrupt_the_next_answer_is_that_of_the_next_request(
    request_of, own_converter, changed_program, monkeypatch
):
    changed_program(WORK, f"    os.kill(os.getppid(), signal.SIGINT)\n{WORK}")
    # A program that was started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            own_converter.convert(**request_of | {"saved": "none"})
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    assert_converts(own_converter, request_of)


def test_a_child_that_left_when_idle_is_replaced(
    request_of, own_converter, changed_program
):
    changed_program("IDLE_SECONDS = 120", "IDLE_SECONDS = 0.5")
    own_converter.start()
    assert own_converter._child.wait(60) == 0
    assert_converts(own_converter, request_of)


def test_a_child_that_leaves_just_now_is_replaced(request_of, own_converter):
    own_converter.start()
    first = own_converter._child
    # Its input ends, and the request goes nowhere, while it is still there.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), first.stdin.fileno())
    assert first.poll() is None
    assert_converts(own_converter, request_of)
    assert first.returncode == 0


def test_a_path_is_that_of_the_program_not_of_the_child(
    request_of, monkeypatch, tmp_path
):
    assert_converts(CONVERTER, request_of)  # The child is there, somewhere else.
    (tmp_path / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "deeper")
    model = keras.Sequential([keras.Input((5, 2)), rk.GRU(3)])
    rk.export_tflite(model, "m.tflite")
    assert [x.name for x in (tmp_path / "deeper").iterdir()] == ["m.tflite"]


def test_noise_does_not_stand_between_the_answers(
    request_of, own_converter, changed_program
):
    noise = """
    print("noise", flush=True)
    os.write(1, b"more noise\\n")
    os.system("echo and more")
"""
    changed_program(WORK, noise + WORK)
    for _ in range(2):
        assert_converts(own_converter, request_of)
    with pytest.raises(ValueError, match="none"):
        own_converter.convert(**request_of | {"saved": "none"})


class Odd(keras.layers.Layer):
    """A layer with an operation that TFLite lacks."""

    def call(self, x):
        return tf.math.betainc(0.5, 0.5, tf.sigmoid(x))


@pytest.mark.parametrize("nested", [False, True])
def test_an_operation_that_tflite_lacks_is_an_error_with_the_layers_name(
    nested, tmp_path
):
    layers = [keras.layers.Dense(2, name="fine"), Odd(name="odd_one")]
    layers = [keras.Sequential(layers)] if nested else layers
    model = keras.Sequential([keras.Input((5, 2)), *layers, rk.GRU(3, name="gru")])
    with pytest.raises(ValueError, match="no builtin operations for [^:]*`odd_one` of"):
        rk.export_tflite(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_child_outlives_the_program(end, tmp_path):
    program = f"""
import os, signal
import keras, keras_rnnkit as rk
from keras_rnnkit.export.converter import CONVERTER
model = keras.Sequential([keras.Input((5, 2)), rk.GRU(3)])
rk.export_tflite(model, "m.tflite")
print(CONVERTER._child.pid, flush=True)
{end}
"""
    out = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert out.returncode == (-signal.SIGKILL if end else 0), out.stderr
    assert (tmp_path / "m.tflite").exists()
    assert ends(int(out.stdout.split()[-1]))


def ends(pid):
    """Whether a process ends within a minute, if it has not yet."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 60)[0])
    finally:
        os.close(process)
