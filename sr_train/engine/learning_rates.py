"""Learning rates that follow the steps applied, without asking the device how many those are."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from sr_train.engine.schedule import Schedule
from sr_train.utils.failures import is_not_users, naming

_FIRST_LENGTH = 4096


class LearningRates:
    """Set the learning rates of an optimizer from a schedule of applied steps.

    A step that was skipped does not move the schedule. How many were applied only the device
    knows, so the factors of a schedule lie there as a table, and the learning rates are
    tensors that are looked up in it. An optimizer that cannot take such tensors gets floats; that
    each of its steps was applied or skipped, the host knows already.

    Args:
        schedule: factor on the initial learning rates as a function of the applied steps.
        optimizer: its groups hold the initial learning rates, and perhaps a `start`: applied
            steps until which their learning rate is 0.
        on_device: whether the optimizer takes a tensor for a learning rate.
    """

    def __init__(self, schedule: Schedule, optimizer: Optimizer, *, on_device: bool) -> None:
        self.schedule = schedule
        self._groups = optimizer.param_groups
        self._optimizer = optimizer
        self._on_device = on_device
        device = self._groups[0]["params"][0].device
        for group in self._groups:
            group.setdefault("initial_lr", group["lr"])
            group.setdefault("start", 0)
        self.applied = torch.zeros(1, dtype=torch.int64, device=device)
        """Steps applied, (1,) int64 on the device."""
        self._known = 0
        self._factors = torch.empty(0, device=device)
        self._bind(0)

    def advance(self, applied: Tensor | bool, steps: int) -> None:
        """Count a step and set the learning rates of the next.

        Args:
            applied: 1.0, or 0.0 for a step that was skipped; on the device where the optimizer
                takes its rates there, else on the host.
            steps: steps taken so far, this one included.
        """
        if self._on_device:
            self.applied.add_(torch.as_tensor(applied).to(torch.int64))
        else:
            self._known += int(applied)
            self.applied.fill_(self._known)
        self._set(steps)

    def resume(self, applied: Tensor, steps: int) -> None:
        """Go on after stored counts; the optimizer may have replaced its groups."""
        self.applied.copy_(applied)
        self._known = int(applied)
        self._bind(steps)

    def follow(self, schedule: Schedule, steps: int) -> None:
        """Go on by another schedule; the count of applied steps stays."""
        self.schedule = schedule
        self._factors = self._factors[:0]
        self._set(steps)

    def last(self) -> list[float]:
        """Return the learning rate of each group in the last step applied. Reads the device."""
        return self._rates_at(max(int(self.applied) - 1, 0))

    def _rates_at(self, step: int) -> list[float]:
        factor = self._factor(step)
        return [
            float(group["initial_lr"]) * factor if step >= group["start"] else 0.0
            for group in self._groups
        ]

    def _factor(self, step: int) -> float:
        with naming("scheduler", self.schedule, lambda: f"step {step}", is_not_users):
            return self.schedule(step)

    def _bind(self, steps: int) -> None:
        self._groups = self._optimizer.param_groups
        if self._on_device:
            for group in self._groups:
                group["lr"] = torch.zeros((), device=self.applied.device)
        self._set(steps)

    @torch.no_grad()
    def _set(self, steps: int) -> None:
        if not self._on_device:
            rates = self._rates_at(self._known)
            for group, rate in zip(self._groups, rates, strict=True):
                group["lr"] = rate
            return
        if steps >= len(self._factors):
            self._extend(max(_FIRST_LENGTH, 2 * steps))
        factor_now = self._factors.index_select(0, self.applied).squeeze(0)
        for group in self._groups:
            torch.mul(factor_now, group["initial_lr"], out=group["lr"])
            if group["start"] > 0:
                group["lr"].mul_((self.applied >= group["start"]).squeeze(0))

    def _extend(self, length: int) -> None:
        known = len(self._factors)
        added = torch.tensor([self._factor(step) for step in range(known, length)])
        added = added.to(self._factors.device, non_blocking=True)
        self._factors = torch.cat([self._factors, added])
