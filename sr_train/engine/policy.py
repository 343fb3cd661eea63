"""What adapts while a run goes on: looked at the log interval, logged, kept in checkpoints."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from sr_train.engine.model import SRModel
from sr_train.engine.precision import Precision
from sr_train.monitoring.meter import Window


class Policy(Protocol):
    """Changes a setting of the model by what a log window shows, the same on every rank."""

    def observe(self, model: SRModel, window: Window) -> str | None:
        """Look at a window; return what was changed and why, or None."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], model: SRModel) -> str:
        """Take up stored state; say what was done."""
        ...


class PacePolicy:
    """Let the discriminator learn less often while it wins too clearly, see `Pace`."""

    def observe(self, model: SRModel, window: Window) -> str | None:
        accuracy = window.means.get("gan/d_accuracy")
        if model.adversary is None or accuracy is None:
            return None
        return model.adversary.pace.adapt(accuracy)

    def state_dict(self) -> dict[str, Any]:
        return {"interval": None}

    def load_state_dict(self, state: dict[str, Any], model: SRModel) -> str:
        return "pace kept"


@dataclass(kw_only=True)
class PrecisionPolicy:
    """Leave a precision that overflows again and again, and come back once all is calm.

    A window is in trouble where more than `most_skipped` of its steps were skipped, or where the
    loss scale fell below 1. After `patience` such windows in a row, or at once where half of the
    steps were lost or the scale collapsed, fp16 first grows its scale half as often, and the time
    after gives way to bf16, where the device has it, or to fp32; bf16 gives way to fp32. After
    `calm` windows without a skipped step the precision before is tried again; each return asks
    for twice as many calm windows as the last.

    Args:
        most_skipped: share of skipped steps that is still taken as normal, in [0, 1].
        patience: windows in trouble before something is changed.
        calm: windows without a skipped step before the first return.
    """

    most_skipped: float = 0.05
    patience: int = 2
    calm: int = 20
    ladder: list[str] = field(default_factory=list)
    """Precisions from the chosen one down; filled at the first window."""
    level: int = 0
    slowed: bool = False
    troubled_windows: int = 0
    calm_windows: int = 0
    calm_needed: int = 0
    changes: list[str] = field(default_factory=list)
    """What was changed, for the summary of the run."""

    def observe(self, model: SRModel, window: Window) -> str | None:
        if not self.ladder:
            self.ladder = fallbacks(model.precision)
            self.calm_needed = self.calm
        skipped = window.non_finite.get("grad_norm/g", 0)
        share = skipped / max(1, skipped + window.counts.get("grad_norm/g", 0))
        scaler = model.generator.scaler
        collapsed = scaler.dynamic and float(scaler.scale) < 1.0
        if collapsed or share > self.most_skipped:
            self.calm_windows = 0
            self.troubled_windows += 1
            urgent = collapsed or share >= 0.5
            if urgent or self.troubled_windows >= self.patience:
                reason = f"{100 * share:.0f} % of the steps were skipped"
                if collapsed:
                    reason = f"the loss scale fell to {float(scaler.scale):g}"
                return self._give_way(model, reason, urgent)
            return None
        self.troubled_windows = 0
        self.calm_windows = self.calm_windows + 1 if skipped == 0 else 0
        if self.level > 0 and self.calm_windows >= self.calm_needed:
            return self._come_back(model)
        return None

    def _give_way(self, model: SRModel, reason: str, urgent: bool) -> str | None:
        self.troubled_windows = 0
        scaler = model.generator.scaler
        if scaler.dynamic and not self.slowed and not urgent:
            self.slowed = True
            for learner in model.learners.values():
                learner.scaler.growth_interval *= 2
            text = f"the loss scale grows every {scaler.growth_interval} good steps now"
            return self._record(f"{reason}: {text}")
        if self.level + 1 >= len(self.ladder):
            return None
        return self._move(model, 1, reason)

    def _come_back(self, model: SRModel) -> str:
        calm = self.calm_windows
        self.calm_needed *= 2
        return self._move(model, -1, f"no step was skipped for {calm} log intervals")

    def _move(self, model: SRModel, by: int, reason: str) -> str:
        before = self.ladder[self.level]
        self.level += by
        self.calm_windows = 0
        self._use(model)
        for learner in model.learners.values():
            learner.skipped_in_row.zero_()
        return self._record(f"{reason}: precision {before} -> {self.ladder[self.level]}")

    def _use(self, model: SRModel) -> None:
        name = self.ladder[self.level]
        model.use_precision(Precision(name, model.device, "adapted"))

    def _record(self, change: str) -> str:
        self.changes.append(change)
        return change

    def state_dict(self) -> dict[str, Any]:
        return {
            "ladder": list(self.ladder),
            "level": self.level,
            "slowed": self.slowed,
            "troubled_windows": self.troubled_windows,
            "calm_windows": self.calm_windows,
            "calm_needed": self.calm_needed,
            "changes": list(self.changes),
        }

    def load_state_dict(self, state: dict[str, Any], model: SRModel) -> str:
        if not state["ladder"] or state["ladder"] != fallbacks(model.precision):
            return "adaptive precision starts anew"
        for name, value in state.items():
            setattr(self, name, value)
        if self.level > 0:
            self._use(model)
        if self.slowed:
            for learner in model.learners.values():
                learner.scaler.growth_interval *= 2
        return f"adaptive precision goes on with {self.ladder[self.level]}"


def fallbacks(precision: Precision) -> list[str]:
    """Return a precision and those below it that its device can do, in order."""
    below = {"fp16": ["bf16", "fp32"], "bf16": ["fp32"], "fp32": []}[precision.name]
    if precision.device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        below = [name for name in below if name != "bf16"]
    return [precision.name, *below]
