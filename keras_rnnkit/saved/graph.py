"""How the layers of a model of Keras 2 are called.

A call is a structure of references `[layer, node, tensor]` or, with the call's other
arguments, `[layer, node, tensor, arguments]`.
"""

MODELS = "Functional", "Model", "Sequential"
RECURRENT = "Bidirectional", "GRU", "LSTM", "RNN", "SimpleRNN"


def layers_of(config) -> dict:
    """The configurations of a model's layers by name, in their order."""
    arguments = config["config"]
    layers = arguments["layers"] if isinstance(arguments, dict) else arguments
    return {name_of(layer): layer for layer in layers}


def name_of(layer):
    """The name of a layer; a `Sequential` before Keras 2.2.3 is a list of layers."""
    arguments = layer["config"]
    own = arguments.get("name") if isinstance(arguments, dict) else None
    return own or layer.get("name", "sequential")


def call_of(layer, node, layers):
    """The arguments of a call of a layer."""
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
    """Passes each reference `[layer, node, tensor]` within a structure to `function`.

    Args:
        names: of the layers, where there are other values among the references.
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
    """A reference to the output of a call as Keras 3 writes it."""
    name, node, tensor = reference[:3]
    if name not in layers:
        raise ValueError(
            f"a layer is called with a constant, {reference[2]!r}, which Keras 3 "
            "cannot read: build the model anew"
        )
    history = [name, node - _before(layers[name]), tensor]
    # Shape and type are those of the tensor that takes its place.
    described = {"shape": [None], "dtype": "float32", "keras_history": history}
    return {"class_name": "__keras_tensor__", "config": described}


def end_of(reference, layers):
    """A reference to an input or output of the model."""
    name, node, tensor = reference[:3]
    # Keras 3 itself leaves out the first call of models that are no `Sequential`.
    sequential = layers[name]["class_name"] == "Sequential"
    return [name, node - (_before(layers[name]) if sequential else 0), tensor]


def _before(layer):
    """How many calls of a layer came before the first one in the model around it: a
    model in Keras 2 has been called once when it is made, if its input is known."""
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
