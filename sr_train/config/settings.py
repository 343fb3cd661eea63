"""Settings that parts of a run are built with: each field, its default and its rules, once.

They are parts of the schema of configs, and what the engine takes when it is used by itself.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from omegaconf import MISSING

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.api.loss_inputs import COLOURS, TARGETS


class Settings(Protocol):
    """Fields with rules."""

    def problems(self, where: str) -> Iterator[str]:
        """Yield what is wrong, a line each; `where` is the config path of the fields."""
        ...


def check(settings: Settings, where: str) -> None:
    """Raise where a rule is broken.

    Raises:
        ConfigError: naming each field at fault.
    """
    problems = list(settings.problems(where))
    if problems:
        raise ConfigError("; ".join(problems))


def at_least(where: str, least: int, **values: int) -> Iterator[str]:
    """Yield a problem for each whole number below a bound."""
    for key, value in values.items():
        if value < least:
            yield f"{where}.{key}={value}: expected a whole number from {least} up"


@dataclass
class LossScaleConfig:
    """The loss scale of fp16, see `sr_train.engine.precision.LossScaler`."""

    init_scale: float = 65536.0
    """The first scale."""
    growth_factor: float = 2.0
    """The scale is multiplied by this after `growth_interval` good steps."""
    backoff_factor: float = 0.5
    """The scale is multiplied by this after a gradient that is not finite."""
    growth_interval: int = 2000
    """Good steps in a row before the scale grows."""

    def problems(self, where: str) -> Iterator[str]:
        if not 0 < self.init_scale < math.inf:
            yield f"{where}.init_scale={self.init_scale}: expected a number above 0"
        if not 1 < self.growth_factor < math.inf:
            yield f"{where}.growth_factor={self.growth_factor}: expected a number above 1"
        if not 0 < self.backoff_factor < 1:
            yield f"{where}.backoff_factor={self.backoff_factor}: expected a number in (0, 1)"
        yield from at_least(where, 1, growth_interval=self.growth_interval)


@dataclass
class TermConfig:
    """One loss term."""

    loss: Any = MISSING
    weight: float = 1.0
    """Factor in the total; its sign counts; not zero."""
    start: int = 0
    """Steps of the network that learns from it which pass before the term counts."""
    ramp: int = 0
    """Such steps over which its weight then rises linearly."""

    def problems(self, where: str) -> Iterator[str]:
        if self.weight == 0 or not math.isfinite(self.weight):
            yield (
                f"{where}.weight={self.weight:g}: expected a finite number other than zero; "
                f"to drop the term: ~{where}"
            )
        for key, value in {"start": self.start, "ramp": self.ramp}.items():
            if value < 0:
                yield f"{where}.{key}={value}: expected a number of steps from 0 up"


@dataclass
class ObjectiveTermConfig(TermConfig):
    """One loss term of the generator."""

    target: str = "gt"
    """`gt`, or `lq` (upscaled by bicubic)."""
    colour: str = "rgb"
    """`rgb` (the network's own planes), `y`, or `cbcr`."""

    def problems(self, where: str) -> Iterator[str]:
        yield from super().problems(where)
        if self.target not in TARGETS:
            yield f"{where}.target={self.target}: expected gt or lq"
        if self.colour not in COLOURS:
            hint = did_you_mean(self.colour, COLOURS)
            yield f"{where}.colour={self.colour}: expected rgb, y or cbcr{hint}"


@dataclass
class PaceConfig:
    """At which steps a discriminator learns, see `sr_train.engine.adversary.Pace`."""

    every: int = 1
    """It learns at every so many steps."""
    start: int = 0
    """Steps before it learns. To warm it up, let the generator start later: objective.gan.start."""
    adaptive: bool = False
    """Learn less often while it wins too clearly."""
    slowest: int = 8
    """Adaptive: the most steps between two updates."""
    strong: float = 0.95
    """Adaptive: accuracy above which it learns half as often."""
    weak: float = 0.85
    """Adaptive: accuracy below which it learns more often again."""

    def problems(self, where: str) -> Iterator[str]:
        yield from at_least(where, 1, every=self.every, slowest=self.slowest)
        yield from at_least(where, 0, start=self.start)
        if self.slowest < self.every:
            yield f"{where}.slowest={self.slowest}: expected at least {where}.every={self.every}"
        if not 0.5 <= self.weak < self.strong <= 1.0:
            yield (
                f"{where}.weak={self.weak}, strong={self.strong}: expected "
                "0.5 <= weak < strong <= 1"
            )


@dataclass
class Cadence:
    """How long a run is and how often it does what, in steps (optimizer updates)."""

    steps: int = MISSING
    accum: int = 1
    """Micro-batches per step; `data.batch_size` must be a multiple."""
    log_every: int = 100
    val_every: int = 5000
    """0: validate at the end only."""
    checkpoint_every: int = 5000
    """0: save at the end only."""
    keep_last: int = 3
    """Training checkpoints kept beside the newest healthy one; at least 1."""

    def problems(self, where: str) -> Iterator[str]:
        yield from at_least(
            where,
            1,
            steps=self.steps,
            accum=self.accum,
            log_every=self.log_every,
            keep_last=self.keep_last,
        )
        yield from at_least(
            where, 0, val_every=self.val_every, checkpoint_every=self.checkpoint_every
        )

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
