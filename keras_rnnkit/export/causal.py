"""Layers that look at earlier steps without being recurrent, and how they stream.

What such a layer saw last is a state, zeros at first, as the padding that it takes the
place of. `LOOK_BACK` tells for each class how far it looks; another class that
convolves with `padding="valid"` over what it saw last and sees now is one entry more.
"""

import keras
import tensorflow as tf


def steps_back(layer) -> int:
    """How many steps before its own a convolution looks at."""
    return (layer.kernel_size[0] - 1) * layer.dilation_rate[0]


LOOK_BACK = {
    keras.layers.Conv1D: steps_back,
    keras.layers.DepthwiseConv1D: steps_back,
    keras.layers.SeparableConv1D: steps_back,
}


class LookBack:
    """A layer of `LOOK_BACK`, called with some steps at a time.

    Args:
        layer: a layer that has been built; a copy of it is made for `padding="valid"`.
        features: int, of its inputs.
    """

    def __init__(self, layer, features):
        self.name = layer.name
        self.steps = LOOK_BACK[type(layer)](layer)
        self._layer = type(layer).from_config(layer.get_config() | {"padding": "valid"})
        self._layer.build((None, None, features))
        self._layer.set_weights(layer.get_weights())

    def __call__(self, stream, x):
        zeros = tf.zeros([x.shape[0], self.steps, *x.shape[2:]], x.dtype)
        (before,) = stream.enter([f"{self.name}_inputs"], [zeros])
        x = tf.concat([before, x], axis=1)
        stream.leave([x[:, -self.steps :]])
        return self._layer(x)


def pass_on(stream, x):
    """What becomes of zeros that are put before a sequence: a `LookBack` has them."""
    del stream
    return x


def looks_back(layer) -> bool:
    """Whether it pads its inputs itself, with zeros before the first step."""
    return (
        type(layer) in LOOK_BACK
        and layer.padding == "causal"
        and _keeps_steps(layer)
        and LOOK_BACK[type(layer)](layer) > 0
    )


def pads(layer) -> bool:
    """Whether it puts zeros before and after a sequence."""
    return type(layer) is keras.layers.ZeroPadding1D


def ways(calls, outputs) -> dict:
    """How the calls of a model stream that keep a state, by their numbers.

    Args:
        calls: list of `Call`, in order.
        outputs: list of tensors, of the model.

    Returns:
        dict of `LookBack` and `pass_on`.
    """
    found, made = {}, {}

    def look_back(number):
        call = calls[number]
        if id(call.layer) not in made:
            made[id(call.layer)] = LookBack(call.layer, call.inputs[0].shape[-1])
        found[number] = made[id(call.layer)]

    for number, call in enumerate(calls):
        if looks_back(call.layer):
            look_back(number)
        if pads(call.layer):
            (padded,) = call.outputs
            users = [n for n, c in enumerate(calls) if _has(c.inputs, padded)]
            fits = all(_is_padded(calls[n].layer, call.layer) for n in users)
            if users and fits and not _has(outputs, padded):
                found[number] = pass_on
                for user in users:
                    look_back(user)
    return found


def _has(tensors, tensor):
    return any(each is tensor for each in tensors)


def _is_padded(layer, padding):
    """Whether zeros before the first step are as many as a convolution looks back."""
    return (
        type(layer) in LOOK_BACK
        and layer.padding == "valid"
        and _keeps_steps(layer)
        and padding.data_format == "channels_last"
        and tuple(padding.padding) == (LOOK_BACK[type(layer)](layer), 0)
    )


def _keeps_steps(layer):
    return layer.strides[0] == 1 and layer.data_format == "channels_last"


def obstacle(layer, otherwise) -> str:
    """Why a layer cannot stream that keeps no state."""
    padding = getattr(layer, "padding", None)
    if padding == "same":
        return "`padding='same'` looks ahead: take 'causal'"
    if max(getattr(layer, "strides", None) or [1]) > 1:
        return f"it returns fewer steps than it takes, with `strides={layer.strides}`"
    if pads(layer):
        return (
            "its zeros must be before the first step, as many as the convolutions that "
            f"take them look back; received `padding={padding}`"
        )
    if type(layer) in LOOK_BACK and padding == "valid":
        return "`padding='valid'` returns fewer steps than it takes: take 'causal'"
    return otherwise
