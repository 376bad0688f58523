"""Constructor arguments: inherited signatures, and checks of single values."""

import functools
import inspect
import math
import numbers
from collections.abc import Iterable

import keras

from keras_rnnkit.argument_docs import complete_docstring

PACKAGE = "keras_rnnkit"


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """Returns the keyword-only arguments that `cls.__init__` itself names."""
    parameters = inspect.signature(vars(cls)["__init__"]).parameters
    return {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def extends(stock: type | None, *options_from: type):
    """Registers a class that takes the arguments of `stock`, and options of its own.

    The signature joins the arguments of `stock.__init__`, or without `stock` of the
    class's own constructor, and the keyword-only arguments of `options_from` and of the
    class, so that no list of arguments is written twice. The docstring is completed to
    document all of them.

    Args:
        stock: class of Keras, or None.
        *options_from: decorated classes whose keyword-only arguments are taken too.

    Returns:
        A decorator. It sets `signature` and `options`, the names of the options.
    """

    def decorate(cls):
        given = inspect.signature((stock or cls).__init__).parameters.values()
        inherited = [p for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
        own = (cls,) if "__init__" in vars(cls) else ()
        options = {}
        for source in (*options_from, *own):
            options |= options_of(source)
        rest = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
        original = cls.__init__

        @functools.wraps(original)
        def __init__(self, *args, **kwargs):
            original(self, *args, **kwargs)

        cls.signature = inspect.Signature([*inherited, *options.values(), rest])
        __init__.__signature__ = cls.signature
        cls.__init__ = __init__
        cls.options = tuple(options)
        complete_docstring(cls, cls.signature, *options_from)
        return keras.saving.register_keras_serializable(PACKAGE)(cls)

    return decorate


def takes(layer, argument: str) -> bool:
    """Whether the `call` of a layer or cell has an argument."""
    return argument in inspect.signature(layer.call).parameters


def check_positive_integer(name: str, value) -> None:
    """Raises `ValueError` unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer; received {value!r}")


def check_count(name: str, value) -> None:
    """Raises `ValueError` unless `value` is an integer of at least 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise ValueError(f"`{name}` must be an integer >= 0; received {value!r}")


def check_share(name: str, value) -> None:
    """Raises `ValueError` unless `value` is a number in (0, 1]."""
    if not is_number(value) or not 0 < value <= 1:
        raise ValueError(f"`{name}` must lie in (0, 1]; received {value!r}")


def check_at_least(name: str, value, least) -> None:
    """Raises `ValueError` unless `value` is a finite number of at least `least`."""
    if not is_number(value) or not least <= value < math.inf:
        raise ValueError(f"`{name}` must be >= {least}; received {value!r}")


def check_positive(name: str, value) -> None:
    """Raises `ValueError` unless `value` is a finite number above 0."""
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"`{name}` must be > 0; received {value!r}")


def is_number(value) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_probability(name: str, value) -> None:
    """Raises `ValueError` unless `value` is a number in [0, 1)."""
    if not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must lie in [0, 1); received {value!r}")


def check_choice(name: str, value, choices: Iterable) -> None:
    """Raises `ValueError` unless `value` is one of `choices`."""
    if not any(value is choice or value == choice for choice in choices):
        allowed = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {allowed}; received {value!r}")
