"""Peak signal-to-noise ratio."""

import math

import cv2

from sr_train.api.metric import Metric, Pixels
from sr_train.metrics.base import (
    PEAK,
    Border,
    MetricColour,
    check_border,
    check_colour,
    cropped_pair,
    to_units,
)


class PSNR(Metric):
    """Return 10 log10(peak^2 / mean squared error) in dB.

    The mean runs over all pixels and channels inside the border. Identical images have no
    error: their value is `math.inf`, so a mean over images that holds one is infinite, too.

    Args:
        colour: `y` compares unrounded BT.601 studio-range luma with a peak of 255, as the papers
            do; `rgb` compares the stored values, whose peak is 255 or 65535.
        border: pixels left out on each side of the gt grid; `scale` for as many as the scale.
    """

    higher_is_better = True

    def __init__(self, colour: MetricColour = "rgb", border: Border = "scale") -> None:
        self.colour = check_colour(colour)
        self.border = check_border(border)

    def __call__(self, pred: Pixels, gt: Pixels, scale: int) -> float:
        """Return dB for one pair.

        Args:
            pred: (H, W, C) or (H, W), uint8 or uint16.
            gt: same shape and dtype as `pred`.
            scale: upscaling factor, read for `border='scale'`.

        Raises:
            DataError: if the images do not match or are too small for the border.
        """
        pred, gt = cropped_pair(pred, gt, self.border, scale)
        if self.colour == "rgb" and pred.dtype == "uint8":
            squares = cv2.norm(pred, gt, cv2.NORM_L2SQR)
        else:
            squares = cv2.norm(
                to_units(pred, self.colour), to_units(gt, self.colour), cv2.NORM_L2SQR
            )
        if squares == 0:
            return math.inf
        count = pred.size if self.colour == "rgb" else pred.shape[0] * pred.shape[1]
        return 10 * math.log10(PEAK**2 * count / squares)
