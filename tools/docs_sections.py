"""A Griffe extension: what inspection alone does not show of this package."""

import inspect
import re

import griffe

CALL = "Call arguments:\n"


class Sections(griffe.Extension):
    """Shows "Call arguments:" as a list, as it shows "Args:", the signatures that
    classes get when the package is imported, types without their modules, and no
    docstring of `str` or `tuple` under a constant."""

    def on_object(self, *, obj, **_):
        docstring = obj.docstring
        if docstring and CALL in docstring.value:
            shown = "Other Parameters: Call arguments\n"
            docstring.value = docstring.value.replace(CALL, shown)

    def on_attribute(self, *, attr, **_):
        attr.docstring = None

    def on_function(self, *, func, **_):
        for each in func.parameters:
            each.annotation = without_modules(each.annotation)
        func.returns = without_modules(func.returns)

    def on_class_members(self, *, node, cls, **_):
        own = getattr(node.obj, "__init__", None)
        if hasattr(own, "__signature__"):
            taken = map(parameter, own.__signature__.parameters.values())
            taken = griffe.Parameters(*taken)
            cls.set_member("__init__", griffe.Function("__init__", parameters=taken))


def without_modules(annotation) -> str | None:
    """Shortens `collections.abc.Sequence[keras.layers.Layer]` to `Sequence[Layer]`."""
    return annotation and re.sub(r"\w+\.(?=\w)", "", str(annotation))


def parameter(given: inspect.Parameter) -> griffe.Parameter:
    """A parameter of Python's as one of Griffe's."""
    has_default = given.default is not inspect.Parameter.empty
    return griffe.Parameter(
        given.name,
        kind=griffe.ParameterKind(given.kind.description),
        default=repr(given.default) if has_default else None,
    )
