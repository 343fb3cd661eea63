"""Metrics of neighbouring frames: how a clip changes from one frame to the next."""

from collections.abc import Sequence

import cv2
import numpy as np

from sr_train.api.metric import ClipMetric, Pixels
from sr_train.metrics.base import (
    Border,
    MetricColour,
    check_border,
    check_colour,
    cropped_pair,
    to_units,
)
from sr_train.ops.colour import luma

_SMALLEST = 32
"""Side below which the optical flow has too little to look at."""


class TemporalDifference(ClipMetric):
    """Return the mean of |(pred_t - pred_t-1) - (gt_t - gt_t-1)|, in 8-bit steps.

    0 for a clip that changes as the truth does; a still error does not count, flicker does.

    Args:
        colour: `y` compares luma, `rgb` all planes.
        border: pixels left out on each side of the gt grid; `scale` for as many as the scale.
    """

    higher_is_better = False

    def __init__(self, colour: MetricColour = "y", border: Border = 0) -> None:
        self.colour = check_colour(colour)
        self.border = check_border(border)

    def __call__(self, pred: Sequence[Pixels], gt: Sequence[Pixels], scale: int) -> float:
        """Return the value for two neighbouring frames."""
        errors = []
        for found, wanted in zip(pred, gt, strict=True):
            pair = cropped_pair(found, wanted, self.border, scale)
            errors.append(to_units(pair[0], self.colour) - to_units(pair[1], self.colour))
        return float(np.abs(errors[1] - errors[0]).mean())


class WarpingError(ClipMetric):
    """Return the mean squared error between a frame and the one before, moved along the truth.

    The motion is that of the ground truth, by DIS optical flow on 8-bit luma; pixels whose flow
    forth and back does not return within `tolerance` pixels, or which come from outside, are left
    out. Unit: squares of [0, 1] values, over all planes, times 1000. The truth has an error of its
    own (light, flow); lower than that is smoother than the truth.

    Args:
        border: pixels left out on each side of the gt grid; `scale` for as many as the scale.
        tolerance: pixels.

    Reference: Lai et al., Learning Blind Video Temporal Consistency, ECCV 2018, section 4.2,
        https://arxiv.org/abs/1808.00449; Kroeger et al., Fast Optical Flow using Dense Inverse
        Search, ECCV 2016, https://arxiv.org/abs/1603.03590
    """

    higher_is_better = False

    def __init__(self, border: Border = 0, tolerance: float = 1.0) -> None:
        self.border = check_border(border)
        self.tolerance = tolerance

    def __call__(self, pred: Sequence[Pixels], gt: Sequence[Pixels], scale: int) -> float:
        """Return the value for two neighbouring frames; 0 where no motion could be followed."""
        pairs = [
            cropped_pair(found, wanted, self.border, scale, smallest=_SMALLEST)
            for found, wanted in zip(pred, gt, strict=True)
        ]
        before, now = (to_units(found, "rgb") / 255.0 for found, _ in pairs)
        earlier, later = (_grey(wanted) for _, wanted in pairs)
        back, forth = _flow(later, earlier), _flow(earlier, later)
        inside = _lies_inside(back)
        returned = np.linalg.norm(back + _moved(forth, back), axis=2) < self.tolerance
        valid = inside & returned
        if not valid.any():
            return 0.0
        squares = np.square(now - _moved(before, back).reshape(now.shape))[valid]
        return 1000.0 * float(squares.mean())


def _grey(pixels: Pixels) -> Pixels:
    return luma(pixels).round().astype(np.uint8)


def _flow(start: Pixels, end: Pixels) -> Pixels:
    """Return (H, W, 2) float32: how far right and down each pixel of `start` lies in `end`."""
    # A new one each time: it would begin with the flow of the call before.
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(flow.calc(start, end, np.zeros((*start.shape, 2), np.float32)))


def _grid(flow: Pixels) -> tuple[Pixels, Pixels]:
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return x, y


def _moved(image: Pixels, flow: Pixels) -> Pixels:
    return cv2.remap(image, *_grid(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _lies_inside(flow: Pixels) -> Pixels:
    height, width = flow.shape[:2]
    x, y = _grid(flow)
    inside: Pixels = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return inside
