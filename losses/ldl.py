"""Locally discriminative learning: L1 where the prediction looks like artefacts."""

import torch
from torch import Tensor

from losses.common import fixed, pair
from sr_train.api.loss import Loss
from sr_train.ops.filters import local_variance


def artefact_map(pred: Tensor, target: Tensor, ema_pred: Tensor, window: int) -> Tensor:
    """Return how likely each pixel is an artefact, (B, 1, H, W), at least 0, without a graph.

    With the residual r = sum over channels of |target - pred|, the map is
    var(r of the image)^(1/5) var(r of the window around the pixel), unbiased variances, and 0
    where r is smaller than that of `ema_pred`: there the prediction is better than its average,
    and so on its way to a detail.

    Args:
        pred: (B, C, H, W), float32 or float64.
        target: same shape as `pred`.
        ema_pred: same shape as `pred`, what the averaged weights predict.
        window: side of the window in pixels, odd; small images cut it.

    Reference: Liang et al., Details or Artifacts: A Locally Discriminative Learning Approach to
        Realistic Image Super-Resolution, CVPR 2022, eq. 1 to 5, https://arxiv.org/abs/2203.09195
    """
    with torch.no_grad():
        residual = (target - pred).abs().sum(dim=1, keepdim=True)
        residual_ema = (target - ema_pred).abs().sum(dim=1, keepdim=True)
        off = residual - residual.mean(dim=(-2, -1), keepdim=True)
        pixels = max(2, off.shape[-2] * off.shape[-1])
        of_image = off.square().sum(dim=(-2, -1), keepdim=True) / (pixels - 1)
        weight = of_image**0.2 * local_variance(residual, window)
        return torch.where(residual < residual_ema, torch.zeros_like(weight), weight)


class LDLLoss(Loss):
    """Mean of M |pred - target|, with the artefact map M; see `artefact_map`.

    M is taken as a constant. The loss and its gradient are 0 where the residual is flat, at
    identity above all. It needs the averaged weights' prediction: switch the average on.

    Takes (B, C, H, W) images, nominally in [0, 1], of any number of channels.

    Args:
        ksize: side of the map's window in pixels, odd.

    Raises:
        ValueError: if ksize is even or below one.

    Reference: Liang et al., Details or Artifacts: A Locally Discriminative Learning Approach to
        Realistic Image Super-Resolution, CVPR 2022, eq. 6, https://arxiv.org/abs/2203.09195
    """

    def __init__(self, ksize: int = 7) -> None:
        super().__init__()
        if ksize < 1 or ksize % 2 == 0:
            raise ValueError(f"ksize must be odd and above zero, got {ksize}")
        self.ksize = ksize

    def forward(self, pred: Tensor, target: Tensor, ema_pred: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        _, average = pair(pred, ema_pred)
        weight = artefact_map(fixed(pred), target, average, self.ksize)
        return (weight * (pred - target).abs()).mean()
