"""Losses on the derivatives of the image."""

from torch import Tensor

from losses.common import pair
from sr_train.api.loss import Loss
from sr_train.ops.filters import sobel


class GradientLoss(Loss):
    """Mean of |Sx pred - Sx target| plus mean of |Sy pred - Sy target|, with Sobel's Sx and Sy.

    The filters are unscaled (a ramp of 1 per pixel gives 8) and repeat the border. Takes
    (B, C, H, W) images of any range and number of channels.

    Reference: Sobel and Feldman, A 3x3 Isotropic Gradient Operator for Image Processing, 1968;
        as a loss: Lu and Chen, Single Image Super Resolution based on a Modified U-net with Mixed
        Gradient Loss, 2019, https://arxiv.org/abs/1911.09428, which squares the difference.
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        across, down = sobel(pred - target)
        return across.abs().mean() + down.abs().mean()


class GradientVarianceLoss(Loss):
    """Mean squared difference of the variances that Sobel's derivatives have in square patches.

    mean (var(Sx pred) - var(Sx target))^2 + mean (var(Sy pred) - var(Sy target))^2, unbiased
    variances of patches that do not overlap. It only says how much detail there is, not where:
    put a pixel loss beside it. A remainder at the right and bottom is left out, and a patch is
    at most as large as the image; a single pixel has variance 0.

    The paper compares grey images with zeros around them; here each channel counts by itself
    and the border is repeated, which makes no edges of its own. `colour: y` gives grey.

    Takes (B, C, H, W) images, nominally in [0, 1], of any number of channels.

    Args:
        patch: side of a patch in pixels.

    Raises:
        ValueError: if a patch has no pixel.

    Reference: Abrahamyan et al., Gradient Variance Loss for Structure-Enhanced Image
        Super-Resolution, ICASSP 2022, eq. 3 and 4, https://arxiv.org/abs/2202.00997
    """

    def __init__(self, patch: int = 8) -> None:
        super().__init__()
        if patch < 1:
            raise ValueError(f"patch must be at least one, got {patch}")
        self.patch = patch

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        across, down = (
            (self._variance(x) - self._variance(y)).square().mean()
            for x, y in zip(sobel(pred), sobel(target), strict=True)
        )
        return across + down

    def _variance(self, x: Tensor) -> Tensor:
        """Return the unbiased variance of each patch, 0 for those of one pixel."""
        rows, columns = (min(self.patch, side) for side in x.shape[-2:])
        height, width = x.shape[-2] // rows * rows, x.shape[-1] // columns * columns
        x = x[..., :height, :width].unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))
        off = x - x.mean(dim=(-3, -1), keepdim=True)
        return off.square().sum(dim=(-3, -1)) / max(1, rows * columns - 1)
