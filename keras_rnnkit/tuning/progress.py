"""One line of progress in place of KerasTuner's tables."""

import inspect
import sys
import time
from datetime import timedelta
from importlib.util import find_spec


class Progress:
    """Mixed in before a tuner, shows how far its search is and the best score.

        class Search(Progress, keras_tuner.RandomSearch): ...
        Search(build, objective="val_loss", max_trials=20).search(x, y)

    It stands in for all that KerasTuner and `fit` print, whatever `verbose` is. A
    terminal has one line that is written anew, a file a line for each trial. Trials
    that failed are counted, and those of an earlier search that was stopped, too. What
    a trial fails with is printed by KerasTuner, on lines of its own.
    """

    def search(self, *args, **kwargs):
        """Runs the search, as the tuner does.

        Raises:
            ImportError: `tensorboard` is not installed, without which each trial of
                KerasTuner fails.
        """
        if self.hypermodel is not None and find_spec("tensorboard") is None:
            raise ImportError(
                "a search needs the package `tensorboard`, which KerasTuner imports in "
                "each trial: pip install 'keras_rnnkit[tuner]'"
            )
        if "verbose" in kwargs or self._fit_takes_verbose():
            kwargs["verbose"] = 0
        self.oracle.verbose = 0
        self._began, self._ended_before = time.time(), len(self.oracle.end_order)
        self._show()
        try:
            super().search(*args, **kwargs)
        finally:
            self._end_line()

    def run_trial(self, trial, *args, **kwargs):
        """Called by the tuner."""
        try:
            return super().run_trial(trial, *args, **kwargs)
        except Exception:
            self._end_line()  # of which KerasTuner prints the traceback
            raise

    def on_trial_end(self, trial):
        """Called by the tuner."""
        if self.oracle.max_retries_per_trial:
            self._end_line()  # as KerasTuner says here that it tries again
        super().on_trial_end(trial)
        self._show()

    def _fit_takes_verbose(self):
        """Whether a user's own `HyperModel.fit` takes the argument."""
        if self.hypermodel is None:
            return False
        taken = inspect.signature(self.hypermodel.fit).parameters.values()
        return any(p.name == "verbose" or p.kind is p.VAR_KEYWORD for p in taken)

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
        """How many trials are done, how long they take, and how good they are."""
        oracle = self.oracle
        ended = [oracle.trials[trial] for trial in oracle.end_order]
        good = [trial.score for trial in ended if trial.status == "COMPLETED"]
        of = f"/{oracle.max_trials}" if oracle.max_trials else ""
        parts = [f"trials {len(ended)}{of}"]
        here = len(ended) - self._ended_before
        if here:
            each = (time.time() - self._began) / here
            parts.append(f"{each:.1f} s each")
            left = (oracle.max_trials or 0) - len(ended)
            if left > 0:
                parts.append(f"{timedelta(seconds=round(each * left))} left")
        if good:
            best = max(good) if oracle.objective.direction == "max" else min(good)
            parts.append(f"best: {best:.5g}")
        if len(good) < len(ended):
            parts.append(f"{len(ended) - len(good)} failed")
        return ", ".join(parts)
