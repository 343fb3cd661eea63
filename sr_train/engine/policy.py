"""What adapts while a run goes on: looked at the log interval, logged, kept in checkpoints."""

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch

from sr_train.engine.model import SRModel
from sr_train.engine.precision import Precision
from sr_train.monitoring.meter import LogWindow


class Policy(Protocol):
    """Changes a setting of the model by what a log window shows, the same on every rank."""

    def observe(self, model: SRModel, window: LogWindow) -> str | None:
        """Look at a window; return what was changed and why, or None."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], model: SRModel) -> str:
        """Take up stored state; say what was done."""
        ...


class PacePolicy:
    """Let the discriminator learn less often while it wins too clearly, see `Pace`."""

    def observe(self, model: SRModel, window: LogWindow) -> str | None:
        accuracy = window.means.get("gan/d_accuracy")
        if model.adversary is None or accuracy is None:
            return None
        return model.adversary.pace.adapt(accuracy)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the pace itself is stored with the discriminator."""
        return {}

    def load_state_dict(self, state: dict[str, Any], model: SRModel) -> str:
        return "the discriminator's pace goes on adapting"


@dataclass(frozen=True)
class Rung:
    """A precision, and how many times longer than configured its loss scale waits to grow."""

    precision: str
    patience: int = 1

    def __str__(self) -> str:
        slower = f" (scale grows 1/{self.patience} as often)"
        return self.precision if self.patience == 1 else self.precision + slower


def ladder_from(precision: Precision) -> tuple[Rung, ...]:
    """Return the chosen precision and what it gives way to, in order, on its device."""
    bf16 = precision.device.type == "cpu" or (
        precision.device.type == "cuda" and torch.cuda.is_bf16_supported(False)
    )
    below = {"fp16": ("fp16", "bf16", "fp32"), "bf16": ("bf16", "fp32"), "fp32": ("fp32",)}
    names = [name for name in below[precision.name] if bf16 or name != "bf16"]
    slower = (Rung("fp16", 2),) if precision.name == "fp16" else ()
    return (Rung(names[0]), *slower, *map(Rung, names[1:]))


@dataclass
class Standing:
    """Where a `PrecisionPolicy` stands: all of it is kept in checkpoints."""

    level: int = 0
    """Rungs below the chosen precision."""
    troubled: int = 0
    """Windows in trouble, in a row."""
    calm: int = 0
    """Windows without a skipped step, in a row."""
    needed: int = 0
    """Calm windows that the next return asks for."""
    changes: list[str] = field(default_factory=list)
    """What was changed at which step and why."""


class PrecisionPolicy:
    """Leave a precision that overflows again and again, and come back once all is calm.

    The precisions form a ladder: fp16, fp16 whose loss scale grows half as often, bf16 (where the
    device has it), fp32. A run goes down one rung after `patience` windows in trouble, in a row:
    windows with at least two skipped steps, more than the share `most_skipped` of all. It goes
    down to the next precision at once where half precision is hopeless: a loss scale fell below 1,
    or, where no loss is scaled, `hopeless` steps in a row were skipped. It goes up one rung after
    `calm` windows without any skipped step; each return asks for twice as many as the last.

    The steps of both networks count. On the lowest rung, fp32, nothing is left to change: a step
    skipped there has another cause, such as a batch with NaN pixels, reported elsewhere.

    Args:
        chosen: the precision of the config.
        most_skipped: share of skipped steps in a window that is taken as normal, in [0, 1).
        patience: windows in trouble before a change.
        calm: windows without a skipped step before the first return.
        ranks: processes whose steps a window adds up.
    """

    hopeless = 10

    def __init__(
        self,
        chosen: Precision,
        *,
        most_skipped: float = 0.05,
        patience: int = 2,
        calm: int = 20,
        ranks: int = 1,
    ) -> None:
        self.ladder = ladder_from(chosen)
        self._ranks = ranks
        self.most_skipped = most_skipped
        self.patience = patience
        self.standing = Standing(needed=calm)

    def observe(self, model: SRModel, window: LogWindow) -> str | None:
        """Move down or up the ladder by one look at a window; return the change and its reason."""
        hopeless = _collapse(model) or self._dead_end(model)
        if hopeless:
            return self._move(model, self._next_precision(), hopeless)
        now = self.standing
        skipped, share = _skipped(window, self._ranks)
        if skipped >= 2 and share > self.most_skipped:
            now.calm, now.troubled = 0, now.troubled + 1
            if now.troubled < self.patience:
                return None
            reason = f"{100 * share:.0f} % of the steps were skipped"
            return self._move(model, now.level + 1, reason)
        now.troubled = 0
        now.calm = 0 if skipped else now.calm + 1
        if now.level == 0 or now.calm < now.needed:
            return None
        now.needed *= 2
        reason = f"no step was skipped for {now.calm} log intervals"
        return self._move(model, now.level - 1, reason)

    def _dead_end(self, model: SRModel) -> str | None:
        for name, learner in model.learners.items():
            in_row = int(learner.skipped_in_row)
            if not learner.scaler.dynamic and in_row >= self.hopeless:
                return f"{in_row} steps of net_{name} in a row were skipped"
        return None

    def _next_precision(self) -> int:
        here = self.ladder[self.standing.level].precision
        lower = [level for level, rung in enumerate(self.ladder) if level > self.standing.level]
        return next((at for at in lower if self.ladder[at].precision != here), len(self.ladder))

    def _move(self, model: SRModel, level: int, reason: str) -> str | None:
        now = self.standing
        now.troubled = now.calm = 0
        if level >= len(self.ladder):
            return None
        before, now.level = self.ladder[now.level], level
        self._apply(model)
        for learner in model.learners.values():
            learner.skipped_in_row.zero_()
        change = f"{reason}: precision {before} -> {self.ladder[level]}"
        now.changes.append(f"step {model.generator.steps}: {change}")
        return change

    def _apply(self, model: SRModel) -> None:
        rung = self.ladder[self.standing.level]
        for learner in model.learners.values():
            learner.scaler.patience = rung.patience
        if model.precision.name != rung.precision:
            model.use_precision(Precision(rung.precision, model.device, "adapted"))

    def state_dict(self) -> dict[str, Any]:
        return {"ladder": [str(rung) for rung in self.ladder], **asdict(self.standing)}

    def load_state_dict(self, state: dict[str, Any], model: SRModel) -> str:
        """Take up a stored standing; one of another precision or device begins anew."""
        stored = dict(state)
        if stored.pop("ladder") != [str(rung) for rung in self.ladder]:
            return "adaptive precision starts anew"
        self.standing = Standing(**stored)
        self._apply(model)
        return f"adaptive precision goes on with {self.ladder[self.standing.level]}"


def _collapse(model: SRModel) -> str | None:
    for name, learner in model.learners.items():
        if learner.scaler.dynamic and float(learner.scaler.scale) < 1.0:
            return f"the loss scale of net_{name} fell to {float(learner.scaler.scale):g}"
    return None


def _skipped(window: LogWindow, ranks: int) -> tuple[int, float]:
    """Return the most steps that a network skipped in a window, and the largest share.

    A step is skipped where its gradient norm is not finite, on all ranks alike.
    """
    most, share = 0, 0.0
    for name, count in window.non_finite.items():
        if name.startswith("grad_norm/"):
            most = max(most, count // ranks)
            share = max(share, count / (count + window.counts.get(name, 0)))
    return most, share
