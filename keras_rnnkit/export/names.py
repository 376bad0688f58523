"""Names of inputs and outputs, in a model and in the signatures of its files."""

import keyword
import re

import keras

from keras_rnnkit.recurrence import unused


def input_names(model) -> list[str]:
    """The names of the input layers, in the order of `model.inputs`."""
    if isinstance(model, keras.Sequential):
        return [x.name for x in model.inputs]
    layers = [x for x in model.layers if isinstance(x, keras.layers.InputLayer)]
    names = {id(layer.output): layer.name for layer in layers}
    return [names[id(x)] for x in model.inputs]


def signature_names(model) -> list[str]:
    """The names of the inputs in a signature, which have to be Python identifiers.

    A name that is none gets `_` for each letter that may not stand there, and a number
    if another input has the name already.
    """
    own = input_names(model)
    taken = {name for name in own if identifier(name) == name}
    names = []
    for name in own:
        if name not in taken:
            name = unused(identifier(name), taken)
            taken.add(name)
        names.append(name)
    return names


def identifier(name: str) -> str:
    """The name as TensorFlow writes it: an ASCII identifier that begins no `_`."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not name[:1].isalpha():
        name = f"arg_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def by_signature(model, given):
    """Data by the names of a signature, if it came by those of the model's inputs."""
    if not isinstance(given, dict) or not hasattr(model, "inputs"):  # a `Seq2Seq`
        return given
    names = dict(zip(input_names(model), signature_names(model), strict=True))
    return {names.get(name, name): x for name, x in given.items()}


def named_outputs(outputs) -> dict:
    """A model's outputs by name: their keys, and those of dicts within them, joined by
    `_`, or `output_0` and so on."""
    if not isinstance(outputs, dict):
        flat = keras.tree.flatten(outputs)
        return {f"output_{number}": y for number, y in enumerate(flat)}
    named = {}
    for name, y in leaves(outputs):
        named[unused("_".join(map(str, name)), named)] = y
    return named


def leaves(nest, name=()):
    """Yields what a nest holds with its keys and places."""
    if isinstance(nest, dict):
        nest = nest.items()
    elif isinstance(nest, (list, tuple)):
        nest = enumerate(nest)
    else:
        yield name, nest
        return
    for key, inner in nest:
        yield from leaves(inner, (*name, key))
