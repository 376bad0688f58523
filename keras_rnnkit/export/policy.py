"""The policies of exports, which choose the form of each loop in a TFLite file."""

import itertools
from types import SimpleNamespace

import tensorflow as tf

from keras_rnnkit.export.block_loop import run_in_blocks
from keras_rnnkit.export.loop_forms import obstacles, preferred_forms, run_fused
from keras_rnnkit.recurrence import Loop, Policy, unused, written_out

FORMS = "fused", "loop", "unrolled"
STATES = "all states"
EPSILON = 2.0**-22


class TFLitePolicy(Policy):
    """Chooses the form of each loop in a file for TFLite.

    Args:
        forms: "auto", a form of `FORMS`, or a dict of these by the names of layers.
        quantized: the `quantize` of `export_tflite`.

    Attributes:
        layers: dict of the form of each loop and the reason for it, by layer name.
        ranges: dict of the largest absolute input of each layer by layer name, and of
            the largest state of all layers under `STATES`; filled by `RangeRecorder`.
    """

    def __init__(self, forms, *, quantized=None):
        super().__init__(compiled=False)
        self.forms = forms
        self.quantized = quantized
        self.layers = {}
        self.ranges = {}

    def begin(self):
        super().begin()
        self.layers.clear()

    def loop_of(self, layer, sequences, states, mask):
        unavailable = obstacles(self, layer, sequences, states, mask)
        steps = sequences.shape[1]
        form = self._choose(
            layer.name, preferred_forms(self.quantized, layer.cell, steps), unavailable
        )
        largest = self.ranges.get(layer.name) or 1.0

        def fused(layer, sequences):
            return run_fused(layer, sequences, self.quantized, largest)

        return {
            "fused": Loop(layer=fused),
            "loop": Loop(run_in_blocks),
            "unrolled": Loop(written_out),
        }[form]

    def _choose(
        self, name: str, order: dict[str, str], obstacles: dict[str, str]
    ) -> str:
        """Chooses the form of a layer's loop.

        Args:
            name: of the layer.
            order: dict of forms, best first, with the reason for each.
            obstacles: dict of the forms that are unavailable, with the reason.
        """
        requested = self.forms if isinstance(self.forms, str) else self.forms.get(name)
        key = unused(name, self.layers)
        possible = [form for form in order if form not in obstacles]
        if requested in (None, "auto"):
            if not possible:
                reasons = "; ".join(f"{form}: {obstacles[form]}" for form in order)
                self.refusals.append(f"`{name}` has no form that is exact ({reasons})")
            form = (possible or ["loop"])[0]
            why = order.get(form, "")
        else:
            if requested in obstacles:
                self.refusals.append(
                    f"`{name}` cannot be {requested}: {obstacles[requested]}"
                )
            form, why = ("loop" if requested in obstacles else requested), "asked for"
        if "fused" in obstacles:
            why += f"; not fused: {obstacles['fused']}"
        self.layers[key] = {"form": form, "why": why}
        return form

    def step_of(self, step, params):
        """See `Policy`. TFLite's 16-bit quantizer gives a bias shared by several
        products the scale of the first one. So each step gets its own bias, which
        differs in the last bits: the converter would merge equal constants."""
        if self.quantized != "int16x8" or not hasattr(params, "bias"):
            return super().step_of(step, params)
        number = itertools.count()

        def run(z, states, noise):
            bias = params.bias * (1 + next(number) * EPSILON)
            return step(
                z, states, SimpleNamespace(**vars(params) | {"bias": bias}), noise
            )

        return run


class RangeRecorder(Policy):
    """Records the largest absolute values in eager calls.

    Args:
        ranges: dict to add to; see `TFLitePolicy`.
    """

    def __init__(self, ranges):
        super().__init__(compiled=False)
        self.ranges = ranges

    def loop_of(self, layer, sequences, states, mask):
        self._record(layer.name, sequences)
        return super().loop_of(layer, sequences, states, mask)

    def step_of(self, step, params):
        run_step = super().step_of(step, params)

        def run(z, states, noise):
            output, states = run_step(z, states, noise)
            for state in states:
                self._record(STATES, state)
            return output, states

        return run

    def _record(self, name, x):
        if not tf.is_symbolic_tensor(x):
            largest = float(tf.reduce_max(abs(x))) if tf.size(x) else 0.0
            self.ranges[name] = max(largest, self.ranges.get(name, 0.0))
