"""Colour losses against BT.601's matrix, scikit-image's L* and plain loops."""

import math

import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from losses.colour import (
    AverageColourLoss,
    ColourLoss,
    LQConsistencyLoss,
    LumaLoss,
    lightness,
)

CB = np.array([-37.797, -74.203, 112.0])
CR = np.array([112.0, -93.786, -18.214])


def pair(*shape):
    random = np.random.default_rng(0)
    return random.random(shape), random.random(shape)


def value(loss, pred, target):
    return float(loss(torch.from_numpy(pred), torch.from_numpy(target)))


def block_means(plane, block):
    """Return the mean of each block, those at the border cut."""
    height, width = plane.shape
    return np.array(
        [
            plane[y : y + block, x : x + block].mean()
            for y in range(0, height, block)
            for x in range(0, width, block)
        ]
    )


@pytest.mark.parametrize("block", [1, 4])
def test_colour_by_the_matrix(block):
    pred, target = pair(2, 3, 9, 10)
    off = [
        block_means(np.tensordot(weights, x - y, axes=1), block) / 255
        for weights in (CB, CR)
        for x, y in zip(pred, target, strict=True)
    ]
    found = value(ColourLoss(block), pred, target)
    assert found == pytest.approx(abs(np.concatenate(off)).mean(), rel=1e-5)


def test_colour_leaves_lightness_free():
    _, target = pair(1, 3, 8, 8)
    assert value(ColourLoss(), target + 0.2, target) == pytest.approx(0.0, abs=1e-7)


def test_lightness_is_that_of_scikit_image():
    random = np.random.default_rng(0)
    levels = np.concatenate([random.random((500, 3)), random.random((500, 3)) * 0.1])
    expected = rgb2lab(levels[None])[0, :, 0] / 100
    found = lightness(torch.from_numpy(levels.T.reshape(1, 3, 1, -1))).flatten()
    # Its weights of red, green and blue are rounded another way.
    assert np.abs(found.numpy() - expected).max() < 1e-4


def test_lightness_of_dark_grey_is_on_the_line():
    """A luminance of 0.005 has L* = 903.3 * 0.005 = 4.5165."""
    grey = torch.full((1, 3, 1, 1), 1.055 * 0.005 ** (1 / 2.4) - 0.055, dtype=torch.float64)
    assert float(lightness(grey)) * 100 == pytest.approx(4.5165, abs=1e-3)


def test_lightness_rises_without_a_jump():
    ramp = torch.linspace(-0.2, 1.5, 20001, dtype=torch.float64)
    found = lightness(ramp.view(1, 1, 1, -1).expand(1, 3, 1, -1)).flatten()
    steps = found.diff()
    assert (steps > 0).all()
    assert float(steps.max()) < 20 * float(steps.mean())


def test_luma_by_scikit_image():
    pred, target = pair(2, 3, 7, 6)
    expected = np.mean(
        [
            abs(rgb2lab(x, channel_axis=0)[0] - rgb2lab(y, channel_axis=0)[0])
            for x, y in zip(pred, target, strict=True)
        ]
    )
    assert value(LumaLoss(), pred, target) == pytest.approx(expected / 100, rel=1e-3)


@pytest.mark.parametrize(("size", "block"), [((8, 8), 4), ((9, 6), 4), ((3, 2), 4), ((5, 5), 1)])
def test_average_colour_by_loops(size, block):
    pred, target = pair(2, 4, *size)
    off = [block_means(plane, block) for plane in (pred - target).reshape(-1, *size)]
    found = value(AverageColourLoss(block), pred, target)
    assert found == pytest.approx(abs(np.concatenate(off)).mean(), rel=1e-9)


def test_average_colour_leaves_detail_free():
    _, target = pair(1, 3, 8, 8)
    checks = np.indices((8, 8)).sum(0) % 2 - 0.5
    assert value(AverageColourLoss(), target + checks, target) == pytest.approx(0.0, abs=1e-12)


def keys(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def shrunk(line, factor):
    """Return a line shrunk as MATLAB's imresize does, mirrored at the ends."""
    result = []
    for i in range(len(line) // factor):
        middle = (i + 0.5) * factor - 0.5
        near = range(math.floor(middle - 2 * factor), math.ceil(middle + 2 * factor) + 1)
        weights = [keys((j - middle) / factor) for j in near]
        inside = [min(max(j, -1 - j), 2 * len(line) - 1 - j) for j in near]
        result.append(np.dot(weights, [line[j] for j in inside]) / sum(weights))
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_lq_consistency_by_loops(channels):
    pred, _ = pair(1, channels, 12, 16)
    lq, _ = pair(1, channels, 6, 8)
    small = np.apply_along_axis(shrunk, -1, np.apply_along_axis(shrunk, -2, pred, 2), 2)
    assert small.shape == lq.shape
    loss = LQConsistencyLoss()
    assert value(loss, pred, lq) == pytest.approx(abs(small - lq).mean(), rel=1e-5)
    assert value(loss, pred, small) == pytest.approx(0.0, abs=1e-6)


def test_images_that_are_not_rgb_are_refused():
    luma = torch.rand(1, 1, 8, 8)
    for loss in (ColourLoss(), LumaLoss()):
        with pytest.raises(ValueError, match=r"must be RGB.*\(1, 1, 8, 8\)"):
            loss(luma, luma)
    with pytest.raises(ValueError, match="batch and channels"):
        LQConsistencyLoss()(torch.rand(1, 3, 8, 8), luma)


def test_arguments_are_checked():
    for loss in (ColourLoss, AverageColourLoss):
        with pytest.raises(ValueError, match="block"):
            loss(block=0)
