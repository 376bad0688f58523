"""Converts configurations of Keras 2 to Keras 3.

They differ in form: classes have no module, `batch_input_shape` replaces `batch_shape`,
and calls are lists of `[layer, node, tensor, arguments]`. They differ in meaning where
a default or a function has changed: `hard_sigmoid`, `reset_after`, and states passed to
a recurrent layer as additional inputs.
"""

import functools
import inspect

import keras

from keras_rnnkit.saved.activations import keras2_hard_sigmoid
from keras_rnnkit.saved.graph import (
    MODELS,
    call_of,
    layers_of,
    map_references,
    model_end,
    name_of,
)

RENAMED = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "ThresholdedReLU": "ReLU",
}
RENAMED_ARGUMENTS = {
    "LeakyReLU": {"alpha": "negative_slope"},
    "ThresholdedReLU": {"theta": "threshold"},
}
OPERATIONS = "SlicingOpLambda", "TFOpLambda", "TensorFlowOpLayer"
# Arguments that the cuDNN layers did not have, and a default that has changed
DEFAULTS = {
    "CuDNNGRU": {"recurrent_activation": "sigmoid", "reset_after": True},
    "CuDNNLSTM": {"recurrent_activation": "sigmoid"},
    "GRU": {"reset_after": False},
    "GRUCell": {"reset_after": False},
}
# Arguments that do not change what a loaded layer computes
WITHOUT_EFFECT = {
    *("autocast", "batch_input_shape", "fused", "groups", "implementation"),
    *(
        "input_dim",
        "input_length",
        "key_shape",
        "query_shape",
        "trainable",
        "value_shape",
    ),
    *("build_input_shape", "renorm_clipping", "renorm_momentum", "function_type"),
    *("module", "output_shape_module", "output_shape_type"),
}
PARTS = {
    "initializer": keras.initializers,
    "regularizer": keras.regularizers,
    "constraint": keras.constraints,
}
DISTRIBUTIONS = {"normal": "truncated_normal"}  # of Keras before 2.2.3


def convert_config(config: dict, custom_objects: dict) -> dict:
    """Converts the configuration of a model or layer from Keras 2 to Keras 3.

    Args:
        config: dict of `class_name` and `config`.
        custom_objects: dict of a user's classes and functions by name.

    Raises:
        ValueError: Keras 3 does not support it, with the layer's name and a remedy.
    """
    class_name, arguments = config["class_name"], config["config"]
    if class_name in MODELS and class_name not in custom_objects:
        return _convert_model(config, custom_objects)
    registered = config.get("registered_name") or class_name
    custom = next(
        (
            name
            for name in (registered, class_name)
            if keras.saving.get_registered_object(name, custom_objects) is not None
        ),
        None,
    )
    arguments = {
        key: _convert_value(key, value, custom_objects)
        for key, value in arguments.items()
    }
    arguments.pop("batch_input_shape", None)
    if custom is not None:
        return {
            "module": None,
            "class_name": class_name.split(">")[-1],
            "config": arguments,
            "registered_name": custom,
        }
    return _convert_layer(class_name, arguments)


def _convert_layer(class_name, arguments):
    """Converts the configuration of a layer or cell of Keras itself."""
    name = arguments.get("name", class_name)
    names = RENAMED_ARGUMENTS.get(class_name, {})
    arguments = {names.get(key, key): value for key, value in arguments.items()}
    arguments = DEFAULTS.get(class_name, {}) | arguments
    class_name = RENAMED.get(class_name, class_name)
    if class_name in OPERATIONS:
        raise ValueError(
            f"layer `{name}` is a TensorFlow function called between layers, which "
            "Keras 3 does not load: build the model in Keras 3, with a layer or a "
            "function of `keras.ops` in its place, and give it the weights"
        )
    cls = getattr(keras.layers, class_name, None)
    if not inspect.isclass(cls):
        raise ValueError(
            f"layer `{name}` is of the class `{class_name}`, which Keras 3 does not "
            "have: import the module that registers it (`--import` of the command) or "
            "pass it in `custom_objects`; without one, rebuild the model"
        )
    if arguments.get("time_major"):
        raise ValueError(
            f"layer `{name}` has `time_major=True`, which Keras 3 does not have: build "
            "the model with `time_major=False` in Keras 2, give it the same weights, "
            "and save that"
        )
    if class_name == "BatchNormalization" and isinstance(arguments.get("axis"), list):
        (arguments["axis"],) = arguments["axis"]
    if class_name == "Bidirectional":
        _give_backward_layer(arguments)
    if class_name == "Lambda":
        arguments["function"] = _convert_function(arguments["function"])
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": _supported_arguments(cls, arguments, f"layer `{name}`"),
        "registered_name": None,
    }


def _give_backward_layer(arguments):
    """Adds the second layer if the first one goes backwards: by default both layers
    would do so in Keras 3."""
    forward = arguments["layer"]
    if forward["config"].get("go_backwards") and not arguments.get("backward_layer"):
        name = f"backward_{forward['config']['name']}"
        changed = forward["config"] | {"go_backwards": False, "name": name}
        arguments["backward_layer"] = forward | {"config": changed}


def _supported_arguments(cls, arguments, subject):
    """Returns the arguments that a class has; raises if another one has an effect."""
    known = _parameters(cls)
    for key in set(arguments) - known - WITHOUT_EFFECT:
        if arguments[key] not in (None, False) and _ending(key) not in PARTS:
            raise ValueError(
                f"{subject} of the class `{cls.__name__}` has `{key}="
                f"{arguments[key]!r}`, which Keras 3 does not have: build the model "
                "without it"
            )
    return {key: value for key, value in arguments.items() if key in known}


