"""A network with all that makes it learn; used for the generator and for the discriminator."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from sr_train.api.optimizers import averages_itself, is_fused
from sr_train.engine.learning_rates import LearningRates
from sr_train.engine.optimizer_state import OptimizerState
from sr_train.engine.precision import LossScaler
from sr_train.engine.schedule import Schedule
from sr_train.engine.sharding import global_max_abs, global_norm, to_local
from sr_train.utils.failures import is_not_users, naming


@dataclass(frozen=True)
class StepOutcome:
    """What one optimizer step did, as tensors on the device."""

    applied: Tensor
    """1.0, or 0.0 where the loss or a gradient was not finite and nothing was changed."""
    grad_norm: Tensor
    """L2 norm of the unscaled gradient before clipping, fp32."""
    clipped: Tensor
    """1.0 where the norm was above the limit."""

    def scalars(self, learner: str) -> dict[str, Tensor]:
        """Return the values for the log, of the learner of a name."""
        return {f"grad_norm/{learner}": self.grad_norm, f"clip_fraction/{learner}": self.clipped}


class Learner:
    """A network, its optimizer, schedule, loss scale and clipping.

    `step` is the only place where gradients are unscaled, measured, clipped and applied: once
    each, in that order, outside autocast, in fp32. Fused optimizers take the decision of
    the guard on the device; with another the host waits for it, once per step.

    Args:
        net: trained in place.
        optimizer: over the parameters of `net`, learning rates at their initial values.
        schedule: factor on the initial learning rates as a function of the applied steps.
        scaler: loss scale and guard.
        max_norm: gradients with a larger L2 norm are scaled down to it; None: no clipping.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        *,
        schedule: Schedule,
        scaler: LossScaler,
        max_norm: float | None = None,
    ) -> None:
        self.net = net
        self.wrapped: nn.Module = net
        """What the learner's own forward goes through: `net`, or its distributed wrapper."""
        self.optimizer = optimizer
        self.scaler = scaler
        self.max_norm = max_norm
        self.steps = 0
        """Steps taken, those included that were skipped."""
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._fused = is_fused(optimizer)
        if averages_itself(optimizer):
            optimizer.train()  # type: ignore[attr-defined]
        names = {id(p): name for name, p in net.named_parameters()}
        self._optimizer_state = OptimizerState(optimizer, [names[id(p)] for p in self.parameters])
        self._rates = LearningRates(schedule, optimizer, on_device=self._fused)
        self.skipped_in_row = torch.zeros((), device=self.parameters[0].device)
        self._gathering = False
        self.updating = False
        """Whether weights are being changed; left True by a step that broke off."""

    @property
    def schedule(self) -> Schedule:
        return self._rates.schedule

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self._rates.follow(schedule, self.steps)

    @property
    def num_skipped(self) -> int:
        """Steps that were skipped. Reads the device."""
        return self.steps - int(self._rates.applied)

    @property
    def lrs(self) -> list[float]:
        """Learning rate of each parameter group in the last step applied. Reads the device."""
        return self._rates.last()

    def synchronised(self, last: bool) -> AbstractContextManager[object]:
        """Return the region of a micro-batch: ranks average gradients only on the last one."""
        if isinstance(self.wrapped, FSDPModule):
            self.wrapped.set_requires_gradient_sync(last)
        if isinstance(self.wrapped, DistributedDataParallel) and not last:
            return self.wrapped.no_sync()
        return nullcontext()

    def accumulate(self, total: Tensor, fraction: float = 1.0) -> None:
        """Run backward for one micro-batch.

        The old gradients are freed only now, so that their memory can be used again at once.

        Args:
            total: fp32 scalar, a mean over the samples of the micro-batch.
            fraction: of the step's samples that the micro-batch holds, in (0, 1].
        """
        if not self._gathering:
            self.optimizer.zero_grad(set_to_none=True)
            self._gathering = True
        total.backward(self.scaler.seed(total, fraction))

    def discard_gradients(self) -> None:
        """Drop what was accumulated: the next micro-batch is the first of a step."""
        self._gathering = False
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> StepOutcome:
        """Unscale, measure, clip and apply the gradient.

        A step whose loss or gradient is not finite is skipped and counted.
        """
        gradients = [to_local(p.grad) for p in self.parameters if p.grad is not None]
        self.scaler.unscale_(gradients)
        grad_norm = global_norm(gradients, self.net)
        found_inf = torch.isnan(grad_norm * 0.0).float()
        clipped = self._clip_(gradients, grad_norm, found_inf)
        self.updating = True
        known = self._apply(found_inf)
        self.updating = False
        applied = 1.0 - found_inf
        self.scaler.update(found_inf)
        self.skipped_in_row.add_(1.0).mul_(found_inf)
        self.steps += 1
        self._gathering = False
        self._rates.advance(applied if known is None else known, self.steps)
        return StepOutcome(applied, grad_norm, clipped)

    @torch.no_grad()
    def _clip_(self, gradients: Sequence[Tensor], norm: Tensor, found_inf: Tensor) -> Tensor:
        if self.max_norm is None:
            return torch.zeros_like(norm)
        factor = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        factor = torch.where(found_inf > 0, torch.ones_like(factor), factor)
        torch._foreach_mul_(list(gradients), factor)
        return (norm > self.max_norm).float()

    def _apply(self, found_inf: Tensor) -> bool | None:
        """Let the optimizer step; return whether it did where the host had to learn that."""
        if self._fused:
            # The protocol of torch's fused optimizers, which torch.amp.GradScaler uses too.
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            self._move()
            return None
        finite = not bool(found_inf)
        if finite:
            self._move()
        return finite

    def _move(self) -> None:
        with naming("optimizer", self.optimizer, lambda: f"step {self.steps + 1}", is_not_users):
            self.optimizer.step()

    def parameters_without_grad(self) -> list[str]:
        """Name the trainable parameters that the last gradient did not reach (none or all zero).

        None before the first gradient. Reads the device: call it on a logged step.
        """
        named = [(name, p.grad) for name, p in self.net.named_parameters() if p.requires_grad]
        reached = [(name, to_local(grad)) for name, grad in named if grad is not None]
        if not reached:
            return []
        peaks = global_max_abs([grad for _, grad in reached], self.net).tolist()
        silent = [name for name, grad in named if grad is None]
        return silent + [name for (name, _), peak in zip(reached, peaks, strict=True) if peak == 0]

    def non_finite_parameters(self) -> list[str]:
        """Name the parameters whose last gradient holds an inf or a NaN. Reads the device."""
        named = [(n, p.grad) for n, p in self.net.named_parameters() if p.grad is not None]
        return [name for name, grad in named if not bool(torch.isfinite(to_local(grad)).all())]

    def state_dict(self) -> dict[str, object]:
        return {
            "steps": self.steps,
            "applied_steps": self._rates.applied,
            "optimizer": self._optimizer_state.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped_in_row": self.skipped_in_row,
        }

    def faults(self, state: Mapping[str, Any]) -> list[str]:
        """Name what in a stored state the optimizer could not use."""
        return self._optimizer_state.faults(state["optimizer"])

    def load_state_dict(self, state: dict[str, object]) -> list[str]:
        """Take up stored state; learning rates and hyper-parameters stay the config's.

        Returns:
            Phrases that say what was kept and what was dropped.
        """
        notes = [self._optimizer_state.load_state_dict(state["optimizer"])]  # type: ignore[arg-type]
        self.steps = int(state["steps"])  # type: ignore[call-overload]
        self.skipped_in_row.copy_(state["skipped_in_row"])  # type: ignore[arg-type]
        self._rates.resume(state["applied_steps"], self.steps)  # type: ignore[arg-type]
        notes.append(self.scaler.load_state_dict(state["scaler"]))  # type: ignore[arg-type]
        return notes
