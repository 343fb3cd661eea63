"""The averaged generator: an exponential moving average of the live weights."""

import copy
from functools import cached_property

import torch
from torch import Tensor, nn

from sr_train.engine.sharding import split_weights, to_local


class AveragedWeights:
    """A copy of a network whose weights can be drawn towards the live ones, on the device.

    Both may be split over ranks after this was made, see `sr_train.engine.sharding`; each rank
    then moves its own part.

    Args:
        net: the live network; copied.
    """

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

    @torch.no_grad()
    def lerp_to(self, weight: Tensor) -> None:
        """Move the weights by `weight` in [0, 1] of the way to the live ones.

        Buffers are copied where the weight is above 0: a step that was skipped may have spoilt
        the statistics of a BatchNorm.
        """
        for averaged, live in self._weights:
            averaged.lerp_(live, weight)
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
    """Keep a shadow of a network whose weights trail the live ones.

    After n applied updates the decay is min(decay, (1 + n) / (10 + n)), so that the shadow of a
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
    def update(self, applied: Tensor) -> None:
        """Move the shadow by one step; `applied` is 1.0, or 0.0 for a step that was skipped."""
        decay = torch.minimum(self._ceiling, (1.0 + self.num_updates) / (10.0 + self.num_updates))
        self.lerp_to((1.0 - decay) * applied)
        self.num_updates.add_(applied)
