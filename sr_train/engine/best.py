"""What counts as the best of a run."""

import math
from dataclasses import dataclass


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
