"""Stochastic weight averaging: the plain mean of the weights along the end of a run."""

import logging

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sr_train.engine.ema import AveragedWeights

log = logging.getLogger(__name__)


class Swa(AveragedWeights):
    """Keep the mean of the weights as they were every `every` steps after `start`.

    Buffers are those of the live network. BatchNorm's running statistics, which few networks of
    this field have, are then not those of the averaged weights; a warning says so.

    Reference: Izmailov et al., Averaging Weights Leads to Wider Optima and Better
        Generalization, UAI 2018, https://arxiv.org/abs/1803.05407

    Args:
        net: the live network; copied.
        start: steps that pass before the first weights are taken.
        every: steps between two takings.
    """

    def __init__(self, net: nn.Module, start: int, every: int = 1) -> None:
        if start < 0 or every < 1:
            raise ValueError(f"expected start >= 0 and every >= 1, got {start} and {every}")
        super().__init__(net)
        if any(isinstance(module, _BatchNorm) for module in net.modules()):
            log.warning(
                "warning: swa: the network has BatchNorm; its running statistics are those of the "
                "live weights, not of the averaged ones"
            )
        self.start = start
        self.every = every

    @property
    def started(self) -> bool:
        """Whether any weights were taken. Reads the device."""
        return bool(self.num_updates > 0)

    @torch.no_grad()
    def update(self, applied: Tensor, step: int) -> None:
        """Take the weights in, where it is time.

        Args:
            applied: 1.0, or 0.0 for a step that was skipped, which is not taken in.
            step: the step just done, 1 for the first.
        """
        if step <= self.start or (step - self.start) % self.every != 0:
            return
        self.num_updates.add_(applied)
        self.lerp_to(applied / self.num_updates.clamp_min(1.0))
