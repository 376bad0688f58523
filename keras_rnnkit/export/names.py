"""Names of inputs and outputs, in a model and in the signatures of its files."""

import keyword
import re

import keras

from keras_rnnkit.recurrence import unused


def input_names(model) -> list[str]:
    """Returns the names of the input layers, in the order of `model.inputs`."""
    if isinstance(model, keras.Sequential):
        return [x.name for x in model.inputs]
    layers = [x for x in model.layers if isinstance(x, keras.layers.InputLayer)]
    names = {id(layer.output): layer.name for layer in layers}
    return [names[id(x)] for x in model.inputs]


def signature_names(model) -> list[str]:
    """Returns the names of the inputs in a signature, which must be identifiers.

    Invalid characters become `_`; a number is added to a name that is taken.
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
    """Returns the name as TensorFlow writes it: an ASCII identifier, no leading `_`."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not name[:1].isalpha():
        name = f"arg_{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def by_signature(model, given):
    """Renames data given by the names of a model's inputs to those of its signature."""
    if not isinstance(given, dict) or not hasattr(model, "inputs"):  # a `Seq2Seq`
        return given
    names = dict(zip(input_names(model), signature_names(model), strict=True))
    return {names.get(name, name): x for name, x in given.items()}


def named_outputs(outputs) -> dict:
    """Returns outputs by name: the keys of nested dicts joined by `_`, or `output_0`,
    `output_1` and so on."""
    if not isinstance(outputs, dict):
        flat = keras.tree.flatten(outputs)
        return {f"output_{number}": y for number, y in enumerate(flat)}
    named = {}
    for name, y in leaves_with_paths(outputs):
        named[unused("_".join(map(str, name)), named)] = y
    return named


def leaves_with_paths(nest, name=()):
    """Yields the leaves_with_paths of a nested structure with their paths."""
    if isinstance(nest, dict):
        nest = nest.items()
    elif isinstance(nest, (list, tuple)):
        nest = enumerate(nest)
    else:
        yield name, nest
        return
    for key, inner in nest:
        yield from leaves_with_paths(inner, (*name, key))
