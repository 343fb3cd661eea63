"""SSIM against hand-worked values and the plain formula in float64."""

import numpy as np
import pytest

from sr_train.api.errors import DataError
from sr_train.metrics import SSIM


def window_means(x):
    """Return the Gaussian mean of every 11x11 window inside (H, W), in float64."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    windows = np.lib.stride_tricks.sliding_window_view(x, (11, 11))
    return (windows * weights / weights.sum()).sum((-2, -1))


def slow_ssim(pred, gt, colour, border):
    """Return the textbook formula in float64, channel by channel."""
    peak = 255.0 if pred.dtype == np.uint8 else 65535.0
    inside = slice(border, -border or None)
    pred, gt = (x[inside, inside].astype(np.float64) for x in (pred, gt))
    if colour == "y":
        weights = np.array([65.481, 128.553, 24.966]) / 255
        pred, gt = ((x @ weights + 16 * peak / 255)[..., None] for x in (pred, gt))
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    values = []
    for channel in range(pred.shape[2]):
        a, b = pred[..., channel], gt[..., channel]
        mean_a, mean_b = window_means(a), window_means(b)
        var_a = window_means(a * a) - mean_a**2
        var_b = window_means(b * b) - mean_b**2
        cov = window_means(a * b) - mean_a * mean_b
        upper = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
        values.append((upper / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())
    return float(np.mean(values))


def smooth_noise(shape, dtype, seed):
    """Return an image with flat, dark, bright and busy parts."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    x = np.cumsum(rng.normal(0, top / 30, shape), axis=0)
    x[:, : shape[1] // 4] = 0.98 * top
    x[:, shape[1] // 4 : shape[1] // 2] = 0.01 * top
    return np.clip(x, 0, top).astype(dtype)


def noisy_pair(dtype, shape=(150, 41, 3)):
    gt = smooth_noise(shape, dtype, 3)
    top = np.iinfo(dtype).max
    noise = np.random.default_rng(4).normal(0, top / 60, shape)
    return np.clip(gt + noise, 0, top).astype(dtype), gt


def test_two_flat_images():
    # (2*100*120 + 6.5025) / (100^2 + 120^2 + 6.5025): only the luminance factor differs from 1
    a, b = np.full((20, 20, 3), 100, np.uint8), np.full((20, 20, 3), 120, np.uint8)
    assert SSIM("rgb", 0)(a, b, 1) == pytest.approx(24006.5025 / 24406.5025, abs=1e-7)


def test_identical_images_score_one():
    _, gt = noisy_pair(np.uint8)
    assert SSIM("rgb", 0)(gt, gt.copy(), 1) == 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", ["rgb", "y"])
@pytest.mark.parametrize("border", [0, 4])
def test_agrees_with_the_formula(dtype, colour, border):
    pred, gt = noisy_pair(dtype)
    value = SSIM(colour, border)(pred, gt, 2)
    expected = slow_ssim(pred, gt, colour, border)
    assert 0.3 < expected < 0.99
    assert value == pytest.approx(expected, abs=1e-6)


def test_bright_flat_image_with_one_faint_dot():
    """Cancellation: the plain float32 formula is wrong in the fourth digit here."""
    gt = np.full((64, 64, 3), 253, np.uint8)
    pred = gt.copy()
    pred[::9, ::7] = 252
    assert SSIM("rgb", 0)(pred, gt, 1) == pytest.approx(slow_ssim(pred, gt, "rgb", 0), abs=1e-7)


@pytest.mark.parametrize("height", [11, 12, 73, 74, 75, 138, 139])
def test_strips_cover_every_window_once(height):
    pred, gt = noisy_pair(np.uint8, (height, 13, 1))
    value = SSIM("rgb", 0)(pred, gt, 1)
    assert value == pytest.approx(slow_ssim(pred, gt, "rgb", 0), abs=1e-6)


def test_the_window_must_fit_inside_the_border():
    gt = np.zeros((18, 30, 3), np.uint8)
    with pytest.raises(DataError, match="need at least 19x19"):
        SSIM("rgb", 4)(gt, gt, 1)
    assert SSIM("rgb", 3)(gt, gt, 1) == 1.0


def test_size_mismatch_raises():
    with pytest.raises(DataError, match="differ in shape"):
        SSIM()(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 21, 3), np.uint8), 2)
