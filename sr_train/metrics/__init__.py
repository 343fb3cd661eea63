"""Picture metrics as the super-resolution papers define them.

Every metric is called as `metric(pred, gt, scale)` with two whole pictures and gives one float.
"""

from sr_train.metrics.base import Metric
from sr_train.metrics.lpips import LPIPS
from sr_train.metrics.psnr import PSNR
from sr_train.metrics.ssim import SSIM

__all__ = ["LPIPS", "PSNR", "SSIM", "Metric"]
