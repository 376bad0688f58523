"""Constructor arguments: inherited signatures, and the checks of single values."""

import functools
import inspect
import numbers
from collections.abc import Iterable

import keras

PACKAGE = "keras_rnnkit"


def options_of(cls: type) -> dict[str, inspect.Parameter]:
    """Returns the keyword-only arguments that `cls.__init__` itself names."""
    parameters = inspect.signature(vars(cls)["__init__"]).parameters
    return {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}


def extends(stock: type, *options_from: type):
    """Registers a class that takes the arguments of `stock`, and options of its own.

    The signature is read from `stock.__init__` and from the keyword-only arguments of
    the constructors of `options_from` (default: the class's own), so no list of
    arguments is written a second time. The class keeps it as `signature`, and the
    options' names as `options`.
    """

    def decorate(cls: type) -> type:
        inherited = [
            parameter
            for parameter in inspect.signature(stock.__init__).parameters.values()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        options = {}
        for source in options_from or (cls,):
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
        return keras.saving.register_keras_serializable(PACKAGE)(cls)

    return decorate


def check_positive_integer(name: str, value) -> None:
    """Raises `ValueError` unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer; received {value!r}")


def check_probability(name: str, value) -> None:
    """Raises `ValueError` unless `value` is a number in [0, 1)."""
    if not isinstance(value, numbers.Real) or not 0 <= value < 1:
        raise ValueError(f"`{name}` must lie in [0, 1); received {value!r}")


def check_choice(name: str, value, choices: Iterable) -> None:
    """Raises `ValueError` unless `value` is one of `choices`."""
    if not any(value is choice or value == choice for choice in choices):
        allowed = ", ".join(map(repr, choices))
        raise ValueError(f"`{name}` must be one of {allowed}; received {value!r}")
