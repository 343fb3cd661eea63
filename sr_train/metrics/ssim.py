"""Structural similarity."""

import cv2
import numpy as np
import numpy.typing as npt

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

_WINDOW = 11
_SIGMA = 1.5
_C1 = (0.01 * PEAK) ** 2
_C2 = (0.03 * PEAK) ** 2
_STRIP = 64
"""Rows of the similarity map made at a time: few enough for all planes to stay in cache."""

Plane = npt.NDArray[np.float32]


class SSIM(Metric):
    """Return the mean structural similarity, at most 1.

    Gaussian window 11x11 with sigma 1.5, K1 = 0.01, K2 = 0.03, windows wholly inside the image
    only; the mean of the channels' values for RGB.

    Args:
        colour: `y` compares unrounded BT.601 studio-range luma, as the papers do; `rgb` compares
            the stored values.
        border: pixels left out on each side of the gt grid; `scale` for as many as the scale.

    Reference: Wang et al., Image quality assessment: from error visibility to structural
        similarity, IEEE TIP 2004, eq. 13, https://doi.org/10.1109/TIP.2003.819861
    """

    higher_is_better = True

    def __init__(self, colour: MetricColour = "rgb", border: Border = "scale") -> None:
        self.colour = check_colour(colour)
        self.border = check_border(border)
        self._kernel = cv2.getGaussianKernel(_WINDOW, _SIGMA, cv2.CV_32F)

    def __call__(self, pred: Pixels, gt: Pixels, scale: int) -> float:
        """Return the similarity of one pair.

        Args:
            pred: (H, W, C) or (H, W), uint8 or uint16.
            gt: same shape and dtype as `pred`.
            scale: upscaling factor, read for `border='scale'`.

        Raises:
            DataError: if the images do not match or the part inside the border is smaller than
                the window.
        """
        pred, gt = cropped_pair(pred, gt, self.border, scale, _WINDOW)
        rows = pred.shape[0] - _WINDOW + 1
        total, count = 0.0, 0
        for top in range(0, rows, _STRIP):
            strip = slice(top, min(top + _STRIP, rows) + _WINDOW - 1)
            similarity = self._map(
                to_units(pred[strip], self.colour), to_units(gt[strip], self.colour)
            )
            total += float(np.sum(similarity, dtype=np.float64))
            count += similarity.size
        return total / count

    def _map(self, pred: Plane, gt: Plane) -> Plane:
        """Return the similarity at every window inside two images in 8-bit units.

        Both factors are written as 1 - (difference) / (sum), and values are taken relative to
        their means: the plain form subtracts nearly equal numbers and loses flat areas in float32.
        """
        level, shift = np.mean(gt), np.mean(pred) - np.mean(gt)
        pred = pred - level
        gt = gt - level
        error = pred - gt - shift
        mean_gt, mean_error = self._blur(gt), self._blur(error)
        energy = self._blur(pred * pred + gt * gt)
        error_variance = self._blur(error * error) - mean_error * mean_error
        mean_error = mean_error + shift
        mean_pred = mean_gt + mean_error
        variances = energy - mean_pred * mean_pred - mean_gt * mean_gt
        mean_pred += level
        mean_gt += level
        squared_means = mean_pred * mean_pred + mean_gt * mean_gt
        luminance = 1 - mean_error * mean_error / (squared_means + np.float32(_C1))
        structure = 1 - error_variance / (variances + np.float32(_C2))
        return np.asarray(luminance * structure, dtype=np.float32)

    def _blur(self, plane: Plane) -> Plane:
        """Return the Gaussian mean of every window that lies inside `plane`, (H, W[, C])."""
        half = _WINDOW // 2
        blurred = cv2.sepFilter2D(plane, cv2.CV_32F, self._kernel, self._kernel)
        return np.asarray(blurred, dtype=np.float32)[
            half : plane.shape[0] - half, half : plane.shape[1] - half
        ]
