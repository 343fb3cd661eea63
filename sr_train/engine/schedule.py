"""Learning-rate schedules: pure functions of the step, so that a resume needs no state.

The learning rate of step n (0 for the first) is `initial_lr * schedule(n)`. A changed learning
rate, length or schedule therefore takes effect at once when a run is resumed. Any callable
`(step: int) -> float` named by `_target_` is a schedule.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Schedule = Callable[[int], float]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A factor of 1 after `warmup` steps of linear rise."""

    warmup: int = 0

    def __call__(self, step: int) -> float:
        return _rise(step, self.warmup)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Half a cosine from 1 down to `final` at `steps`, after a linear rise of `warmup` steps.

    Reference: Loshchilov and Hutter, SGDR, ICLR 2017, eq. 5, https://arxiv.org/abs/1608.03983
    """

    steps: int
    final: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.steps <= self.warmup:
            raise ValueError(f"steps ({self.steps}) must be more than warmup ({self.warmup})")

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return _rise(step, self.warmup)
        progress = (step - self.warmup) / (self.steps - self.warmup)
        return _between(1.0, self.final, progress)


@dataclass(frozen=True, kw_only=True)
class MultiStep:
    """Multiply by `gamma` at each of the `milestones` (steps, rising), after a linear rise."""

    milestones: Sequence[int]
    gamma: float = 0.5
    warmup: int = 0

    def __post_init__(self) -> None:
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise ValueError(f"milestones must rise, got {list(self.milestones)}")

    def __call__(self, step: int) -> float:
        passed = sum(step >= milestone for milestone in self.milestones)
        return _rise(step, self.warmup) * self.gamma**passed


@dataclass(frozen=True, kw_only=True)
class CosineRestarts:
    """Cosines from `restart_weights[i]` down to `final`, one after another.

    After a linear rise of `warmup` steps, which are not counted in `periods`, the i-th cosine
    takes `periods[i]` steps: w * (1 - final) * (1 + cos(pi * t / period)) / 2 + final. Each begins
    with its own weight at once; after the last, the factor stays at `final`.

    Attributes:
        periods: steps of each cosine.
        restart_weights: height of each; None: 1 for all.
        final: factor at the foot of every cosine.
        warmup: steps of linear rise to the first height.

    Reference: Loshchilov and Hutter, SGDR, ICLR 2017, eq. 5, https://arxiv.org/abs/1608.03983
    """

    periods: Sequence[int]
    restart_weights: Sequence[float] | None = None
    final: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        if not self.periods or min(self.periods) < 1:
            raise ValueError(f"periods must be one or more positive steps, got {self.periods}")
        if self.restart_weights is not None and len(self.restart_weights) != len(self.periods):
            raise ValueError(
                f"restart_weights must be one for each of the {len(self.periods)} periods, "
                f"got {len(self.restart_weights)}"
            )

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return _rise(step, self.warmup) * self._cosine(0, 0.0)
        since = step - self.warmup
        for index, period in enumerate(self.periods):
            if since < period:
                return self._cosine(index, since / period)
            since -= period
        return self.final

    def _cosine(self, index: int, progress: float) -> float:
        weight = 1.0 if self.restart_weights is None else self.restart_weights[index]
        return _between(self.final + weight * (1.0 - self.final), self.final, progress)


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Half a cosine up to 1 and half a cosine down, over `steps` steps in all.

    The optimizer's lr is the peak. After a linear rise of `warmup` steps to `1 / div_factor`,
    which are counted in `steps`, the cycle starts there, reaches 1 after `pct_start` of what
    is left, and ends, at the last step, at `1 / (div_factor * final_div_factor)`.

    Reference: Smith and Topin, Super-Convergence, 2019, https://arxiv.org/abs/1708.07120, in the
    form of torch's OneCycleLR with two phases; the momentum is not changed.
    """

    steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.steps <= self.warmup:
            raise ValueError(f"steps ({self.steps}) must be more than warmup ({self.warmup})")
        if not 0 <= self.pct_start <= 1:
            raise ValueError(f"pct_start must be in [0, 1], got {self.pct_start}")
        if self.div_factor <= 0 or self.final_div_factor <= 0:
            raise ValueError("div_factor and final_div_factor must be above 0")

    def __call__(self, step: int) -> float:
        start = 1.0 / self.div_factor
        if step < self.warmup:
            return _rise(step, self.warmup) * start
        since, length = step - self.warmup, self.steps - self.warmup
        peak, last = max(self.pct_start * length - 1.0, 0.0), length - 1.0
        if since < peak:
            return _between(start, 1.0, since / peak)
        return _between(1.0, start / self.final_div_factor, (since - peak) / max(last - peak, 1.0))


def _between(first: float, last: float, progress: float) -> float:
    """Go from `first` to `last` along half a cosine; `progress` from 0 to 1, or beyond."""
    return last + (first - last) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def _rise(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / (warmup + 1))
