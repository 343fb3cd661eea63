"""Callbacks that adapt the run to what a log window shows, as its config asks for."""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from sr_train.api.callback import Callback, Run
from sr_train.config.schema import PrecisionConfig
from sr_train.engine.model import SRModel
from sr_train.engine.precision import Precision
from sr_train.monitoring.meter import LogWindow

log = logging.getLogger(__name__)

ADAPTIVE_PACE = "discriminator.adaptive"
ADAPTIVE_PRECISION = "precision.adaptive"
"""Config paths of the settings that switch them on, which name them in errors and states."""


class AdaptivePace(Callback):
    """Let the discriminator learn less often while it wins too clearly, see `Pace`.

    It keeps nothing: the pace itself is stored with the discriminator.
    """

    def on_log(self, run: Run, window: LogWindow) -> None:
        accuracy = window.means.get("gan/d_accuracy")
        if run.model.adversary is None or accuracy is None:
            return
        _report(run, run.model.adversary.pace.adapt(accuracy))


@dataclass(frozen=True)
class PrecisionLevel:
    """A precision, and how many times longer than configured its loss scale waits to grow."""

    precision: str
    patience: int = 1

    def __str__(self) -> str:
        slower = f" (scale grows 1/{self.patience} as often)"
        return self.precision if self.patience == 1 else self.precision + slower


def levels_from(precision: Precision) -> tuple[PrecisionLevel, ...]:
    """Return the chosen precision and what it gives way to, in order, on its device."""
    bf16 = precision.device.type == "cpu" or (
        precision.device.type == "cuda" and torch.cuda.is_bf16_supported(False)
    )
    below = {"fp16": ("fp16", "bf16", "fp32"), "bf16": ("bf16", "fp32"), "fp32": ("fp32",)}
    names = [name for name in below[precision.name] if bf16 or name != "bf16"]
    slower = (PrecisionLevel("fp16", 2),) if precision.name == "fp16" else ()
    return (PrecisionLevel(names[0]), *slower, *map(PrecisionLevel, names[1:]))


@dataclass
class State:
    """What an `AdaptivePrecision` knows: all of it is kept in checkpoints."""

    level: int = 0
    """Levels below the chosen precision."""
    bad_windows: int = 0
    """Log windows with too many skipped steps, in a row."""
    good_windows: int = 0
    """Log windows without a skipped step, in a row."""
    good_windows_needed: int = 0
    """Good windows before the next return."""
    changes: list[str] = field(default_factory=list)
    """What was changed at which step and why."""


class AdaptivePrecision(Callback):
    """Leave a precision that overflows again and again, and return once no step is skipped.

    The levels are fp16, fp16 whose loss scale grows half as often, bf16 (where the device has it),
    fp32. A run moves down one level after `patience` bad windows in a row: windows with at least
    two skipped steps, more than the fraction `most_skipped` of all. It moves to the next precision
    at once where half precision is hopeless: a loss scale fell below 1, or, where no loss is
    scaled, `hopeless` steps in a row were skipped. It moves up one level after `good_windows`
    windows without any skipped step; each return takes twice as many as the last.

    The steps of both networks count. On the lowest level, fp32, nothing is left to change: a step
    skipped there has another cause, such as a batch with NaN pixels, reported elsewhere.

    Args:
        model: whose precision is adapted, in the precision of the config.
        settings: thresholds.
        num_ranks: processes whose steps a window adds up.
    """

    hopeless = 10

    def __init__(self, model: SRModel, settings: PrecisionConfig, num_ranks: int = 1) -> None:
        self.levels = levels_from(model.precision)
        self.state = State(good_windows_needed=settings.good_windows)
        self._model = model
        self._most_skipped = settings.most_skipped
        self._patience = settings.patience
        self._num_ranks = num_ranks

    def on_log(self, run: Run, window: LogWindow) -> None:
        _report(run, self.adapt(window))

    def adapt(self, window: LogWindow) -> str | None:
        """Move down or up by one look at a window; return the change and its reason."""
        hopeless = _collapse(self._model) or self._dead_end()
        if hopeless:
            return self._move(self._next_precision(), hopeless)
        now = self.state
        skipped, fraction = _skipped(window, self._num_ranks)
        if skipped >= 2 and fraction > self._most_skipped:
            now.good_windows, now.bad_windows = 0, now.bad_windows + 1
            if now.bad_windows < self._patience:
                return None
            reason = f"{100 * fraction:.0f} % of the steps were skipped"
            return self._move(now.level + 1, reason)
        now.bad_windows = 0
        now.good_windows = 0 if skipped else now.good_windows + 1
        if now.level == 0 or now.good_windows < now.good_windows_needed:
            return None
        now.good_windows_needed *= 2
        reason = f"no step was skipped for {now.good_windows} log intervals"
        return self._move(now.level - 1, reason)

    def _dead_end(self) -> str | None:
        for name, learner in self._model.learners.items():
            in_row = int(learner.skipped_in_row)
            if not learner.scaler.dynamic and in_row >= self.hopeless:
                return f"{in_row} steps of net_{name} in a row were skipped"
        return None

    def _next_precision(self) -> int:
        here = self.levels[self.state.level].precision
        lower = range(self.state.level + 1, len(self.levels))
        return next((at for at in lower if self.levels[at].precision != here), len(self.levels))

    def _move(self, level: int, reason: str) -> str | None:
        now = self.state
        now.bad_windows = now.good_windows = 0
        if level >= len(self.levels):
            return None
        before, now.level = self.levels[now.level], level
        self._apply()
        for learner in self._model.learners.values():
            learner.skipped_in_row.zero_()
        change = f"{reason}: precision {before} -> {self.levels[level]}"
        now.changes.append(f"step {self._model.generator.steps}: {change}")
        return change

    def _apply(self) -> None:
        level, model = self.levels[self.state.level], self._model
        for learner in model.learners.values():
            learner.scaler.patience = level.patience
        if model.precision.name != level.precision:
            model.use_precision(Precision(level.precision, model.device, "adapted"))

    def state_dict(self) -> dict[str, Any]:
        return {"levels": [str(level) for level in self.levels], **asdict(self.state)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the stored state; one of another precision or device begins anew."""
        stored = dict(state)
        if stored.pop("levels") != [str(level) for level in self.levels]:
            log.info("adaptive precision starts anew")
            return
        self.state = State(**stored)
        self._apply()
        log.info("adaptive precision resumes with %s", self.levels[self.state.level])


def _report(run: Run, change: str | None) -> None:
    if change is not None and run.is_main:
        log.warning("step %d: %s", run.step, change)


def _collapse(model: SRModel) -> str | None:
    for name, learner in model.learners.items():
        if learner.scaler.dynamic and float(learner.scaler.scale) < 1.0:
            return f"the loss scale of net_{name} fell to {float(learner.scaler.scale):g}"
    return None


def _skipped(window: LogWindow, num_ranks: int) -> tuple[int, float]:
    """Return the most steps that a network skipped in a window, and the largest fraction.

    A step is skipped where its gradient norm is not finite, on all ranks alike.
    """
    most, fraction = 0, 0.0
    for name, count in window.non_finite.items():
        if name.startswith("grad_norm/"):
            most = max(most, count // num_ranks)
            fraction = max(fraction, count / (count + window.counts.get(name, 0)))
    return most, fraction
