"""The progress bar of `fit_readout`."""

import math
import time

import keras

DELAY = 2.0  # seconds before `verbose="auto"` shows the bar


class ProgressBar:
    """Counts chunks; with `verbose="auto"`, appears only if the work takes long.

    Args:
        verbose: 1, 0 or "auto"; see `fit_readout`.
    """

    def __init__(self, verbose):
        self._delay = {0: math.inf, 1: 0.0, "auto": DELAY}[verbose]
        self._chunks, self._bar = 0, None

    def __enter__(self):
        return self

    def advance(self):
        """Counts a finished chunk."""
        self._chunks += 1
        if self._chunks == 1:  # the first chunk includes compilation
            self._start = time.monotonic()
        if self._bar is None and time.monotonic() - self._start >= self._delay:
            self._bar = keras.utils.Progbar(None, unit_name="chunk")
        if self._bar is not None:
            self._bar.update(self._chunks)

    def __exit__(self, *error):
        if self._bar is not None and not any(error):
            self._bar.update(self._chunks, finalize=True)
