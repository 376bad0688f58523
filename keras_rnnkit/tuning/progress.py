"""One line of progress in place of KerasTuner's tables."""

import inspect
import sys
import time
from datetime import timedelta
from importlib.util import find_spec


class Progress:
    """A mixin for tuners that shows the progress of a search and its best score.

    It replaces everything that KerasTuner and `fit` print, whatever `verbose` is. On a
    terminal, one line is updated in place; a file gets a line for each trial. The count
    includes failed trials, and those of an earlier search that is resumed. KerasTuner
    prints the error of a failed trial on lines of its own.

    Example:

    ```python
    class Search(rk.tuning.Progress, keras_tuner.RandomSearch):
        pass


    # `build` makes a model from hyperparameters; see `recurrent_stack`.
    tuner = Search(build, objective="val_loss", max_trials=20)
    tuner.search(x, y, validation_split=0.2, epochs=10)
    ```
    """

    def search(self, *args, **kwargs):
        """Runs the search.

        Args:
            *args: passed to the tuner's `search`.
            **kwargs: passed to the tuner's `search`, with `verbose=0`.

        Raises:
            ImportError: `tensorboard`, which KerasTuner needs in every trial, is not
                installed.
        """
        if self.hypermodel is not None and find_spec("tensorboard") is None:
            raise ImportError(
                "a search needs the package `tensorboard`, which KerasTuner imports in "
                "each trial: pip install 'keras_rnnkit[tuner]'"
            )
        if "verbose" in kwargs or self._fit_takes_verbose():
            kwargs["verbose"] = 0
        self.oracle.verbose = 0
        self._start_time = time.time()
        self._ended_before = len(self.oracle.end_order)
        self._show()
        try:
            super().search(*args, **kwargs)
        finally:
            self._end_line()

    def run_trial(self, trial, *args, **kwargs):
        """Called by the tuner; ends the line before KerasTuner prints an error."""
        try:
            return super().run_trial(trial, *args, **kwargs)
        except Exception:
            self._end_line()
            raise

    def on_trial_end(self, trial):
        """Called by the tuner; shows the new state."""
        if self.oracle.max_retries_per_trial:
            self._end_line()  # KerasTuner prints here that it retries
        super().on_trial_end(trial)
        self._show()

    def _fit_takes_verbose(self):
        """Whether the `fit` of the hypermodel has an argument `verbose`."""
        if self.hypermodel is None:
            return False
        parameters = inspect.signature(self.hypermodel.fit).parameters.values()
        return any(p.name == "verbose" or p.kind is p.VAR_KEYWORD for p in parameters)

    def _show(self):
        line = self._line()
        if sys.stdout.isatty():
            print(f"\r\x1b[2K{line}", end="", flush=True)
            self._is_open = True
        else:
            print(line, flush=True)

    def _end_line(self):
        if getattr(self, "_is_open", False):
            print(flush=True)
            self._is_open = False

    def _line(self):
        """The text of the line: trials done, time per trial, time left, best score."""
        oracle = self.oracle
        ended = [oracle.trials[trial] for trial in oracle.end_order]
        scores = [trial.score for trial in ended if trial.status == "COMPLETED"]
        total = f"/{oracle.max_trials}" if oracle.max_trials else ""
        parts = [f"trials {len(ended)}{total}"]
        new = len(ended) - self._ended_before
        if new:
            seconds = (time.time() - self._start_time) / new
            parts.append(f"{seconds:.1f} s each")
            left = (oracle.max_trials or 0) - len(ended)
            if left > 0:
                parts.append(f"{timedelta(seconds=round(seconds * left))} left")
        if scores:
            best = max(scores) if oracle.objective.direction == "max" else min(scores)
            parts.append(f"best: {best:.5g}")
        if len(scores) < len(ended):
            parts.append(f"{len(ended) - len(scores)} failed")
        return ", ".join(parts)