@functools.cache
def _parameters(cls):
    """Returns the names of all arguments of a class's constructor."""
    names = set()
    for each in cls.__mro__:
        if "__init__" in vars(each) and each is not object:
            given = inspect.signature(each.__init__).parameters.values()
            names |= {p.name for p in given if p.kind is not p.VAR_KEYWORD}
            if all(p.kind is not p.VAR_KEYWORD for p in given):
                break
            if each is keras.layers.Layer:
                break
    return names - {"self", "args"}


def _ending(key):
    """Returns the last word of the name of an argument."""
    return key.rpartition("_")[2]


def _convert_value(key, value, custom_objects):
    """Converts an argument of a layer."""
    if key == "dtype":
        return _dtype_name(value)
    if key.endswith("activation"):
        return _convert_activation(value, custom_objects)
    part = PARTS.get(_ending(key))
    if isinstance(value, list):
        return [_convert_value("", each, custom_objects) for each in value]
    if not isinstance(value, dict):
        return value
    if "items" in value and value.get("class_name") in ("TensorShape", "__tuple__"):
        return value["items"]
    if value.get("type") == "ndarray":
        return value["value"]
    if not isinstance(value.get("config"), dict) or "class_name" not in value:
        return {k: _convert_value(k, each, custom_objects) for k, each in value.items()}
    if value["class_name"].startswith("__"):  # an array, or a user's code
        return value
    if part is None:
        return convert_config(value, custom_objects)
    return _convert_part(part, value)


def _convert_part(module, value):
    """Converts the configuration of an initializer, regularizer or constraint."""
    cls = getattr(module, value["class_name"], None)
    if not inspect.isclass(cls):
        return value
    arguments = dict(value["config"])
    if "distribution" in arguments:
        given = arguments["distribution"]
        arguments["distribution"] = DISTRIBUTIONS.get(given, given)
    return {
        "module": module.__name__.replace("._tf_keras", ""),
        "class_name": value["class_name"],
        "config": {k: v for k, v in arguments.items() if k in _parameters(cls)},
        "registered_name": None,
    }


def _dtype_name(value):
    """Returns the name of a dtype policy."""
    if isinstance(value, dict) and "name" in (value.get("config") or {}):
        value = value["config"]["name"]
    return "float32" if value in ("infer", "_infer") else value


def _convert_activation(value, custom_objects):
    """Converts an activation."""
    name = value
    if isinstance(value, dict) and value.get("class_name") == "function":
        name = value["config"]
    if name == "hard_sigmoid" and name not in custom_objects:
        return keras.activations.serialize(keras2_hard_sigmoid)
    if isinstance(value, dict) and "class_name" in value and name is value:
        return convert_config(value, custom_objects)  # a layer
    return name


def _convert_function(function):
    """Converts the function of a `Lambda`."""
    if isinstance(function, list):
        parts = dict(zip(("code", "defaults", "closure"), function, strict=True))
        return {"class_name": "__lambda__", "config": parts}
    if isinstance(function, str):
        function = {"class_name": "function", "config": function}
    return {"module": None, "registered_name": function.get("config")} | function


def _convert_model(config, custom_objects):
    """Converts the configuration of a model."""
    arguments = config["config"]
    given = arguments if isinstance(arguments, dict) else {}
    new = {"name": name_of(config), "trainable": given.get("trainable", True)}
    if sequential := config["class_name"] == "Sequential":
        shape = given.get("build_input_shape")
        new["layers"] = _convert_sequential(layers_of(config), shape, custom_objects)
    else:
        new |= _convert_functional(arguments, custom_objects)
    return {
        "module": "keras",
        "class_name": "Sequential" if sequential else "Model",
        "config": new,
        "registered_name": None,
    }


def _convert_sequential(old, shape, custom_objects):
    """Converts the layers of a `Sequential`; adds an `InputLayer` if there is none."""
    layers = [_convert_input_or_layer(layer, custom_objects) for layer in old.values()]
    name, first = next(iter(old.items()), (None, None))
    if first is None or first["class_name"] in ("InputLayer", *MODELS):
        return layers
    arguments = first["config"]
    if shape := arguments.get("batch_input_shape", shape):
        dtype = _dtype_name(arguments.get("dtype")) or "float32"
        dtype = "float32" if dtype.startswith("mixed") else dtype
        arguments = {"batch_shape": shape, "dtype": dtype}
        layers.insert(0, _convert_input(arguments, f"{name}_input"))
    return layers


def _convert_input_or_layer(layer, custom_objects):
    if layer["class_name"] == "InputLayer":
        return _convert_input(layer["config"], name_of(layer))
    return convert_config(layer, custom_objects)


def _convert_input(arguments, name):
    shape = arguments.get("batch_shape") or arguments.get("batch_input_shape")
    arguments = arguments | {"batch_shape": _convert_value("", shape, {}), "name": name}
    arguments["dtype"] = _dtype_name(arguments.get("dtype"))
    known = "batch_shape", "dtype", "name", "sparse", "ragged", "optional"
    return {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {k: arguments[k] for k in known if k in arguments},
        "registered_name": None,
    }


def _convert_functional(arguments, custom_objects):
    """Converts the layers of a functional model and their calls."""
    old = {layer["name"]: layer for layer in arguments["layers"]}
    layers = []
    for name, layer in old.items():
        new = _convert_input_or_layer(layer, custom_objects)
        new["name"] = name
        nodes = layer["inbound_nodes"]
        new["inbound_nodes"] = [call_of(layer, node, old) for node in nodes]
        layers.append(new)
    new = {"layers": layers}
    for key in ("input_layers", "output_layers"):
        ends = map_references(arguments[key], lambda ref: model_end(ref, old))
        single = isinstance(ends, list) and len(ends) == 1
        new[key] = ends[0] if single else ends
    return new
