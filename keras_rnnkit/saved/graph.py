"""Converts the calls of layers in a Keras 2 model configuration.

A call is a nested structure of references `[layer, node, tensor]` or, with keyword
arguments, `[layer, node, tensor, arguments]`.
"""

MODELS = "Functional", "Model", "Sequential"
RECURRENT = "Bidirectional", "GRU", "LSTM", "RNN", "SimpleRNN"


def layers_of(config) -> dict:
    """Returns the configurations of a model's layers by name, in order."""
    arguments = config["config"]
    layers = arguments["layers"] if isinstance(arguments, dict) else arguments
    return {name_of(layer): layer for layer in layers}


def name_of(layer):
    """Returns the name of a layer; before Keras 2.2.3 a `Sequential` is a list."""
    arguments = layer["config"]
    own = arguments.get("name") if isinstance(arguments, dict) else None
    return own or layer.get("name", "sequential")


def call_of(layer, node, layers):
    """Returns the arguments of a call of a layer in the form of Keras 3."""
    if isinstance(node, dict) and set(node) == {"args", "kwargs"}:
        return node
    given = map_references(node, lambda ref: _tensor(ref, layers))
    leaves = []
    map_references(node, leaves.append)
    options = next((leaf[3] for leaf in leaves[::-1] if len(leaf) > 3), {})
    options = {
        k: map_references(v, lambda ref: _tensor(ref, layers), layers)
        for k, v in options.items()
    }
    if isinstance(given, list) and len(given) == 1:
        (given,) = given
    if layer["class_name"].endswith(RECURRENT):
        if layer["config"].get("num_constants") or options.pop("constants", None):
            raise ValueError(
                f"layer `{layer['name']}` is called with `constants`, which Keras 3 "
                "does not have: give them to the layer with its inputs"
            )
        if isinstance(given, list):
            given, *options["initial_state"] = given
    return {"args": [given], "kwargs": options}


def map_references(value, function, names=None):
    """Applies `function` to each reference `[layer, node, tensor]` in a structure.

    Args:
        names: names of the layers, if the structure may have other lists.
    """
    if isinstance(value, list):
        leaf = value and isinstance(value[0], str) and len(value) in (3, 4)
        if leaf and (names is None or value[0] in names):
            return function(value)
        return [map_references(each, function, names) for each in value]
    if isinstance(value, dict):
        return {
            key: map_references(each, function, names) for key, each in value.items()
        }
    return value


def _tensor(reference, layers):
    """Returns a reference to the output of a call in the form of Keras 3."""
    name, node, tensor = reference[:3]
    if name not in layers:
        raise ValueError(
            f"a layer is called with a constant, {reference[2]!r}, which Keras 3 "
            "cannot read: rebuild the model"
        )
    history = [name, node - _previous_calls(layers[name]), tensor]
    # Shape and dtype are ignored: the tensor itself replaces the reference.
    described = {"shape": [None], "dtype": "float32", "keras_history": history}
    return {"class_name": "__keras_tensor__", "config": described}


def model_end(reference, layers):
    """Returns a reference to an input or output of the model."""
    name, node, tensor = reference[:3]
    # Keras 3 itself skips the first call of models other than `Sequential`.
    sequential = layers[name]["class_name"] == "Sequential"
    return [name, node - (_previous_calls(layers[name]) if sequential else 0), tensor]


def _previous_calls(layer):
    """Returns the number of calls of a layer before those in its parent: Keras 2 calls
    a model once when it is created, if its input is known."""
    if layer["class_name"] not in MODELS:
        return 0
    if any(isinstance(node, dict) for node in layer["inbound_nodes"]):
        return 0
    if layer["class_name"] != "Sequential":
        return 1
    first = next(iter(layers_of(layer).values()))
    return int(
        first["class_name"] == "InputLayer" or "batch_input_shape" in first["config"]
    )
