"""A model of other types than float32, traced in float32."""

from contextlib import contextmanager

import keras

from keras_rnnkit.arguments import PACKAGE
from keras_rnnkit.internals import all_layers

OTHERS = "float16", "bfloat16", "float64"


@keras.saving.register_keras_serializable(PACKAGE)
class ComputesInFloat32(keras.DTypePolicy):
    """The policy of a layer whose weights have another type: Keras casts them where
    they are used."""

    compute_dtype = "float32"


@contextmanager
def in_float32(model):
    """Has all layers of a model compute in float32, whatever they were built with.

    Weights are cast, and those that Keras has quantized are scaled back. What Keras
    keeps in attributes that have no public name is put back at the end, untouched.
    """
    kept = [(layer, dict(changes(layer))) for layer in all_layers(model)]
    kept = [(layer, new) for layer, new in kept if new]
    before = [
        {name: vars(layer)[name] for name in new if name in vars(layer)}
        for layer, new in kept
    ]
    try:
        for layer, new in kept:
            vars(layer).update(new)
        yield
    finally:
        for (layer, new), old in zip(kept, before, strict=True):
            for name in new:
                del vars(layer)[name]
            vars(layer).update(old)


def changes(layer):
    """Yields the attributes of a layer that are to be others, and their values."""
    mode = layer.dtype_policy.quantization_mode
    if mode in ("int4", "gptq", "awq"):
        raise ValueError(
            f"`{layer.name}` must have weights in 8 bits or in float to be exported to "
            f"TFLite; received a layer quantized with {mode!r}: export the model "
            "before `quantize`, or quantize it with 'int8'"
        )
    if mode == "int8":
        # Its weights in 8 bits times inputs in float, which it would quantize too.
        policy = keras.dtype_policies.QuantizedDTypePolicy("int8", "float32")
        yield "_dtype_policy", policy
        if hasattr(layer, "inputs_quantizer"):
            yield "inputs_quantizer", None
    elif mode or layer.compute_dtype in OTHERS:
        yield "_dtype_policy", ComputesInFloat32(layer.variable_dtype)
    if hasattr(layer, "_convert_inputs_to_tensors") and any(
        x.dtype in OTHERS for x in layer.inputs
    ):
        yield "_convert_inputs_to_tensors", lambda inputs: inputs
