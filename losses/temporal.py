"""Losses over neighbouring frames of a clip: how they change from one to the next."""

from pathlib import Path

import torch
from torch import Tensor

from losses.common import fixed, pair
from sr_train.api.loss import Loss
from sr_train.io.pretrained import find_weights
from sr_train.ops.flow import flow_warp
from sr_train.ops.spynet import PUBLISHED, URL, make_spynet


class TemporalDifferenceLoss(Loss):
    """Mean of |(pred_t - pred_t-1) - (target_t - target_t-1)|: what flickers or smears.

    It needs no flow: where the target changes, the prediction is to change alike.
    """

    def forward(self, pred: Tensor, target: Tensor, num_frames: int) -> Tensor:
        """Return a scalar.

        Args:
            pred: (B*T, C, H, W), clip by clip.
            target: same shape as `pred`.
            num_frames: T, at least 2.

        Raises:
            ValueError: if the shapes differ, or there are no neighbouring frames.
        """
        changes = [clips(x, num_frames).diff(dim=1) for x in pair(pred, target)]
        return (changes[0] - changes[1]).abs().mean()


class TemporalConsistencyLoss(Loss):
    """Mean of M_t |pred_t - warp(pred_t-1)|, along the target's motion.

    M_t = exp(-alpha |target_t - warp(target_t-1)|^2), a sum over channels, is small where the
    motion is not known or something comes into view. It is blind to what moves along, so it goes
    with a loss that compares with the target.

    Args:
        weights: of SpyNet, the published file; None looks in torch hub's cache.
        random_init: leave SpyNet untrained; for tests.
        alpha: how quickly the weight falls with the target's own error.

    Raises:
        CheckpointError: if the weights are not there or are something else.

    Reference: Lai et al., Learning Blind Video Temporal Consistency, ECCV 2018, eq. 3,
        https://arxiv.org/abs/1808.00449
    """

    planes = (3,)

    def __init__(
        self,
        weights: str | Path | None = None,
        random_init: bool = False,
        alpha: float = 50.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        path = None if random_init else find_weights("SpyNet", PUBLISHED, weights, URL)
        self.flow = make_spynet(path).eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "TemporalConsistencyLoss":
        """Keep the flow network as it is."""
        return super().train(False)

    def forward(self, pred: Tensor, target: Tensor, num_frames: int) -> Tensor:
        """Return a scalar.

        Args:
            pred: (B*T, 3, H, W), clip by clip, RGB in [0, 1].
            target: same shape as `pred`.
            num_frames: T, at least 2.

        Raises:
            ValueError: if the shapes differ, or there are no neighbouring frames.
        """
        found, wanted = (clips(x, num_frames) for x in pair(pred, target))
        earlier, later = wanted[:, :-1].flatten(0, 1), wanted[:, 1:].flatten(0, 1)
        with torch.no_grad():
            flow = self.flow(later, earlier)
            error = (later - flow_warp(earlier, flow, padding="border")).square().sum(1, True)
            weight = torch.exp(-self.alpha * error)
        warped = flow_warp(found[:, :-1].flatten(0, 1), fixed(flow), padding="border")
        return (weight * (found[:, 1:].flatten(0, 1) - warped).abs()).mean()


def clips(images: Tensor, num_frames: int) -> Tensor:
    """Return (B, T, C, H, W) of (B*T, C, H, W).

    Raises:
        ValueError: for less than two frames.
    """
    if num_frames < 2:
        raise ValueError("it compares neighbouring frames; expected clips of at least 2, found 1")
    return images.unflatten(0, (-1, num_frames))
