"""Pixel losses: L1, MSE and Charbonnier, averaged over every element."""

import torch
from torch import Tensor, nn


def charbonnier(pred: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """Return the mean of sqrt((pred - target)^2 + eps^2) - eps.

    The constant eps is taken off so that equal pictures score zero; the gradient is that of the
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


class L1Loss(nn.Module):
    """Mean absolute error: mean of |pred - target|."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return _difference(pred, target).abs().mean()


class MSELoss(nn.Module):
    """Mean squared error: mean of (pred - target)^2."""

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return _difference(pred, target).square().mean()


class CharbonnierLoss(nn.Module):
    """Charbonnier loss, a differentiable L1; see `charbonnier`.

    Args:
        eps: half-width of the quadratic zone, in pixel-value units ([0, 1] pictures).
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"eps must be above zero, got {eps}")
        self.eps = eps

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return charbonnier(pred, target, self.eps)


def _difference(pred: Tensor, target: Tensor) -> Tensor:
    if pred.shape != target.shape:
        raise ValueError(
            f"pred and target must have one shape, got {tuple(pred.shape)} and "
            f"{tuple(target.shape)}"
        )
    return pred - target
