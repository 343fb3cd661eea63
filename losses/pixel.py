"""Pixel losses: L1, MSE, Huber and Charbonnier, averaged over every element, and PSNR."""

import math

import torch
from torch import Tensor

from losses.common import pair
from sr_train.api.loss import Loss


def charbonnier(pred: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Return the mean of sqrt((pred - target)^2 + eps^2) - eps.

    The constant eps is taken off so that equal images score zero; the gradient is that of the
    paper. It is at most 1 in size and zero at equality.

    Args:
        pred: (B, ..., H, W), float, any range.
        target: same shape as `pred`.
        eps: half-width of the quadratic zone, in pixel-value units; above zero.

    Raises:
        ValueError: if the shapes differ.

    Reference: Lai et al., Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution,
        CVPR 2017, section 3.3, https://arxiv.org/abs/1704.03915
    """
    difference = _difference(pred, target)
    return (torch.sqrt(difference * difference + eps * eps) - eps).mean()


class L1Loss(Loss):
    """Mean absolute error: mean of |pred - target|."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return _difference(pred, target).abs().mean()


class MSELoss(Loss):
    """Mean squared error: mean of (pred - target)^2."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return _difference(pred, target).square().mean()


class CharbonnierLoss(Loss):
    """Charbonnier loss, a differentiable L1; see `charbonnier`.

    Args:
        eps: half-width of the quadratic zone, in pixel-value units ([0, 1] images).
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"eps must be above zero, got {eps}")
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return charbonnier(pred, target, self.eps)


class HuberLoss(Loss):
    """Huber loss: mean of d^2 / 2 where |d| < delta, of delta (|d| - delta / 2) elsewhere.

    With d = pred - target. Images in [0, 1] never leave the quadratic zone of the default; a
    delta of a few 8-bit levels makes the loss robust.

    Args:
        delta: half-width of the quadratic zone, in pixel-value units; above zero.

    Raises:
        ValueError: if delta is not above zero.

    Reference: Huber, Robust Estimation of a Location Parameter, Annals of Mathematical
        Statistics 1964, https://doi.org/10.1214/aoms/1177703732
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        if delta <= 0:
            raise ValueError(f"delta must be above zero, got {delta}")
        self.delta = delta

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        size = _difference(pred, target).abs()
        inside = size.clamp(max=self.delta)
        return (inside * (size - 0.5 * inside)).mean()


class PSNRLoss(Loss):
    """Negative PSNR in dB: mean over the batch of 10 log10(mse + eps), mse of one image.

    For a peak of 1. Images of (B, ..., H, W) count one by one, whatever their error. The value
    is below zero for good images and 10 log10(eps) = -80 at equality.

    Args:
        eps: least mean squared error that counts, in squared pixel-value units; above zero.

    Raises:
        ValueError: if eps is not above zero.

    Reference: Chen et al., HINet: Half Instance Normalization Network for Image Restoration,
        CVPRW 2021, https://arxiv.org/abs/2105.06086
    """

    def __init__(self, eps: float = 1e-8) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"eps must be above zero, got {eps}")
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        mse = _difference(pred, target).square().flatten(1).mean(dim=1)
        return (10.0 / math.log(10.0)) * torch.log(mse + self.eps).mean()


def _difference(pred: Tensor, target: Tensor) -> Tensor:
    pred, target = pair(pred, target)
    return pred - target
