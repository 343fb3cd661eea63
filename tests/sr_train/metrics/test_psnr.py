"""PSNR against hand-worked values and the plain formula in float64."""

import math

import numpy as np
import pytest

from sr_train.api.errors import ConfigError, DataError
from sr_train.metrics import PSNR


def slow_psnr(pred, gt, colour, border):
    """Return the textbook formula in float64."""
    peak = 255.0 if pred.dtype == np.uint8 else 65535.0
    pred, gt = pred.astype(np.float64), gt.astype(np.float64)
    if colour == "y":
        weights = np.array([65.481, 128.553, 24.966]) / 255
        pred, gt = pred @ weights + 16 * peak / 255, gt @ weights + 16 * peak / 255
    inside = slice(border, -border or None)
    error = (pred - gt)[inside, inside]
    return 20 * math.log10(peak / math.sqrt((error**2).mean()))


def noisy_pair(dtype, shape=(40, 33, 3)):
    rng = np.random.default_rng(7)
    top = np.iinfo(dtype).max
    gt = rng.integers(0, top + 1, shape)
    pred = np.clip(gt + rng.normal(0, top / 40, shape).round(), 0, top)
    return pred.astype(dtype), gt.astype(dtype)


def test_error_of_one_everywhere():
    gt = np.full((6, 6, 3), 100, np.uint8)
    # 20 * log10(255)
    assert PSNR("rgb", 0)(gt + 1, gt, 1) == pytest.approx(48.13080361, abs=1e-8)


def test_luma_error_of_one_green_level():
    gt = np.full((6, 6, 3), 100, np.uint8)
    pred = gt.copy()
    pred[..., 1] += 1
    # 20 * log10(255 / (128.553 / 255))
    assert PSNR("y", 0)(pred, gt, 1) == pytest.approx(54.08003, abs=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", ["rgb", "y"])
@pytest.mark.parametrize("border", [0, 3])
def test_agrees_with_the_formula(dtype, colour, border):
    pred, gt = noisy_pair(dtype)
    value = PSNR(colour, border)(pred, gt, 2)
    assert value == pytest.approx(slow_psnr(pred, gt, colour, border), abs=1e-5)


def test_the_border_does_not_count():
    gt = np.zeros((12, 12, 3), np.uint8)
    pred = gt + np.uint8(1)
    pred[:4] = pred[-4:] = pred[:, :4] = pred[:, -4:] = 255
    assert PSNR("rgb", "scale")(pred, gt, 4) == pytest.approx(48.13080361)
    assert PSNR("rgb", "scale")(pred, gt, 3) < 20


@pytest.mark.parametrize("colour", ["rgb", "y"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_identical_images_are_infinite(colour, dtype):
    _, gt = noisy_pair(dtype)
    assert PSNR(colour)(gt, gt.copy(), 2) == math.inf


def test_grey_luma_equals_that_of_its_rgb_copy():
    pred, gt = noisy_pair(np.uint8, (20, 20, 1))
    rgb = [np.repeat(x, 3, axis=2) for x in (pred, gt)]
    assert PSNR("y", 2)(pred, gt, 1) == pytest.approx(PSNR("y", 2)(*rgb, 1), abs=1e-5)
    assert PSNR("rgb", 2)(pred[..., 0], gt[..., 0], 1) == PSNR("rgb", 2)(*rgb, 1)


def test_no_overflow_on_a_large_image():
    gt = np.zeros((3000, 2000, 3), np.uint8)
    assert PSNR("rgb", 0)(gt + np.uint8(255), gt, 1) == 0.0


def test_raises():
    gt = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(DataError, match="too small"):
        PSNR(border=4)(gt, gt, 2)
    with pytest.raises(ConfigError, match="'rgb' or 'y', got 'hsv'"):
        PSNR("hsv")
    with pytest.raises(ConfigError, match="border"):
        PSNR(border=-1)
