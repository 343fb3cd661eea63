"""Metrics as the super-resolution papers define them.

Every metric is called as `metric(pred, gt, scale)` and gives one float: with two whole images,
or, a `ClipMetric`, with two neighbouring frames of each clip.
"""

from sr_train.api.metric import ClipMetric, Metric
from sr_train.metrics.lpips import LPIPS
from sr_train.metrics.psnr import PSNR
from sr_train.metrics.ssim import SSIM
from sr_train.metrics.temporal import TemporalDifference, WarpingError

__all__ = [
    "LPIPS",
    "PSNR",
    "SSIM",
    "ClipMetric",
    "Metric",
    "TemporalDifference",
    "WarpingError",
]
