"""A Griffe extension for what plain inspection misses in this package."""

import inspect
import re

import griffe

CALL = "Call arguments:\n"


class Sections(griffe.Extension):
    """Formats "Call arguments:" like "Args:", shows the signatures that classes get at
    import, and hides the docstrings of `str` or `tuple` under constants."""

    def on_object(self, *, obj, **_):
        docstring = obj.docstring
        if docstring and CALL in docstring.value:
            title = "Other Parameters: Call arguments\n"
            docstring.value = docstring.value.replace(CALL, title)

    def on_attribute(self, *, attr, **_):
        attr.docstring = None

    def on_function(self, *, func, **_):
        for each in func.parameters:
            each.annotation = without_modules(each.annotation)
        func.returns = without_modules(func.returns)

    def on_class_members(self, *, node, cls, **_):
        init = getattr(node.obj, "__init__", None)
        if hasattr(init, "__signature__"):
            parameters = map(to_griffe, init.__signature__.parameters.values())
            parameters = griffe.Parameters(*parameters)
            function = griffe.Function("__init__", parameters=parameters)
            cls.set_member("__init__", function)


def without_modules(annotation) -> str | None:
    """Shortens `collections.abc.Sequence[keras.layers.Layer]` to `Sequence[Layer]`."""
    return annotation and re.sub(r"\w+\.(?=\w)", "", str(annotation))


def to_griffe(parameter: inspect.Parameter) -> griffe.Parameter:
    """Converts a parameter of `inspect` to one of Griffe."""
    has_default = parameter.default is not inspect.Parameter.empty
    return griffe.Parameter(
        parameter.name,
        kind=griffe.ParameterKind(parameter.kind.description),
        default=repr(parameter.default) if has_default else None,
    )
