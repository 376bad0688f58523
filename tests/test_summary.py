"""What results print: a line each, with shapes in place of arrays."""

import numpy as np
import pytest

import keras_rnnkit as rk
from keras_rnnkit.datasets.japanese_vowels import Sequences
from keras_rnnkit.datasets.sentences import Pairs
from keras_rnnkit.reservoir import measure_results

RAMP = np.linspace(0, 1, 300)
PRINTED = {
    "one ridge": (
        rk.Readout(1e-6, {}, 2000.0),
        "Readout(ridge=1e-06, errors={}, count=2000)",
    ),
    "ridges": (
        rk.Readout([0.1, 1.0], {0.1: 1 / 3, 1.0: 2 / 3}, 7.0),
        "Readout(ridge=[0.1, 1], errors={0.1: 0.3333, 1: 0.6667}, count=7)",
    ),
    "many": (
        rk.Readout([0.1] * 30, {10.0**n: n / 9 for n in range(8)}, 7.0),
        "Readout(ridge=[0.1, 0.1, 0.1, 0.1, 0.1, ... 30 in all], errors={1: 0, "
        "10: 0.1111, 100: 0.2222, 1000: 0.3333, 1e+04: 0.4444, ... 8 in all}, count=7)",
    ),
    "capacity": (
        measure_results.MemoryCapacity(12.3456, RAMP, 100),
        "MemoryCapacity(total=12.35, by_delay=<float64 array of shape (300,) from 0 to "
        "1>, bound=100)",
    ),
    "spectrum": (
        measure_results.Spectrum(0.9, RAMP.astype(complex)),
        "Spectrum(radius=0.9, eigenvalues=<complex128 array of shape (300,)>)",
    ),
    "echo states": (
        measure_results.EchoState(True, RAMP[:0]),
        "EchoState(holds=True, distances=<float64 array of shape (0,)>)",
    ),
    "vowels": (
        Sequences(np.ones((2, 3), "float32"), np.arange(2), np.zeros(2, "int32")),
        "Sequences(x=<float32 array of shape (2, 3) from 1 to 1>, lengths=<int64 array "
        "of shape (2,) from 0 to 1>, y=<int32 array of shape (2,) from 0 to 0>)",
    ),
    "pairs": (
        Pairs(["a"] * 9, ["b"]),
        "Pairs(sources=['a', 'a', 'a', 'a', 'a', ... 9 in all], targets=['b'])",
    ),
}


@pytest.mark.parametrize(("result", "text"), PRINTED.values(), ids=PRINTED)
def test_a_result_prints_a_line(result, text):
    assert str(result) == repr(result) == text


def test_measures_print_a_line_each():
    layer = rk.ESN(30, seed=1)
    for measure in (
        rk.reservoir.measures.effective_spectral_radius,
        rk.reservoir.measures.lyapunov_exponent,
        rk.reservoir.measures.kernel_rank,
        rk.reservoir.measures.echo_state,
    ):
        found = measure(layer)
        assert str(found).startswith(f"{type(found).__name__}(")
        assert len(str(found)) < 150
        assert "\n" not in str(found)
