"""The policies of exports: which form each loop has in a file for TFLite, and why."""

import itertools
from types import SimpleNamespace

import tensorflow as tf

from keras_rnnkit.export.block_loop import in_blocks
from keras_rnnkit.export.loop_forms import obstacles, order, run_fused
from keras_rnnkit.recurrence import Loop, Policy, unused, written_out

FORMS = "fused", "loop", "unrolled"
STATES = "all states"
EPSILON = 2.0**-22


class TFLitePolicy(Policy):
    """Chooses the form of each loop in a file for TFLite.

    Args:
        forms: "auto", a form of `FORMS`, or a dict of these by the names of layers.
        quantized: how values are to be quantized, as in `export_tflite`, or None.

    Attributes:
        layers: dict of what each loop became and why, by the name of the layer.
        ranges: dict of the largest absolute input of each layer, by its name, and under
            `STATES` of the largest state of all; empty until they are measured, see
            `Measuring`.
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
        against = obstacles(self, layer, sequences, states, mask)
        steps = sequences.shape[1]
        form = self._choose(
            layer.name, order(self.quantized, layer.cell, steps), against
        )
        largest = self.ranges.get(layer.name) or 1.0

        def fused(layer, sequences):
            return run_fused(layer, sequences, self.quantized, largest)

        return {
            "fused": Loop(layer=fused),
            "loop": Loop(in_blocks),
            "unrolled": Loop(written_out),
        }[form]

    def _choose(
        self, name: str, order: dict[str, str], obstacles: dict[str, str]
    ) -> str:
        """Chooses the form of a layer's loop.

        Args:
            name: of the layer.
            order: the forms, the best first, and why each would be taken.
            obstacles: why a form cannot be had, for those that cannot.
        """
        asked = self.forms if isinstance(self.forms, str) else self.forms.get(name)
        key = unused(name, self.layers)
        possible = [form for form in order if form not in obstacles]
        if asked in (None, "auto"):
            if not possible:
                reasons = "; ".join(f"{form}: {obstacles[form]}" for form in order)
                self.refusals.append(f"`{name}` has no form that is exact ({reasons})")
            form = (possible or ["loop"])[0]
            why = order.get(form, "")
        else:
            if asked in obstacles:
                self.refusals.append(f"`{name}` cannot be {asked}: {obstacles[asked]}")
            form, why = ("loop" if asked in obstacles else asked), "asked for"
        if "fused" in obstacles:
            why += f"; not fused: {obstacles['fused']}"
        self.layers[key] = {"form": form, "why": why}
        return form

    def step_of(self, step, k):
        """See `Policy`. TFLite's quantizer for 16 bits gives a bias that several
        products share the scale of the first of them. So there each step has a bias of
        its own, which differs in the last bits, or the converter would see that it is
        the same."""
        if self.quantized != "int16x8" or not hasattr(k, "bias"):
            return super().step_of(step, k)
        number = itertools.count()

        def run(z, states, noise):
            bias = k.bias * (1 + next(number) * EPSILON)
            return step(z, states, SimpleNamespace(**vars(k) | {"bias": bias}), noise)

        return run


class Measuring(Policy):
    """Measures ranges in eager calls: the largest absolute values.

    Args:
        ranges: dict to add to; see `TFLitePolicy`.
    """

    def __init__(self, ranges):
        super().__init__(compiled=False)
        self.ranges = ranges

    def loop_of(self, layer, sequences, states, mask):
        self._see(layer.name, sequences)
        return super().loop_of(layer, sequences, states, mask)

    def step_of(self, step, k):
        run_step = super().step_of(step, k)

        def run(z, states, noise):
            output, states = run_step(z, states, noise)
            for state in states:
                self._see(STATES, state)
            return output, states

        return run

    def _see(self, name, x):
        if not tf.is_symbolic_tensor(x):
            largest = float(tf.reduce_max(abs(x))) if tf.size(x) else 0.0
            self.ranges[name] = max(largest, self.ranges.get(name, 0.0))
