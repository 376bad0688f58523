"""Models of stock Keras made into models of this package, and back."""

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
_x = keras.Input(())
# The class of functional models, which Keras has no public name for
Functional = type(keras.Model(_x, keras.layers.Identity()(_x)))


def from_keras(model: keras.Model) -> keras.Model:
    """Returns the model with its recurrent layers replaced by those of this package.

    Every `SimpleRNN`, `LSTM`, `GRU`, `Bidirectional`, `RNN` and cell of Keras is
    replaced, in nested models and in wrappers such as `TimeDistributed` too. Names,
    weights, shared layers and the arguments of `compile` stay. `model` is not touched;
    the two share the layers that have an `adapt` method, such as `Normalization`, and
    those that have no weights and that Keras cannot clone, such as a `Lambda`. The new
    optimizer, and the states of stateful layers, begin afresh.

    Args:
        model: a functional or sequential model.

    Raises:
        ValueError: a subclassed model, one that has not been built, a layer of a user's
            class that makes recurrent layers of its own, or a layer shared within
            wrappers: what these contain cannot be replaced from outside.
    """
    return _convert(model, _ours, {})


def to_keras(model: keras.Model) -> keras.Model:
    """Returns the model with the layers of this package replaced by those of Keras.

    The way back from `from_keras`.

    Raises:
        ValueError: as `from_keras`, and a layer or an argument that Keras lacks.
    """
    return _convert(model, _stock, {})


def _convert(model, replace, clones):
    """Clones the model through `replace`; `clones` holds the layers done, by `id`."""
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
        raise _subclassed(model)
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
        raise _subclassed(model)
    if not model.built:
        raise ValueError(
            f"the model must be built; received `{model.name}` without an input shape: "
            "add a `keras.Input` or call the model once"
        )


def _copy_trainable(old, new):
    """Freezes what was frozen; outermost first, as the flag is handed down."""
    new.trainable = old.trainable
    if isinstance(old, keras.Model):
        pairs = zip(old.layers, new.layers, strict=True)
    else:
        pairs = zip(all_layers(old)[1:], all_layers(new)[1:], strict=True)
    for pair in pairs:
        if isinstance(pair[0], keras.layers.Layer) and pair[0] is not pair[1]:
            _copy_trainable(*pair)


def call_any_steps(model, inputs, training=False):
    """Calls a model, with another number of steps than its inputs say too.

    Args:
        inputs: in the structure of the model's inputs.
    """
    fits = all(
        tf.TensorShape(x.shape).is_compatible_with(given.shape)
        for x, given in zip(model.inputs, keras.tree.flatten(inputs), strict=True)
    )
    # `__call__` would refuse them.
    return (model if fits else model.call)(inputs, training=training)


def has_stock_layers(model) -> bool:
    """Whether a model has recurrent layers of Keras's own."""
    return any(type(layer) in STOCK.values() for layer in all_layers(model))


def stand_in(layer: keras.layers.RNN) -> layers.RNN:
    """A layer of this package that computes what one of Keras's does, to be traced.

    It has the same states. Keras's own layers are made anew, with the same weights. Any
    other one, such as a user's subclass, keeps its code and its weights: it is the same
    object, seen as of a class that has the loop of this package behind its own.
    """
    if type(layer) in STOCK.values() and not _is_hidden(layer):
        new = _clone(layer, _ours, {})
        new.build_from_config(layer.get_build_config())
        new.set_weights(layer.get_weights())
        vars(new)["states"] = layer.states
        return new
    kinds = (type(layer), OnThisLoop)
    if type(layer) is keras.layers.RNN:
        kinds = (OnThisLoop,)
    seen = object.__new__(type(type(layer).__name__, kinds, {}))
    object.__setattr__(seen, "__dict__", vars(layer))
    return seen


class OnThisLoop(layers.RNN):
    """What a layer of Keras or of a user has behind its own code, as a `stand_in`."""

    loop = "portable"

    def run_checked(self, sequences, initial_state, mask, training, lengths):
        # Not held to the shapes of states, which Keras knows for vectors only.
        check_stream(self, lengths)
        mask = as_mask(mask, lengths, sequences)
        return self.run(sequences, initial_state, mask, training)


def _is_hidden(layer):
    """Whether the cell of a layer is a user's, which may not come back from its
    configuration as it is."""
    return type(layer) is keras.layers.RNN and any(
        type(cell).__module__.partition(".")[0] not in ("keras", "keras_rnnkit")
        for cell in all_layers(layer.cell)
    )


def is_stock(layer) -> bool:
    """Whether it is a recurrent layer that runs on Keras's own loop."""
    return isinstance(layer, keras.layers.RNN) and not isinstance(layer, layers.RNN)


def _subclassed(model):
    return ValueError(
        "the model must be functional or sequential; received an instance of the "
        f"subclass `{type(model).__name__}`: replace the layers in its own code"
    )


def _inputs(model):
    """New inputs of the same names, which `clone_model` would not keep."""
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
    if hasattr(layer, "adapt"):  # what it has learned is not in its weights alone
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
            f"`{layer.name}` has no equal in Keras: it is called with `lengths`"
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
    """The serialized object without its shapes: a layer built where it is called has
    the names of its weights under those of the layers around it."""
    return {key: value for key, value in config.items() if key != "build_config"}


def _ours(config, name):
    """The serialized object with a class of Keras replaced by ours."""
    class_name = config["class_name"]
    if class_name not in STOCK or config["module"] != "keras.layers":
        return config
    registered = f"{PACKAGE}>{class_name}"
    return config | {
        "module": OURS[class_name].__module__,
        "registered_name": registered,
    }


def _stock(config, name):
    """The serialized object with a class of ours replaced by Keras's."""
    class_name = config["class_name"]
    if not (config.get("registered_name") or "").startswith(f"{PACKAGE}>"):
        return config
    if class_name not in STOCK:
        raise ValueError(f"`{name}` has no equal in Keras: it is a `{class_name}`")
    arguments = dict(config["config"])
    ours = OURS[class_name]
    for option in getattr(ours, "options", ()):
        value = arguments.pop(option)
        if option != "loop" and value != ours.signature.parameters[option].default:
            raise ValueError(
                f"`{name}` has no equal in Keras: it has `{option}={value!r}`"
            )
    return config | {
        "module": "keras.layers",
        "registered_name": None,
        "config": arguments,
    }


def _copy_unsaved(old, new):
    """Copies what Keras 3.15 leaves out of a layer's configuration."""
    for name in ("use_cudnn", "implementation", "dropout_mask_count"):
        if hasattr(old, name):
            setattr(new, name, getattr(old, name))
    for part in ("cell", "layer", "forward_layer", "backward_layer"):
        if hasattr(old, part) and hasattr(new, part):
            _copy_unsaved(getattr(old, part), getattr(new, part))
    for pair in zip(getattr(old, "cells", ()), getattr(new, "cells", ()), strict=True):
        _copy_unsaved(*pair)


def _check_replaced(layer, name, replace):
    """Raises where a layer makes recurrent layers that its configuration hides."""
    left = STOCK if replace is _ours else OURS
    for inner in all_layers(layer):
        if type(inner) in left.values():
            raise ValueError(
                f"`{name}` of the class `{type(layer).__name__}` makes a "
                f"`{type(inner).__name__}` that its `get_config` does not hold: "
                "replace it in the code of that class"
            )
