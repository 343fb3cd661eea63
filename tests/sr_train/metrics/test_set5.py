"""The bicubic row of the papers' tables, from the images themselves.

Wants `SR_TRAIN_TEST_DATA`, a folder with `Set5/HR` and `Set5/LR_bicubic/X{2,3,4}`.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from sr_train.io.images import read_image, to_rgb
from sr_train.metrics import PSNR, SSIM
from sr_train.ops.resize import imresize

ROOT = os.environ.get("SR_TRAIN_TEST_DATA")
# The papers print 33.66/.9299, 30.39/.8682, 28.42/.8104: a little below unrounded luma, as here,
# and a little above luma rounded to 8 bit (33.64/.9292, 30.39/.8678, 28.42/.8101).
EXPECTED = {2: (33.673, 0.93029), 3: (30.403, 0.86891), 4: (28.429, 0.81114)}


@pytest.mark.skipif(ROOT is None, reason="SR_TRAIN_TEST_DATA is not set")
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_baseline(scale):
    folder = Path(str(ROOT)) / "Set5"
    psnr, ssim = PSNR("y", "scale"), SSIM("y", "scale")
    values = []
    for path in sorted((folder / "HR").glob("*.png")):
        gt = to_rgb(read_image(path).pixels)
        height, width = (side - side % scale for side in gt.shape[:2])
        gt = gt[:height, :width]
        lq_path = folder / "LR_bicubic" / f"X{scale}" / f"{path.stem}x{scale}.png"
        pred = imresize(to_rgb(read_image(lq_path).pixels), scale)
        values.append((psnr(pred, gt, scale), ssim(pred, gt, scale)))
    assert len(values) == 5
    mean_psnr, mean_ssim = np.mean(values, axis=0)
    assert mean_psnr == pytest.approx(EXPECTED[scale][0], abs=1e-3)
    assert mean_ssim == pytest.approx(EXPECTED[scale][1], abs=1e-5)
