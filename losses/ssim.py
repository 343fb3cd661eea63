"""Structural similarity as a loss, at one scale and at many.

Written as 1 minus what differs, so that equal images have similarity 1 to the last bit:

    luminance  l  = 1 - (mu_x - mu_y)^2 / (mu_x^2 + mu_y^2 + C1)
    structure  cs = 1 - var(x - y) / (var(x) + var(y) + C2)

are the papers' (2 mu_x mu_y + C1) / (mu_x^2 + mu_y^2 + C1) and
(2 cov(x, y) + C2) / (var(x) + var(y) + C2). C1 = 0.01^2 and C2 = 0.03^2 for a peak of 1. Means are
Gaussian, over windows wholly inside of the image, each channel by itself.
"""

import torch
from torch import Tensor
from torch.nn import functional

from losses.common import pair
from sr_train.api.loss import Loss
from sr_train.ops.filters import gaussian_inside, gaussian_same

_C1 = 0.01**2
_C2 = 0.03**2
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_LEAST = 1e-4
"""Least similarity of a scale; a power of it still has a slope of a few hundred."""


def _similarity(pred: Tensor, target: Tensor, window: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the mean of l * cs and the mean of cs, both (B, C)."""
    # Variances do not mind a shift, and small numbers keep more of their digits.
    middle_x = pred.detach().mean(dim=(-2, -1), keepdim=True)
    middle_y = target.mean(dim=(-2, -1), keepdim=True)
    x, y = pred - middle_x, target - middle_y
    off = x - y
    of_pred = torch.cat([x, x * x, off * off], dim=1)
    mean_x, square_x, square_off = gaussian_inside(of_pred, window, sigma).chunk(3, dim=1)
    mean_y, square_y = gaussian_inside(torch.cat([y, y * y], 1), window, sigma).chunk(2, dim=1)
    gap = mean_x - mean_y
    var_x = (square_x - mean_x * mean_x).clamp(min=0)
    var_y = (square_y - mean_y * mean_y).clamp(min=0)
    var_off = (square_off - gap * gap).clamp(min=0)
    structure = 1 - var_off / (var_x + var_y + _C2)
    mu_x, mu_y = mean_x + middle_x, mean_y + middle_y
    gap = gap + (middle_x - middle_y)
    luminance = 1 - gap * gap / (mu_x * mu_x + mu_y * mu_y + _C1)
    return (luminance * structure).mean(dim=(-2, -1)), structure.mean(dim=(-2, -1))


def ms_ssim(pred: Tensor, target: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the multi-scale structural similarity of every plane, at most 1.

    The product over five scales of cs^w, with l * cs in the place of cs at the coarsest; from one
    scale to the next, images are averaged over 2x2 pixels (an odd last row or column is left
    out). Small images use as many scales as leave a whole window at the coarsest (176 pixels
    a side for all five with a window of 11), at least one, and the weights w of those in use are
    scaled to sum 1. A scale that is anticorrelated counts as 1e-4 and has no gradient: powers of
    negative numbers do not exist.

    Args:
        pred: (B, C, H, W), float, nominally in [0, 1].
        target: same shape as `pred`.
        window: side of the Gaussian window in pixels, cut to the image.
        sigma: its standard deviation in pixels.

    Returns:
        (B, C).

    Raises:
        ValueError: if the shapes differ.

    Reference: Wang et al., Multiscale structural similarity for image quality assessment,
        Asilomar 2003, eq. 7, https://doi.org/10.1109/ACSSC.2003.1292216
    """
    pred, target = pair(pred, target)
    smallest = min(pred.shape[-2:])
    levels = 1
    while levels < len(_WEIGHTS) and smallest >> levels >= window:
        levels += 1
    total = sum(_WEIGHTS[:levels])
    result = torch.ones_like(pred[..., 0, 0])
    for level, weight in enumerate(_WEIGHTS[:levels]):
        whole, structure = _similarity(pred, target, window, sigma)
        last = level == levels - 1
        factor = (whole if last else structure).clamp(min=_LEAST)
        result = result * factor ** (weight / total)
        if not last:
            pred, target = functional.avg_pool2d(pred, 2), functional.avg_pool2d(target, 2)
    return result


class SSIMLoss(Loss):
    """1 - SSIM, from 0 to 2, averaged over windows, channels and images.

    Takes (B, C, H, W) images, nominally in [0, 1], of any number of channels.

    Args:
        window: side of the Gaussian window in pixels, cut to images that are smaller.
        sigma: its standard deviation in pixels.

    Raises:
        ValueError: if window or sigma is not above zero.

    Reference: Wang et al., Image quality assessment: from error visibility to structural
        similarity, IEEE TIP 2004, eq. 13, https://doi.org/10.1109/TIP.2003.819861
    """

    def __init__(self, window: int = 11, sigma: float = 1.5) -> None:
        super().__init__()
        self.window, self.sigma = _checked(window, sigma)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        return 1 - _similarity(pred, target, self.window, self.sigma)[0].mean()


class MSSSIMLoss(Loss):
    """1 - MS-SSIM, from 0 to 1, averaged over channels and images; see `ms_ssim`.

    Args:
        window: side of the Gaussian window in pixels.
        sigma: its standard deviation in pixels.

    Raises:
        ValueError: if window or sigma is not above zero.

    Reference: Wang et al., Multiscale structural similarity for image quality assessment,
        Asilomar 2003, eq. 7, https://doi.org/10.1109/ACSSC.2003.1292216
    """

    def __init__(self, window: int = 11, sigma: float = 1.5) -> None:
        super().__init__()
        self.window, self.sigma = _checked(window, sigma)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return 1 - ms_ssim(pred, target, self.window, self.sigma).mean()


class MSSSIML1Loss(Loss):
    """alpha (1 - MS-SSIM) + (1 - alpha) mean(G * |pred - target|), the paper's L_Mix.

    G is a Gaussian of the paper's coarsest sigma, cut at two sigmas and, at the border, to the
    image. The MS-SSIM is that of `ms_ssim`, which shrinks the images; the paper widens
    the window in five steps from sigma 0.5 to 8 instead.

    Args:
        alpha: weight of the MS-SSIM, from 0 to 1.
        sigma_l1: standard deviation of G in pixels; above zero.
        window: side of the Gaussian window of the MS-SSIM in pixels.
        sigma: its standard deviation in pixels.

    Raises:
        ValueError: if alpha lies outside of [0, 1], or a window or sigma is not above zero.

    Reference: Zhao et al., Loss Functions for Image Restoration with Neural Networks, IEEE TCI
        2017, section III-D, https://arxiv.org/abs/1511.08861
    """

    def __init__(
        self,
        alpha: float = 0.84,
        sigma_l1: float = 8.0,
        window: int = 11,
        sigma: float = 1.5,
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
        self.alpha = alpha
        _, self.sigma_l1 = _checked(window, sigma_l1)
        self.window, self.sigma = _checked(window, sigma)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        similarity = ms_ssim(pred, target, self.window, self.sigma).mean()
        window = 2 * round(2 * self.sigma_l1) + 1
        distance = gaussian_same((pred - target).abs(), window, self.sigma_l1).mean()
        return self.alpha * (1 - similarity) + (1 - self.alpha) * distance


def _checked(window: int, sigma: float) -> tuple[int, float]:
    if window < 1 or sigma <= 0:
        raise ValueError(f"window and sigma must be above zero, got {window} and {sigma}")
    return window, sigma
