"""Converts models between the layers of Keras and those of this package."""

import keras
import tensorflow as tf

from keras_rnnkit import cells, layers
from keras_rnnkit.arguments import PACKAGE
from keras_rnnkit.internals import all_layers
from keras_rnnkit.layers.checks import check_stream
from keras_rnnkit.recurrence import as_mask

NAMES = {
    **{name: layers for name in ("RNN", "SimpleRNN", "LSTM", "GRU", "Bidirectional")},
    **{name: cells for name in ("SimpleRNNCell", "LSTMCell", "GRUCell")},
}
OURS = {name: getattr(module, name) for name, module in NAMES.items()}
STOCK = {name: getattr(keras.layers, name) for name in NAMES}
_input = keras.Input(())
# The class of functional models, which has no public name in Keras
Functional = type(keras.Model(_input, keras.layers.Identity()(_input)))


def from_keras(model: keras.Model) -> keras.Model:
    """Replaces the recurrent layers of a model by those of this package.

    Every `SimpleRNN`, `LSTM`, `GRU`, `Bidirectional`, `RNN` and cell of Keras is
    replaced, also in nested models and in wrappers such as `TimeDistributed`. Names,
    weights, shared layers and the arguments of `compile` are kept. `model` does not
    change; the two share layers that have an `adapt` method, such as `Normalization`,
    and layers without weights that Keras cannot clone, such as a `Lambda`. The
    optimizer and the states of stateful layers are reset.

    Args:
        model: a functional or sequential model, built.

    Returns:
        A new model of the same class.

    Raises:
        ValueError: the model is subclassed or has not been built, a layer of a user's
            class creates recurrent layers itself, or a layer is shared within wrappers:
            these cannot be replaced from outside.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    model = keras.Sequential([keras.Input((8, 3)), keras.layers.LSTM(4)])
    print(isinstance(rk.from_keras(model).layers[0], rk.LSTM))  # True
    ```
    """
    return _convert(model, _ours, {})


def to_keras(model: keras.Model) -> keras.Model:
    """Replaces the layers of this package in a model by those of Keras.

    The inverse of `from_keras`.

    Args:
        model: a functional or sequential model, built.

    Returns:
        A new model of the same class.

    Raises:
        ValueError: as `from_keras`, or Keras lacks a layer or an argument.

    Example:

    ```python
    import keras
    import keras_rnnkit as rk

    model = keras.Sequential([keras.Input((8, 3)), rk.LSTM(4)])
    print(type(rk.to_keras(model).layers[0]) is keras.layers.LSTM)  # True
    ```
    """
    return _convert(model, _stock, {})


def _convert(model, replace, clones):
    """Clones a model through `replace`; `clones` holds the cloned layers by `id`."""
    check_model(model)

    def clone(layer):
        if id(layer) not in clones:
            clones[id(layer)] = _clone(layer, replace, clones)
        return clones[id(layer)]

    if isinstance(model, keras.Sequential):
        converted = keras.models.clone_model(model, clone_function=clone)
        converted.build(model.input_shape)
    else:
        converted = keras.models.clone_model(
            model,
            input_tensors=_inputs(model),
            clone_function=clone,
            call_function=_call_stock if replace is _stock else None,
        )
    if type(converted) is not type(model):
        raise _subclassed_error(model)
    weights = model.get_weights()
    if len(weights) != len(converted.weights):
        raise ValueError(
            f"a layer within a wrapper of `{model.name}` must not be shared; received "
            f"{len(weights)} weights that would become {len(converted.weights)}"
        )
    converted.set_weights(weights)
    _copy_trainable(model, converted)
    return converted


def check_model(model):
    """Raises `ValueError` unless a model is functional or sequential, and built."""
    kinds = keras.Sequential, Functional
    constructors = [kind.__init__ for kind in kinds]
    if not isinstance(model, kinds) or type(model).__init__ not in constructors:
        raise _subclassed_error(model)
    if not model.built:
        raise ValueError(
            f"the model must be built; received `{model.name}` without an input shape: "
            "add a `keras.Input` or call the model once"
        )


