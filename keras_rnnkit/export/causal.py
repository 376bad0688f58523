"""Streams causal convolutions, which read earlier steps without being recurrent.

The last inputs of such a layer become a state, which begins with zeros in place of the
padding. `CONTEXT_STEPS` has the number of earlier steps that each class reads. To
support another class of convolutions with `padding="valid"`, add an entry.
"""

import keras
import tensorflow as tf


def convolution_context(layer) -> int:
    """Returns how many earlier steps a convolution reads."""
    return (layer.kernel_size[0] - 1) * layer.dilation_rate[0]


CONTEXT_STEPS = {
    keras.layers.Conv1D: convolution_context,
    keras.layers.DepthwiseConv1D: convolution_context,
    keras.layers.SeparableConv1D: convolution_context,
}


class StreamingConvolution:
    """A layer of `CONTEXT_STEPS`, called with some steps at a time.

    Args:
        layer: a built layer; it is copied with `padding="valid"`.
        features: int, number of input features.
    """

    def __init__(self, layer, features):
        self.name = layer.name
        self.steps = CONTEXT_STEPS[type(layer)](layer)
        self._layer = type(layer).from_config(layer.get_config() | {"padding": "valid"})
        self._layer.build((None, None, features))
        self._layer.set_weights(layer.get_weights())

    def __call__(self, stream, x):
        zeros = tf.zeros([x.shape[0], self.steps, *x.shape[2:]], x.dtype)
        (before,) = stream.enter([f"{self.name}_inputs"], [zeros])
        x = tf.concat([before, x], axis=1)
        stream.leave([x[:, -self.steps :]])
        return self._layer(x)


def skip_padding(stream, x):
    """Replaces zero padding, whose zeros the following `StreamingConvolution` adds."""
    del stream
    return x


def is_causal_convolution(layer) -> bool:
    """Returns whether a layer pads its inputs with zeros before the first step."""
    return (
        type(layer) in CONTEXT_STEPS
        and layer.padding == "causal"
        and _keeps_steps(layer)
        and CONTEXT_STEPS[type(layer)](layer) > 0
    )


def is_zero_padding(layer) -> bool:
    """Returns whether a layer adds zeros before and after a sequence."""
    return type(layer) is keras.layers.ZeroPadding1D


def streaming_handlers(calls, outputs) -> dict:
    """Returns what replaces the calls of convolutions and their padding in a stream.

    Args:
        calls: list of `Call`, in order.
        outputs: list of the model's output tensors.

    Returns:
        dict of `StreamingConvolution` and `skip_padding` by the index of the call.
    """
    handlers, convolutions = {}, {}

    def add_convolution(number):
        layer, (x, *_) = calls[number].layer, calls[number].inputs
        if id(layer) not in convolutions:
            convolutions[id(layer)] = StreamingConvolution(layer, x.shape[-1])
        handlers[number] = convolutions[id(layer)]

    for number, call in enumerate(calls):
        if is_causal_convolution(call.layer):
            add_convolution(number)
        if is_zero_padding(call.layer):
            (padded,) = call.outputs
            users = [n for n, c in enumerate(calls) if _has(c.inputs, padded)]
            fits = all(_is_padding_of(calls[n].layer, call.layer) for n in users)
            if users and fits and not _has(outputs, padded):
                handlers[number] = skip_padding
                for user in users:
                    add_convolution(user)
    return handlers


def _has(tensors, tensor):
    return any(each is tensor for each in tensors)


def _is_padding_of(layer, padding):
    """Returns whether a layer pads with as many zeros as a convolution reads back."""
    return (
        type(layer) in CONTEXT_STEPS
        and layer.padding == "valid"
        and _keeps_steps(layer)
        and padding.data_format == "channels_last"
        and tuple(padding.padding) == (CONTEXT_STEPS[type(layer)](layer), 0)
    )


def _keeps_steps(layer):
    return layer.strides[0] == 1 and layer.data_format == "channels_last"


def reason_against(layer, otherwise) -> str:
    """Returns why a layer that is not recurrent cannot stream."""
    padding = getattr(layer, "padding", None)
    if padding == "same":
        return "`padding='same'` looks ahead: use 'causal'"
    if max(getattr(layer, "strides", None) or [1]) > 1:
        return f"it returns fewer steps than it takes, with `strides={layer.strides}`"
    if is_zero_padding(layer):
        return (
            "its zeros must be before the first step, as many as the convolutions that "
            f"take them look back; received `padding={padding}`"
        )
    if type(layer) in CONTEXT_STEPS and padding == "valid":
        return "`padding='valid'` returns fewer steps than it takes: use 'causal'"
    return otherwise
