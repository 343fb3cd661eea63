"""What the metrics share: the checks of a pair, the border and the units."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from sr_train.api.errors import ConfigError, DataError
from sr_train.api.metric import Pixels
from sr_train.ops.colour import luma

Border = int | Literal["scale"]
MetricColour = Literal["rgb", "y"]

PEAK = 255.0
"""Largest value in the units that `to_units` returns, whatever the dtype."""


def check_border(border: Border) -> Border:
    """Return `border` if it is 'scale' or at least 0, else raise a ConfigError."""
    if border == "scale" or (isinstance(border, int) and border >= 0):
        return border
    raise ConfigError(f"border must be 'scale' or a number of pixels from 0 up, got {border!r}")


def check_colour(colour: MetricColour) -> MetricColour:
    """Return `colour` if it is 'rgb' or 'y', else raise a ConfigError."""
    if colour in ("rgb", "y"):
        return colour
    raise ConfigError(f"colour must be 'rgb' or 'y', got {colour!r}")


def cropped_pair(
    pred: Pixels, gt: Pixels, border: Border, scale: int, smallest: int = 1
) -> tuple[Pixels, Pixels]:
    """Return views of both images as (H, W, C) without `border` pixels on each side.

    Args:
        pred: (H, W, C) or (H, W), uint8 or uint16.
        gt: like `pred`.
        border: pixels on the gt grid, or 'scale' for as many as the scale says.
        scale: upscaling factor.
        smallest: least height and width that the metric needs after the crop.

    Raises:
        DataError: if shapes or dtypes differ, the dtype is another one, or too little is left.
    """
    if pred.shape != gt.shape:
        raise DataError(f"pred and gt differ in shape (H, W, C): {pred.shape} and {gt.shape}")
    if pred.dtype != gt.dtype or pred.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"pred and gt must both be uint8 or both be uint16, got {pred.dtype} and {gt.dtype}"
        )
    if pred.ndim not in (2, 3) or (pred.ndim == 3 and pred.shape[2] not in (1, 3)):
        raise DataError(f"an image has 1 or 3 channels, (H, W, C); got shape {pred.shape}")
    width = scale if border == "scale" else border
    least = 2 * width + smallest
    if min(pred.shape[:2]) < least:
        raise DataError(
            f"an image of {pred.shape[1]}x{pred.shape[0]} pixels is too small: a border of {width}"
            f" on each side and {smallest} pixels inside need at least {least}x{least}"
        )
    shape = (*pred.shape[:2], -1)
    inside = slice(width, -width or None)
    return pred.reshape(shape)[inside, inside], gt.reshape(shape)[inside, inside]


def to_units(pixels: Pixels, colour: MetricColour) -> npt.NDArray[np.float32]:
    """Return an image in 8-bit units: (H, W) luma or (H, W, C) as it is, float32, 0..255.

    A 16-bit image is divided by 257, so that its white is 255, too.
    """
    if colour == "y":
        return luma(pixels)
    if pixels.dtype == np.uint16:
        return pixels.astype(np.float32) / np.float32(257.0)
    return pixels.astype(np.float32)
