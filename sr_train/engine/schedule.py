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
        progress = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))


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


def _rise(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / (warmup + 1))