def _copy_trainable(old, new):
    """Copies `trainable`, outermost layers first, as setting it affects inner ones."""
    new.trainable = old.trainable
    if isinstance(old, keras.Model):
        pairs = zip(old.layers, new.layers, strict=True)
    else:
        pairs = zip(all_layers(old)[1:], all_layers(new)[1:], strict=True)
    for pair in pairs:
        if isinstance(pair[0], keras.layers.Layer) and pair[0] is not pair[1]:
            _copy_trainable(*pair)


def call_any_steps(model, inputs, training=False):
    """Calls a model; other numbers of steps than those of its inputs are allowed.

    Args:
        inputs: in the structure of the model's inputs.
    """
    # `__call__` would reject other shapes.
    run = model if has_compatible_inputs(model, inputs) else model.call
    return run(inputs, training=training)


def has_compatible_inputs(model, inputs) -> bool:
    """Returns whether the shapes of tensors are compatible with a model's inputs."""
    return all(
        tf.TensorShape(x.shape).is_compatible_with(given.shape)
        for x, given in zip(model.inputs, keras.tree.flatten(inputs), strict=True)
    )


def has_stock_layers(model) -> bool:
    """Returns whether a model has recurrent layers of Keras itself."""
    return any(type(layer) in STOCK.values() for layer in all_layers(model))


def as_portable_layer(layer: keras.layers.RNN) -> layers.RNN:
    """Returns a layer that computes the same on the loop of this package, for tracing.

    It shares the states. Layers of Keras itself are cloned with their weights. Any
    other layer, such as a user's subclass, keeps its code and weights: the result
    shares its attributes, and its class adds the loop of this package as a base class.
    """
    if type(layer) in STOCK.values() and not _has_custom_cell(layer):
        new = _clone(layer, _ours, {})
        new.build_from_config(layer.get_build_config())
        new.set_weights(layer.get_weights())
        vars(new)["states"] = layer.states
        return new
    kinds = (type(layer), PortableRNN)
    if type(layer) is keras.layers.RNN:
        kinds = (PortableRNN,)
    portable = object.__new__(type(type(layer).__name__, kinds, {}))
    object.__setattr__(portable, "__dict__", vars(layer))
    return portable


class PortableRNN(layers.RNN):
    """The base class that `as_portable_layer` adds to a layer of Keras or of a user."""

    loop = "portable"

    def run_checked(self, sequences, initial_state, mask, training, lengths):
        # Skips the check of state shapes, which Keras supports for vectors only.
        check_stream(self, lengths)
        mask = as_mask(mask, lengths, sequences)
        return self.run(sequences, initial_state, mask, training)


def _has_custom_cell(layer):
    """Returns whether a layer has a user's cell, which its configuration may not
    reproduce exactly."""
    return type(layer) is keras.layers.RNN and any(
        type(cell).__module__.partition(".")[0] not in ("keras", "keras_rnnkit")
        for cell in all_layers(layer.cell)
    )


def is_stock(layer) -> bool:
    """Returns whether a recurrent layer runs on the loop of Keras."""
    return isinstance(layer, keras.layers.RNN) and not isinstance(layer, layers.RNN)


def _subclassed_error(model):
    return ValueError(
        "the model must be functional or sequential; received an instance of the "
        f"subclass `{type(model).__name__}`: replace the layers in its own code"
    )


def _inputs(model):
    """Returns new inputs of the same names, which `clone_model` would not keep."""
    layers = [x for x in model.layers if isinstance(x, keras.layers.InputLayer)]
    layer_of = {id(layer.output): layer for layer in layers}
    return keras.tree.map_structure(
        lambda x: (
            type(layer_of[id(x)]).from_config(layer_of[id(x)].get_config()).output
        ),
        model.input,
    )


