"""A network with all that makes it learn; used for the generator and for the discriminator."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sr_train.engine.precision import LossScaler
from sr_train.engine.schedule import Schedule


@dataclass(frozen=True)
class StepOutcome:
    """What one optimizer step did, as tensors on the device."""

    applied: Tensor
    """1.0, or 0.0 where the loss or a gradient was not finite and nothing was changed."""
    grad_norm: Tensor
    """L2 norm of the unscaled gradient before clipping, fp32."""
    clipped: Tensor
    """1.0 where the norm was above the limit."""


class Learner:
    """A network, its optimizer, schedule, loss scale and clipping.

    `step` is the only place where gradients are unscaled, measured, clipped and applied: once
    each, in that order, outside autocast, in fp32. Fused optimizers take the verdict of the
    guard on the device; another optimizer costs one host synchronisation per step.

    Args:
        net: trained in place.
        optimizer: over the parameters of `net`, learning rates at their initial values.
        schedule: factor on the initial learning rates as a function of the step.
        scaler: loss scale and guard.
        max_norm: gradients with a larger L2 norm are scaled down to it; None: no clipping.
        accum: micro-batches in one step; each is weighted by 1/accum.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        *,
        schedule: Schedule,
        scaler: LossScaler,
        max_norm: float | None = None,
        accum: int = 1,
    ) -> None:
        self.net = net
        self.optimizer = optimizer
        self.schedule = schedule
        self.scaler = scaler
        self.max_norm = max_norm
        self.accum = accum
        self.steps = 0
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        device = self.parameters[0].device
        self.num_skipped = torch.zeros((), device=device)
        self.skipped_in_row = torch.zeros((), device=device)
        self._micro_batches = 0
        self._loss_sum = torch.zeros((), device=device)
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self._schedule_lr()

    @property
    def lrs(self) -> list[float]:
        """Learning rate of each parameter group in the last step taken."""
        factor = self.schedule(max(self.steps - 1, 0))
        return [float(group["initial_lr"]) * factor for group in self.optimizer.param_groups]

    def accumulate(self, total: Tensor) -> None:
        """Run backward for one micro-batch.

        The old gradients are freed only now, so that their memory can be used again at once.
        """
        if self._micro_batches == 0:
            self.optimizer.zero_grad(set_to_none=True)
            self._loss_sum.zero_()
        self._loss_sum.add_(total.detach())
        self._micro_batches += 1
        self.scaler.scaled(total / self.accum if self.accum > 1 else total).backward()

    def step(self) -> StepOutcome:
        """Unscale, measure, clip and apply the gradient.

        A step whose loss or gradient is not finite is skipped and counted.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.scaler.unscale_(gradients)
        grad_norm = nn.utils.get_total_norm(gradients, foreach=None)
        # A NaN in the loss need not reach the gradient: the slope of |x| at NaN is 0.
        found_inf = 1.0 - torch.isfinite(grad_norm + self._loss_sum).float()
        clipped = self._clip_(gradients, grad_norm, found_inf)
        self._apply(found_inf)
        self.scaler.update(found_inf)
        self.num_skipped.add_(found_inf)
        self.skipped_in_row.add_(1.0).mul_(found_inf)
        self.steps += 1
        self._micro_batches = 0
        self._schedule_lr()
        return StepOutcome(1.0 - found_inf, grad_norm, clipped)

    @torch.no_grad()
    def _clip_(self, gradients: Sequence[Tensor], norm: Tensor, found_inf: Tensor) -> Tensor:
        if self.max_norm is None:
            return torch.zeros_like(norm)
        factor = (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        factor = torch.where(found_inf > 0, torch.ones_like(factor), factor)
        torch._foreach_mul_(list(gradients), factor)
        return (norm > self.max_norm).float()

    def _apply(self, found_inf: Tensor) -> None:
        if getattr(self.optimizer, "_step_supports_amp_scaling", False):
            # The protocol of torch's fused optimizers, which torch.amp.GradScaler uses too.
            self.optimizer.grad_scale = None  # type: ignore[attr-defined]
            self.optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            self.optimizer.step()
        elif not bool(found_inf):
            self.optimizer.step()

    def _schedule_lr(self) -> None:
        factor = self.schedule(self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def silent_parameters(self) -> list[str]:
        """Name the trainable parameters that the last gradient did not reach (none or all zero).

        Reads the device: call it on a logged step.
        """
        named = [(name, p.grad) for name, p in self.net.named_parameters() if p.requires_grad]
        reached = [(name, grad) for name, grad in named if grad is not None]
        silent = [name for name, grad in named if grad is None]
        if reached:
            peaks = torch.stack(torch._foreach_norm([grad for _, grad in reached], float("inf")))
            silent += [
                name for (name, _), peak in zip(reached, peaks.tolist(), strict=True) if peak == 0
            ]
        return silent

    def non_finite_parameters(self) -> list[str]:
        """Name the parameters whose last gradient holds an inf or a NaN. Reads the device."""
        named = [(n, p.grad) for n, p in self.net.named_parameters() if p.grad is not None]
        return [name for name, grad in named if not bool(torch.isfinite(grad).all())]

    def state_dict(self) -> dict[str, object]:
        return {
            "steps": self.steps,
            "optimizer_class": type(self.optimizer).__name__,
            "optimizer": self.optimizer.state_dict()["state"],
            "scaler": self.scaler.state_dict(),
            "num_skipped": self.num_skipped,
            "skipped_in_row": self.skipped_in_row,
        }

    def load_state_dict(self, state: dict[str, object]) -> list[str]:
        """Take up stored state; learning rates and hyper-parameters stay the config's.

        Returns:
            Phrases that say what was kept and what was dropped.
        """
        notes = []
        if state["optimizer_class"] == type(self.optimizer).__name__:
            current = self.optimizer.state_dict()
            self.optimizer.load_state_dict(
                {"state": state["optimizer"], "param_groups": current["param_groups"]}
            )
            notes.append("optimizer state kept")
        else:
            notes.append(f"state of the {state['optimizer_class']} optimizer dropped")
        self.steps = int(state["steps"])  # type: ignore[call-overload]
        self.num_skipped.copy_(state["num_skipped"])  # type: ignore[arg-type]
        self.skipped_in_row.copy_(state["skipped_in_row"])  # type: ignore[arg-type]
        self._schedule_lr()
        notes.append(self.scaler.load_state_dict(state["scaler"]))  # type: ignore[arg-type]
        return notes
