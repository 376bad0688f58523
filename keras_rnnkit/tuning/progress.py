"""One line of progress in place of KerasTuner's tables."""

import keras


class Progress:
    """Mixed in before a tuner, shows how far its search is and the best score.

        class Search(Progress, keras_tuner.RandomSearch): ...
        Search(build, objective="val_loss", max_trials=20).search(x, y, verbose=0)

    Trials of an earlier search that was stopped are counted as done.
    """

    def search(self, *args, **kwargs):
        """Runs the search, as the tuner does."""
        self._bar = keras.utils.Progbar(
            self.oracle.max_trials, stateful_metrics=["best"], unit_name="trial"
        )
        self._show()
        super().search(*args, **kwargs)

    def on_trial_end(self, trial):
        """Called by the tuner."""
        super().on_trial_end(trial)
        self._show()

    def _show(self):
        done = [t for t in self.oracle.trials.values() if t.score is not None]
        best = self.oracle.get_best_trials(1)
        values = [("best", best[0].score)] if best else None
        self._bar.update(len(done), values=values, finalize=False)
