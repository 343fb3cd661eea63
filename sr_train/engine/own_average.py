"""The averaged generator of an optimizer that averages by itself (schedule-free ones)."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sr_train.engine.ema import AveragedWeights


class OptimizerAverage(AveragedWeights):
    """Show the average that an optimizer keeps, in the place of an EMA.

    It is brought up to date when it is looked at. The live weights are put back bit for bit
    afterwards, so that validating or saving does not change a run; `eval()` followed by `train()`
    alone would, by rounding.

    Reference: Defazio et al., The Road Less Scheduled, NeurIPS 2024,
        https://arxiv.org/abs/2405.15682

    Args:
        net: the live network; copied.
    """

    _optimizer: Optimizer | None = None
    _stale = False

    def follow(self, optimizer: Optimizer) -> None:
        """Take the average from this optimizer of the network from now on."""
        self._optimizer = optimizer
        self._one = torch.ones_like(self.num_updates)

    @property
    def net(self) -> nn.Module:
        """The averaged network as of the last step."""
        if self._stale:
            self._stale = False
            self._refresh()
        return self._shadow

    @net.setter
    def net(self, shadow: nn.Module) -> None:
        self._shadow = shadow

    def update(self, applied: Tensor) -> None:
        """Note that a step was taken; one that was skipped left the average as it was."""
        self.num_updates.add_(applied)
        self._stale = True

    @torch.no_grad()
    def _refresh(self) -> None:
        assert self._optimizer is not None
        live = [p for group in self._optimizer.param_groups for p in group["params"]]
        kept = [p.detach().clone() for p in live]
        self._optimizer.eval()  # type: ignore[attr-defined]
        self.lerp_to(self._one)
        self._optimizer.train()  # type: ignore[attr-defined]
        for parameter, value in zip(live, kept, strict=True):
            # By .data: a graph that was recorded on these weights may still want its backward.
            parameter.data.copy_(value)
