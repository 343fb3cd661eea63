"""Ending a run that no longer improves."""

import math
from collections.abc import Mapping
from typing import Any

from sr_train.api.callback import Callback, Run
from sr_train.api.errors import ConfigError, did_you_mean


class EarlyStopping(Callback):
    """End the run once a metric has not improved for some validations in a row.

    A resume of a run that ended so does not train on, and says why, unless `patience` was raised.

    Args:
        metric: by its name in `metrics`, the mean over all validation sets; or SET/METRIC. Which
            way is better, the metric knows.
        patience: validations in a row without an improvement, from 1 up.
        min_delta: what counts as an improvement is better than the best by more than this.
    """

    def __init__(self, metric: str, patience: int = 10, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"patience={patience}: expected a whole number from 1 up")
        if not min_delta >= 0:
            raise ValueError(f"min_delta={min_delta}: expected a number from 0 up")
        self.metric = metric
        self.patience = patience
        self.min_delta = min_delta
        self.best: float | None = None
        """The best value so far, and the step that reached it."""
        self.best_step = 0
        self.bad_validations = 0
        """Validations without an improvement, in a row."""

    def on_run_start(self, run: Run) -> None:
        """Check the metric; stop at once where a resumed run had come to its end."""
        if not run.higher_is_better:
            raise ConfigError("there is no validation set, so that there is nothing to stop by")
        if self.metric not in run.higher_is_better:
            hint = did_you_mean(self.metric, run.higher_is_better)
            raise ConfigError(f"metric={self.metric}: no such score{hint}")
        self._stop_if_due(run)

    def on_validation_end(self, run: Run, scores: Mapping[str, float]) -> None:
        """Count the validation as good or bad; NaN is bad."""
        value = scores[self.metric]
        if self._is_better(value, run):
            self.best, self.best_step, self.bad_validations = value, run.step, 0
            return
        self.bad_validations += 1
        self._stop_if_due(run)

    def _is_better(self, value: float, run: Run) -> bool:
        if self.best is None:
            return not math.isnan(value)
        gain = value - self.best
        return (gain if run.higher_is_better[self.metric] else -gain) > self.min_delta

    def _stop_if_due(self, run: Run) -> None:
        if self.bad_validations < self.patience:
            return
        way = "risen" if run.higher_is_better[self.metric] else "fallen"
        best = "" if self.best is None else f", best {self.best:.4f} at step {self.best_step}"
        run.stop(
            f"{self.metric} has not {way} for {self.bad_validations} validations{best}; "
            "to train on, raise patience"
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_step": self.best_step,
            "bad_validations": self.bad_validations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = state["best"]
        self.best_step = state["best_step"]
        self.bad_validations = state["bad_validations"]
