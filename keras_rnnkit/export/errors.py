"""Errors of Keras, TensorFlow and the converter, told in one sentence."""

import re
import traceback
from contextlib import contextmanager
from pathlib import Path

import keras

from keras_rnnkit.internals import all_layers

PACKAGE = Path(__file__).parent.parent
LETTERS = 300  # of what others say
PAGE = "in user code:"
REMEDIES = {
    "untracked": "keep the resource as an attribute of the layer that uses it",
    "valid scope name": "give the layer a name of letters, digits and `_`",
    "iterating over a symbolic": "let the layer use `keras.ops` in place of Python "
    "loops and conditions",
    "symbolic `tf.Tensor` as a Python": "let the layer use `keras.ops` in place of "
    "Python loops and conditions",
    "None": "pass `batch_size` and `time_steps`, so that all sizes are known",
}


@contextmanager
def explained(model):
    """Has what goes wrong inside be one sentence that names the layer.

    Errors of this package say what they have to; those of files and memory too.
    """
    filtered = keras.config.is_traceback_filtering_enabled()
    # Keras would put its messages among others, and hide where they come from.
    keras.config.disable_traceback_filtering()
    try:
        yield
    except (OSError, MemoryError, NotImplementedError):
        raise
    except Exception as error:
        if is_ours(error):
            raise
        name = layer_of(error, model)
        where = f"`{name}` of `{model.name}`" if name else f"`{model.name}`"
        said = first_sentence(error)
        remedy = next((cure for sign, cure in REMEDIES.items() if sign in said), "")
        raise ValueError(
            f"{where} cannot be exported: nothing was written. "
            f"{type(error).__name__}: {said}{remedy and f': {remedy}'}"
        ) from error
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


def is_ours(error) -> bool:
    """Whether an error was raised by this package itself."""
    frames = traceback.extract_tb(error.__traceback__)
    own = Path(frames[-1].filename).is_relative_to(PACKAGE)
    return own and PAGE not in str(error)


def layer_of(error, model) -> str | None:
    """The name of the innermost layer of a model that was at work when it failed."""
    known = {id(layer) for layer in all_layers(model)} - {id(model)}
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        layer = frame.f_locals.get("self")
        if id(layer) in known:
            found = layer.name
    return found


def first_sentence(error) -> str:
    """What an error says, without the page around it."""
    said = str(error)
    if PAGE in said:  # the message stands at the end, after the lines of the program
        said = re.split(r"\n\s+(?=\w+(?:Error|Exception): )", said)[-1]
        said = said.partition(": ")[2] or said
    paragraphs = [" ".join(each.split()) for each in said.strip().split("\n\n")]
    return paragraphs[0][:LETTERS].rstrip(" .:")


def layers_in(text: str, model) -> list[str]:
    """The layers of a model whose scopes a text of TensorFlow's names."""
    names = [layer.name for layer in all_layers(model)]
    found = [n for n in names if re.search(rf"/{re.escape(n)}(_\d+)?/", text)]
    return list(dict.fromkeys(found))
