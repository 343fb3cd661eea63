"""How long a run is, how often it does what, and what counts as its best."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How long a run is and how often it does what, in steps; 0: at the end only."""

    steps: int
    accum: int = 1
    log_every: int = 100
    val_every: int = 0
    checkpoint_every: int = 0
    keep_last: int = 3

    def logs_at(self, step: int) -> bool:
        """Whether a step is logged."""
        return self._is_due(step, self.log_every)

    def validates_at(self, step: int) -> bool:
        """Whether a step is validated, and saved before and after that."""
        return self._is_due(step, self.val_every)

    def saves_at(self, step: int) -> bool:
        """Whether a step is saved, even if it is not validated."""
        return self._is_due(step, self.checkpoint_every)

    def _is_due(self, step: int, every: int) -> bool:
        return step == self.steps or (every > 0 and step % every == 0)


@dataclass
class Best:
    """The best value of a metric so far."""

    higher_is_better: bool
    value: float | None = None

    def improved_by(self, value: float) -> bool:
        """Take a new value up; return whether it is the best. NaN never is."""
        better = not math.isnan(value) and (
            self.value is None
            or (value > self.value if self.higher_is_better else value < self.value)
        )
        if better:
            self.value = value
        return better
