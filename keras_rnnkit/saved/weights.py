"""Loads the weights in files of Keras 2.

Keras 3 assigns them by the order of the layers, which may differ from that of the file.
Here the configuration in the file tells which weights belong to which layer.
"""

import re
from collections import Counter

import keras
import numpy as np

from keras_rnnkit.internals import all_layers
from keras_rnnkit.saved.graph import MODELS, layers_of


def load_hdf5(model, config, group):
    """Loads the weights of an .h5 file into a model.

    Args:
        model: the Keras 3 model.
        config: its Keras 2 configuration.
        group: `h5py.Group`, `model_weights`.
    """
    layers = _layers_of(model, config)
    count = 0
    for name in _attribute(group, "layer_names"):
        inner = group[name]
        arrays = [np.asarray(inner[w]) for w in _attribute(inner, "weight_names")]
        if arrays:
            trained, others = _split_weights(*layers[name])
            _assign(name, trained + others, _convert_cudnn(arrays, layers[name][1]))
            count += len(arrays)
    _check_count(model, count)
    for layer in all_layers(model):
        # A `Normalization` derives values from its weights.
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def load_variables(model, config, group):
    """Loads the weights of a .keras file into a model.

    Args:
        model, config: as for `load_hdf5`.
        group: `h5py.Group`, the root of `model.weights.h5`.
    """
    _check_count(model, _restore(model, config, group))


def _check_count(model, count):
    if count != len(model.weights):
        raise ValueError(
            f"the file must have {len(model.weights)} weights for `{model.name}`; "
            f"received {count}"
        )


def _layers_of(model, config) -> dict:
    """Returns the layers of a model with their configurations, by name."""
    return {
        name: (model.get_layer(name), inner)
        for name, inner in layers_of(config).items()
        if inner["class_name"] != "InputLayer"  # a `Sequential` would not find it
    }


def _attribute(group, name) -> list[str]:
    """Returns a list of names; a long one is spread over several attributes."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        numbers = range(len(group.attrs))
        parts = [
            group.attrs[f"{name}{n}"] for n in numbers if f"{name}{n}" in group.attrs
        ]
    names = [each for part in parts for each in part]
    return [each.decode() if isinstance(each, bytes) else str(each) for each in names]


def _split_weights(layer, config):
    """Returns trainable and other weights, in the order of Keras 2."""
    if not isinstance(layer, keras.Model) or config["class_name"] not in MODELS:
        return layer.trainable_weights, layer.non_trainable_weights
    parts = [_split_weights(*pair) for pair in _layers_of(layer, config).values()]
    if not layer.trainable:
        return [], [w for part in parts for weights in part for w in weights]
    return tuple([w for part in parts for w in part[i]] for i in (0, 1))


def _assign(name, weights, arrays):
    """Assigns arrays to the weights of a layer; raises if their shapes differ."""
    shapes = [tuple(w.shape) for w in weights], [x.shape for x in arrays]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the weights of layer `{name}` must have shapes {shapes[0]}; received "
            f"{shapes[1]}"
        )
    for weight, array in zip(weights, arrays, strict=True):
        weight.assign(array)


def _from_cudnn(kernel, recurrent, bias, gates):
    """Converts the weights of one cuDNN layer to those of an `LSTM` or `GRU`."""
    kernels = np.split(kernel, gates, axis=1)
    recurrents = np.split(recurrent, gates, axis=1)
    biases = bias.reshape(2, -1)
    return (
        np.hstack([k.T.reshape(k.shape, order="F") for k in kernels]),
        np.hstack([k.T for k in recurrents]),
        biases.sum(axis=0) if gates == 4 else biases,
    )


def _convert_cudnn(arrays, config):
    """Converts the arrays of cuDNN layers among others.

    Their kernels are transposed gate by gate, and a vector has two biases per gate: its
    length identifies them.
    """
    if not re.search("CuDNN", repr(config)):
        return arrays
    arrays = list(arrays)
    for number in range(2, len(arrays)):
        given = arrays[number - 2 : number + 1]
        recurrent, bias = given[1:]
        units = len(recurrent)
        for gates in (3, 4):
            if recurrent.shape[1:] != (gates * units,) or bias.ndim != 1:
                continue
            if len(bias) == 2 * gates * units:
                arrays[number - 2 : number + 1] = _from_cudnn(*given, gates)
    return arrays


def _restore(layer, config, group) -> int:
    """Loads the weights of a layer in a .keras file; returns their number."""
    variables = group.get("vars", {})
    if variables:
        try:
            layer.load_own_variables(variables)
        except ValueError as error:
            raise ValueError(
                f"the weights of layer `{layer.name}` do not fit: {error}"
            ) from error
    count = len(variables)
    for key in group:
        for child, inner, stored_name in _children(layer, config, key):
            if stored_name in group[key]:
                count += _restore(child, inner, group[key][stored_name])
    return count


def _children(layer, config, key):
    """Returns the layers in an attribute, with configurations and names in the file."""
    if key == "_layer_checkpoint_dependencies":
        key = "layers"
    if isinstance(layer, keras.Model) and key == "layers":
        pairs = list(_layers_of(layer, config).values())
    else:
        children = getattr(layer, key, None)
        configs = ((config or {}).get("config") or {}).get(key)
        if isinstance(children, keras.layers.Layer):
            return [(children, configs, ".")]
        if not isinstance(children, (list, tuple)):
            return []
        pairs = zip(children, configs or [None] * len(children), strict=True)
    counts, found = Counter(), []
    for child, inner in pairs:
        name = _snake_case((inner or {}).get("class_name") or type(child).__name__)
        stored_name = f"{name}_{counts[name]}" if counts[name] else name
        counts[name] += 1
        found.append((child, inner, stored_name))
    return found


def _snake_case(name):
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name.split(">")[-1])
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
