"""A Griffe extension: shows "Call arguments:" as a list, as it shows "Args:"."""

import griffe

CALL = "Call arguments:\n"


class CallArguments(griffe.Extension):
    """Gives the section a name that Griffe knows."""

    def on_object(self, *, obj, **_):
        docstring = obj.docstring
        if docstring and CALL in docstring.value:
            shown = "Other Parameters: Call arguments\n"
            docstring.value = docstring.value.replace(CALL, shown)
