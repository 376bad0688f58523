"""Reduces errors of Keras, TensorFlow and the converter to one sentence."""

import re
import traceback
from contextlib import contextmanager
from pathlib import Path

import keras

from keras_rnnkit.internals import all_layers

PACKAGE = Path(__file__).parent.parent
MAX_CHARACTERS = 300  # quoted from an error
USER_CODE_HEADER = "in user code:"
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
def explain_errors(model):
    """Re-raises errors as one sentence that names the layer.

    Errors of this package, of files and of memory pass through unchanged.
    """
    filtered = keras.config.is_traceback_filtering_enabled()
    # The filter would mix Keras's messages with others and hide the failing frame.
    keras.config.disable_traceback_filtering()
    try:
        yield
    except (OSError, MemoryError, NotImplementedError):
        raise
    except Exception as error:
        if raised_by_package(error):
            raise
        name = failing_layer(error, model)
        where = f"`{name}` of `{model.name}`" if name else f"`{model.name}`"
        message = first_sentence(error)
        remedy = next((text for sign, text in REMEDIES.items() if sign in message), "")
        raise ValueError(
            f"{where} cannot be exported: nothing was written. "
            f"{type(error).__name__}: {message}{remedy and f': {remedy}'}"
        ) from error
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


def raised_by_package(error) -> bool:
    """Returns whether this package itself raised an error."""
    frames = traceback.extract_tb(error.__traceback__)
    own = Path(frames[-1].filename).is_relative_to(PACKAGE)
    return own and USER_CODE_HEADER not in str(error)


def failing_layer(error, model) -> str | None:
    """Returns the name of the innermost layer that was running when a model failed."""
    known = {id(layer) for layer in all_layers(model)} - {id(model)}
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        layer = frame.f_locals.get("self")
        if id(layer) in known:
            found = layer.name
    return found


def first_sentence(error) -> str:
    """Returns the message of an error without the traceback that TensorFlow adds."""
    message = str(error)
    if USER_CODE_HEADER in message:  # the message follows the traceback
        message = re.split(r"\n\s+(?=\w+(?:Error|Exception): )", message)[-1]
        message = message.partition(": ")[2] or message
    paragraphs = [" ".join(each.split()) for each in message.strip().split("\n\n")]
    return paragraphs[0][:MAX_CHARACTERS].rstrip(" .:")


def layers_in(text: str, model) -> list[str]:
    """Returns the layers of a model whose name scopes appear in a text."""
    names = [layer.name for layer in all_layers(model)]
    found = [n for n in names if re.search(rf"/{re.escape(n)}(_\d+)?/", text)]
    return list(dict.fromkeys(found))
