"""Values that a `with` block sets for its thread."""

import threading
from contextlib import contextmanager


class Scoped:
    """A value of the thread: `default`, or what the innermost `with` block has set.

    Each module that needs one owns it, and offers a context manager of its own.
    """

    def __init__(self, default):
        self._default = default
        self._local = threading.local()

    @property
    def value(self):
        return getattr(self._local, "value", self._default)

    @contextmanager
    def set(self, value):
        """Sets the value inside the block."""
        before = self.value
        self._local.value = value
        try:
            yield
        finally:
            self._local.value = before
