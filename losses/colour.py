"""Losses on colour only, on lightness only and on local means."""

import torch
from torch import Tensor
from torch.nn import functional

from losses.common import fixed, pair, widened
from sr_train.api.loss import Loss
from sr_train.ops.colour import YCbCr
from sr_train.ops.resize import resize_tensor

# sRGB, IEC 61966-2-1: where its curve turns from line to power, and the luminance of linear RGB.
_SRGB_TURN = 0.04045
_LUMINANCE = (0.2126, 0.7152, 0.0722)
# CIE 1976, exact: below this luminance L* is a line.
_LAB_TURN = 216 / 24389
_LAB_SLOPE = 24389 / 27


def _rgb_pair(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    pred, target = pair(pred, target)
    if pred.ndim != 4 or pred.shape[1] != 3:
        raise ValueError(f"pred must be RGB, (B, 3, H, W), got {tuple(pred.shape)}")
    return pred, target


def _block_means(x: Tensor, block: int) -> Tensor:
    """Return the means of blocks that do not overlap; those at the border may be smaller."""
    return functional.avg_pool2d(x, block, ceil_mode=True)


def lightness(rgb: Tensor) -> Tensor:
    """Return CIELAB's L* / 100 of sRGB images.

    L* = 116 Y^(1/3) - 16, and 903.3 Y where Y < 0.008856, of the luminance Y (white is 1) of the
    linearised image. Below 0 both curves continue as lines, above 1 as powers; the slope is
    finite everywhere.

    Args:
        rgb: (B, 3, H, W), float, sRGB, nominally in [0, 1].

    Returns:
        (B, 1, H, W), 0 for black and 1 for white.

    Reference: ISO/CIE 11664-4:2019, eq. 1 and 4; IEC 61966-2-1:1999 for sRGB
    """
    curved = ((rgb.clamp(min=_SRGB_TURN) + 0.055) / 1.055) ** 2.4
    linear = torch.where(rgb > _SRGB_TURN, curved, rgb / 12.92)
    red, green, blue = linear.split(1, dim=1)
    y = _LUMINANCE[0] * red + _LUMINANCE[1] * green + _LUMINANCE[2] * blue
    root = 1.16 * y.clamp(min=_LAB_TURN) ** (1 / 3) - 0.16
    return torch.where(y > _LAB_TURN, root, _LAB_SLOPE / 100 * y)


class ColourLoss(Loss):
    """L1 of the block means of Cb and Cr: keeps hue and saturation, leaves lightness free.

    BT.601, studio range, in units of 1 / 255 * 8-bit levels; see `sr_train.ops.colour`. Takes
    (B, 3, H, W) RGB images, nominally in [0, 1]. Computed in float32.

    Args:
        block: side in pixels of the blocks that are averaged first, so that only the colour of
            an area counts; 1 compares pixels.

    Raises:
        ValueError: if a block has no pixel, or the images are not RGB.

    Reference: ITU-R BT.601-7, section 3.5, https://www.itu.int/rec/R-REC-BT.601
    """

    planes = (3,)

    def __init__(self, block: int = 4) -> None:
        super().__init__()
        self.block = _checked(block)
        self.space = YCbCr()

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = _rgb_pair(pred, target)
        chroma, expected = (self.space.to_ycbcr(x)[:, 1:] for x in (pred, target))
        return (_block_means(chroma - expected, self.block)).abs().mean()


class LumaLoss(Loss):
    """L1 of CIELAB's L* / 100: lightness as the eye sees it; see `lightness`.

    Takes (B, 3, H, W) sRGB images, nominally in [0, 1].

    Raises:
        ValueError: if the images are not RGB.

    Reference: ISO/CIE 11664-4:2019, eq. 1 and 4
    """

    planes = (3,)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = _rgb_pair(pred, target)
        return (lightness(pred) - lightness(target)).abs().mean()


class AverageColourLoss(Loss):
    """L1 of the means of square blocks: an anchor against drifting colours that leaves detail free.

    Takes (B, C, H, W) images of any range and number of channels. Blocks at the right and
    bottom may be smaller.

    Args:
        block: side of a block in pixels.

    Raises:
        ValueError: if a block has no pixel.

    Reference: ours; block means as in the average-colour terms of other frameworks.
    """

    def __init__(self, block: int = 4) -> None:
        super().__init__()
        self.block = _checked(block)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        return _block_means(pred - target, self.block).abs().mean()


class LQConsistencyLoss(Loss):
    """L1 of the low-quality input and the prediction shrunk to its size by MATLAB's bicubic.

    An anchor that needs no ground truth: whatever a generator invents, its prediction must shrink
    to what it was given. It fits inputs that were made by such a shrinking, or nearly; 0 where
    `lq` is just that.

    Takes pred of (B, C, H, W) and lq of (B, C, h, w), any range. Shrunk in float32.

    Raises:
        ValueError: if batch or channels differ.

    Reference: Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP
        1981, eq. 15, https://doi.org/10.1109/TASSP.1981.1163711, for the kernel
    """

    def forward(self, pred: Tensor, lq: Tensor) -> Tensor:
        if pred.shape[:-2] != lq.shape[:-2]:
            raise ValueError(
                f"pred and lq must agree in batch and channels, got {tuple(pred.shape)} and "
                f"{tuple(lq.shape)}"
            )
        height, width = lq.shape[-2:]
        return (resize_tensor(widened(pred), (height, width)) - fixed(lq)).abs().mean()


def _checked(block: int) -> int:
    if block < 1:
        raise ValueError(f"block must be at least one, got {block}")
    return block
