"""Total variation: of the whole image, or of what should be flat."""

import torch
from torch import Tensor
from torch.nn import functional

from losses.common import pair, widened
from sr_train.api.loss import Loss


class TotalVariationLoss(Loss):
    """Mean of |pred[y, x + 1] - pred[y, x]| plus mean of |pred[y + 1, x] - pred[y, x]|.

    Anisotropic; 0 for flat images and for one pixel, not at identity. Takes (B, C, H, W)
    images of any range and number of channels.

    Reference: Rudin, Osher and Fatemi, Nonlinear total variation based noise removal algorithms,
        Physica D 1992, https://doi.org/10.1016/0167-2789(92)90242-F
    """

    def forward(self, pred: Tensor) -> Tensor:
        across, down = _steps(widened(pred))
        return _mean(across.abs()) + _mean(down.abs())


class MaskedTotalVariationLoss(Loss):
    """Total variation of the prediction, only where the target is flat.

    A pixel is flat where, in the 3x3 pixels around it, no channel of the target varies by more
    than `flatness`. A step between two flat pixels counts; the sum over those is divided by the
    number of all steps, so that images with little that is flat have little to say. Noise and
    ringing in skies and walls cost, texture does not. At identity it is at most twice `flatness`.

    Takes (B, C, H, W) images, nominally in [0, 1], of any number of channels.

    Args:
        flatness: largest range of a flat neighbourhood, in pixel-value units; at least zero. The
            default lies between four and five 8-bit levels: on a level, rounding would decide.

    Raises:
        ValueError: if flatness is below zero.

    Reference: Rudin, Osher and Fatemi, Nonlinear total variation based noise removal algorithms,
        Physica D 1992, https://doi.org/10.1016/0167-2789(92)90242-F, for the variation; the mask
        is ours.
    """

    def __init__(self, flatness: float = 4.5 / 255) -> None:
        super().__init__()
        if flatness < 0:
            raise ValueError(f"flatness must be at least zero, got {flatness}")
        self.flatness = flatness

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        flat = self._flat(target)
        across, down = _steps(pred)
        across = across.abs() * (flat[..., 1:] * flat[..., :-1])
        down = down.abs() * (flat[..., 1:, :] * flat[..., :-1, :])
        return _mean(across) + _mean(down)

    def _flat(self, target: Tensor) -> Tensor:
        """Return (B, 1, H, W), 1 where the target is flat and 0 elsewhere."""
        top = functional.max_pool2d(target, 3, stride=1, padding=1)
        bottom = -functional.max_pool2d(-target, 3, stride=1, padding=1)
        varies = (top - bottom).amax(dim=1, keepdim=True)
        return (varies <= self.flatness).to(target.dtype)


def _steps(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def _mean(x: Tensor) -> Tensor:
    """Return the mean, 0 of nothing: one pixel has no steps."""
    return torch.sum(x) / max(1, x.numel())
