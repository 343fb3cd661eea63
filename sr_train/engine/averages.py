"""Averages of the generator's weights: EMA, SWA, and what an optimizer averages by itself."""

import copy
import logging
from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from sr_train.engine.sharding import split_weights, to_local

log = logging.getLogger(__name__)

KINDS = {"ema": "averaged weights", "swa": "SWA weights"}
"""Averages that there may be, in the order in which they are preferred, and what the log says."""


class AveragedWeights(ABC):
    """A copy of a network whose weights are moved towards the live ones, on the device.

    Both may be split over ranks after this was made, see `sr_train.engine.sharding`; each rank
    then moves its own part.

    Args:
        net: the live network; copied.
    """

    has_own_file = False
    """Whether its weights are written beside those to use, as `checkpoints/KIND.safetensors`."""

    def __init__(self, net: nn.Module) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self._source = net
        device = next(self.net.parameters()).device
        self.num_updates = torch.zeros((), device=device)

    @cached_property
    def _weights(self) -> list[tuple[Tensor, Tensor]]:
        live = dict(self._source.named_parameters())
        return [
            (to_local(w), to_local(live[name].detach())) for name, w in self.net.named_parameters()
        ]

    @cached_property
    def _buffers(self) -> list[tuple[Tensor, Tensor]]:
        live = dict(self._source.named_buffers())
        return [(buffer, live[name]) for name, buffer in self.net.named_buffers()]

    @property
    def started(self) -> bool:
        """Whether it holds an average by now. May read the device."""
        return True

    @abstractmethod
    def update(self, applied: Tensor, step: int) -> None:
        """Follow the live weights by one step.

        Args:
            applied: 1.0, or 0.0 for a step that was skipped, on the device.
            step: the step just done, 1 for the first.
        """

    def follow(self, optimizer: Optimizer) -> None:
        """Learn of the optimizer of the live network; most averages need none."""
        return

    @torch.no_grad()
    def lerp_to(self, weight: Tensor) -> None:
        """Move the weights by `weight` in [0, 1] of the way to the live ones.

        Buffers are copied where the weight is above 0: a step that was skipped may have spoilt
        the statistics of a BatchNorm.
        """
        for average, live in self._weights:
            average.lerp_(live, weight)
        for kept, current in self._buffers:
            kept.copy_(torch.where(weight > 0, current, kept))

    def state_dict(self) -> dict[str, object]:
        return {"net": self.net.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, object]) -> None:
        weights, count = state["net"], state["num_updates"]
        assert isinstance(weights, dict)
        assert isinstance(count, Tensor)
        self.net.load_state_dict(split_weights(weights, self.net))
        self.num_updates.copy_(count)


class Ema(AveragedWeights):
    """An exponential moving average of the weights.

    After n applied updates the decay is min(decay, (1 + n) / (10 + n)), so that the average of a
    young run is not held back by its random start. Everything stays on the device: an update
    that was not applied is multiplied away instead of asked for.

    Reference: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992.

    Args:
        net: the live network; copied.
        decay: the largest decay, in [0, 1).
    """

    def __init__(self, net: nn.Module, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        super().__init__(net)
        self.decay = decay
        self._ceiling = torch.tensor(decay, device=self.num_updates.device)

    @torch.no_grad()
    def update(self, applied: Tensor, step: int) -> None:
        decay = torch.minimum(self._ceiling, (1.0 + self.num_updates) / (10.0 + self.num_updates))
        self.lerp_to((1.0 - decay) * applied)
        self.num_updates.add_(applied)


class Swa(AveragedWeights):
    """Stochastic weight averaging: the mean of the weights every `every` steps after `start`.

    Buffers are those of the live network. BatchNorm's running statistics, which few networks of
    this field have, are then not those of the averaged weights; a warning says so.

    Reference: Izmailov et al., Averaging Weights Leads to Wider Optima and Better
        Generalization, UAI 2018, https://arxiv.org/abs/1803.05407

    Args:
        net: the live network; copied.
        start: steps that pass before the first weights are taken.
        every: steps between two takings.
    """

    has_own_file = True

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
        """Whether any weights were taken in; reads the device."""
        return bool(self.num_updates > 0)

    @torch.no_grad()
    def update(self, applied: Tensor, step: int) -> None:
        if step <= self.start or (step - self.start) % self.every != 0:
            return
        self.num_updates.add_(applied)
        self.lerp_to(applied / self.num_updates.clamp_min(1.0))


class OptimizerAverage(AveragedWeights):
    """Show the average that an optimizer keeps, in the place of an EMA.

    It is brought up to date when it is looked at. The live weights are put back bit for bit
    afterwards, so that validating or saving does not change a run; only `eval()` followed by
    `train()` would, by rounding.

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
        return self._average

    @net.setter
    def net(self, average: nn.Module) -> None:
        self._average = average

    def update(self, applied: Tensor, step: int) -> None:
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