def _clone(layer, replace, clones):
    if isinstance(layer, keras.Model):
        return _convert(layer, replace, clones)
    if not isinstance(layer, keras.layers.Layer):  # an operation of `keras.ops`
        return type(layer).from_config(layer.get_config())
    if hasattr(layer, "adapt"):  # its weights are not all of its state
        return layer
    config = keras.saving.serialize_keras_object(layer)
    replaced = _walk(config, replace, layer.name)
    if replaced == config:
        try:
            new = type(layer).from_config(layer.get_config())
        except (TypeError, ValueError):
            if layer.variables:
                raise
            new = layer
    else:
        new = keras.saving.deserialize_keras_object(
            _walk(replaced, _unbuilt, layer.name), safe_mode=False
        )
        _copy_unsaved(layer, new)
    _check_replaced(new, layer.name, replace)
    return new


def _call_stock(layer, *args, lengths=None, **kwargs):
    if lengths is not None:
        raise ValueError(
            f"`{layer.name}` has no equivalent in Keras: it is called with `lengths`"
        )
    return layer(*args, **kwargs)


def _walk(config, replace, name):
    """Copies a serialized object with every object in it passed through `replace`."""
    if isinstance(config, (list, tuple)):
        return type(config)(_walk(each, replace, name) for each in config)
    if not isinstance(config, dict):
        return config
    if isinstance(config.get("config"), dict):
        name = config["config"].get("name", name)
    config = {key: _walk(value, replace, name) for key, value in config.items()}
    return replace(config, name) if "class_name" in config else config


def _unbuilt(config, name):
    """Removes the shapes of a serialized object: a layer that is built when called gets
    weight paths that include the layers around it."""
    return {key: value for key, value in config.items() if key != "build_config"}


def _ours(config, name):
    """Replaces a class of Keras by ours in a serialized object."""
    class_name = config["class_name"]
    if class_name not in STOCK or config["module"] != "keras.layers":
        return config
    registered = f"{PACKAGE}>{class_name}"
    return config | {
        "module": OURS[class_name].__module__,
        "registered_name": registered,
    }


def _stock(config, name):
    """Replaces a class of ours by that of Keras in a serialized object."""
    class_name = config["class_name"]
    if not (config.get("registered_name") or "").startswith(f"{PACKAGE}>"):
        return config
    if class_name not in STOCK:
        raise ValueError(f"`{name}` has no equivalent in Keras: it is a `{class_name}`")
    arguments = dict(config["config"])
    ours = OURS[class_name]
    for option in getattr(ours, "options", ()):
        value = arguments.pop(option)
        if option != "loop" and value != ours.signature.parameters[option].default:
            raise ValueError(
                f"`{name}` has no equivalent in Keras: it has `{option}={value!r}`"
            )
    return config | {
        "module": "keras.layers",
        "registered_name": None,
        "config": arguments,
    }


def _copy_unsaved(old, new):
    """Copies attributes that Keras 3.15 omits from a layer's configuration."""
    for name in ("use_cudnn", "implementation", "dropout_mask_count"):
        if hasattr(old, name):
            setattr(new, name, getattr(old, name))
    for part in ("cell", "layer", "forward_layer", "backward_layer"):
        if hasattr(old, part) and hasattr(new, part):
            _copy_unsaved(getattr(old, part), getattr(new, part))
    for pair in zip(getattr(old, "cells", ()), getattr(new, "cells", ()), strict=True):
        _copy_unsaved(*pair)


def _check_replaced(layer, name, replace):
    """Raises if a layer creates recurrent layers that its configuration lacks."""
    left = STOCK if replace is _ours else OURS
    for inner in all_layers(layer):
        if type(inner) in left.values():
            raise ValueError(
                f"`{name}` of the class `{type(layer).__name__}` makes a "
                f"`{type(inner).__name__}` that its `get_config` does not hold: "
                "replace it in the code of that class"
            )
