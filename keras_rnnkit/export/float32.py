"""Traces models of other dtypes in float32."""

from contextlib import contextmanager

import keras

from keras_rnnkit.arguments import PACKAGE
from keras_rnnkit.internals import all_layers

OTHER_DTYPES = "float16", "bfloat16", "float64"


@keras.saving.register_keras_serializable(PACKAGE)
class ComputesInFloat32(keras.DTypePolicy):
    """A dtype policy whose weights keep their dtype; Keras casts them where they are
    used."""

    compute_dtype = "float32"


@contextmanager
def compute_in_float32(model):
    """Makes all layers of a model compute in float32 within the context.

    Weights are cast, and those quantized by Keras are dequantized. The attributes that
    this replaces, some of them private to Keras, are restored on exit.
    """
    replaced = [(layer, dict(float32_attributes(layer))) for layer in all_layers(model)]
    replaced = [(layer, new) for layer, new in replaced if new]
    before = [
        {name: vars(layer)[name] for name in new if name in vars(layer)}
        for layer, new in replaced
    ]
    try:
        for layer, new in replaced:
            vars(layer).update(new)
        yield
    finally:
        for (layer, new), old in zip(replaced, before, strict=True):
            for name in new:
                del vars(layer)[name]
            vars(layer).update(old)


def float32_attributes(layer):
    """Yields the names and new values of the attributes that a layer must change."""
    mode = layer.dtype_policy.quantization_mode
    if mode in ("int4", "gptq", "awq"):
        raise ValueError(
            f"`{layer.name}` must have weights in 8 bits or in float to be exported to "
            f"TFLite; received a layer quantized with {mode!r}: export the model "
            "before `quantize`, or quantize it with 'int8'"
        )
    if mode == "int8":
        # Float inputs times 8-bit weights: by default Keras quantizes the inputs too.
        policy = keras.dtype_policies.QuantizedDTypePolicy("int8", "float32")
        yield "_dtype_policy", policy
        if hasattr(layer, "inputs_quantizer"):
            yield "inputs_quantizer", None
    elif mode or layer.compute_dtype in OTHER_DTYPES:
        yield "_dtype_policy", ComputesInFloat32(layer.variable_dtype)
    if hasattr(layer, "_convert_inputs_to_tensors") and any(
        x.dtype in OTHER_DTYPES for x in layer.inputs
    ):
        yield "_convert_inputs_to_tensors", lambda inputs: inputs
