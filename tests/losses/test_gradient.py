"""Losses on derivatives against SciPy's correlation and plain loops."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from losses.gradient import GradientLoss, GradientVarianceLoss

ACROSS = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=float)


def pair(*shape):
    random = np.random.default_rng(0)
    return random.random(shape), random.random(shape)


def slopes(images):
    """Return both derivatives of every plane, the border repeated."""
    planes = images.reshape(-1, *images.shape[-2:])
    return [
        np.stack([correlate(plane, kernel, mode="nearest") for plane in planes])
        for kernel in (ACROSS, ACROSS.T)
    ]


def value(loss, pred, target):
    return float(loss(torch.from_numpy(pred), torch.from_numpy(target)))


@pytest.mark.parametrize("size", [(7, 5), (1, 4)])
def test_gradient_by_scipy(size):
    pred, target = pair(2, 3, *size)
    expected = sum(abs(x - y).mean() for x, y in zip(slopes(pred), slopes(target), strict=True))
    assert value(GradientLoss(), pred, target) == pytest.approx(expected, rel=1e-9)


def test_a_constant_added_costs_nothing():
    pred, _ = pair(1, 1, 6, 6)
    assert value(GradientLoss(), pred, pred + 0.25) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("size", "patch"), [((8, 12), 4), ((9, 11), 4), ((6, 5), 8), ((3, 1), 1)])
def test_gradient_variance_by_loops(size, patch):
    pred, target = pair(2, 2, *size)
    rows, columns = (min(patch, side) for side in size)

    def variances(planes):
        found = [
            plane[top : top + rows, left : left + columns]
            for plane in planes
            for top in range(0, size[0] - rows + 1, rows)
            for left in range(0, size[1] - columns + 1, columns)
        ]
        return np.array([part.var(ddof=1) if part.size > 1 else 0.0 for part in found])

    expected = sum(
        ((variances(x) - variances(y)) ** 2).mean()
        for x, y in zip(slopes(pred), slopes(target), strict=True)
    )
    found = value(GradientVarianceLoss(patch), pred, target)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_blur_costs_variance():
    _, target = pair(1, 1, 16, 16)
    flat = np.full_like(target, target.mean())
    blurred = (target + flat) / 2
    loss = GradientVarianceLoss()
    assert value(loss, flat, target) > value(loss, blurred, target) > 0


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="patch"):
        GradientVarianceLoss(patch=0)
