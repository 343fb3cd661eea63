"""DISTS against torchvision's VGG16 and plain loops."""

import numpy as np
import pytest
import torch

from losses.dists import CHANNELS, DISTSLoss, l2_pool
from sr_train.api.errors import CheckpointError
from tests.losses.published import normalised, vgg16
from tests.losses.zoo import extractor

POOLS, ENDS = {4, 9, 16, 23, 30}, (3, 8, 15, 22, 29)
"""Places in torchvision's list: of its pools, and of the last ReLU of each block."""


def pair(channels=3):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, channels, 20, 19, generator=generator)
    return (target + 0.3 * torch.rand(target.shape, generator=generator)).clamp(0, 1), target


def pooled_by_loops(x):
    """Return the root of the Hann-weighted mean of squares of every second 3x3 window."""
    hann = np.hanning(5)[1:-1]
    window = np.outer(hann, hann)
    window /= window.sum()
    padded = np.pad(x**2, ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros((*x.shape[:2], (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2))
    for row in range(result.shape[2]):
        for column in range(result.shape[3]):
            part = padded[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            result[:, :, row, column] = np.sqrt((part * window).sum((2, 3)) + 1e-12)
    return result


@torch.no_grad()
def described(image):
    x = normalised(image)
    taps = [image]
    for number, layer in enumerate(vgg16(extractor("vgg16"))[: ENDS[-1] + 1]):
        x = torch.from_numpy(pooled_by_loops(x.numpy())).float() if number in POOLS else layer(x)
        if number in ENDS:
            taps.append(x)
    return [tap.double().numpy() for tap in taps]


def dists_by_loops(pred, target, alpha, beta, c=1e-6):
    found, wanted = described(pred), described(target)
    alpha, beta = alpha / (alpha.sum() + beta.sum()), beta / (alpha.sum() + beta.sum())
    scores = []
    for b in range(len(pred)):
        number, score = 0, 0.0
        for x, y in zip(found, wanted, strict=True):
            for p, q in zip(x[b], y[b], strict=True):
                covariance = (p * q).mean() - p.mean() * q.mean()
                texture = (2 * p.mean() * q.mean() + c) / (p.mean() ** 2 + q.mean() ** 2 + c)
                structure = (2 * covariance + c) / (p.var() + q.var() + c)
                score += alpha[number] * texture + beta[number] * structure
                number += 1
        scores.append(1 - score)
    return np.mean(scores)


def test_value_by_loops_with_a_calibration_from_a_file(tmp_path):
    """Published as parameters of (1, 1475, 1, 1), which do not sum to one."""
    random = np.random.default_rng(0)
    alpha, beta = random.random((2, sum(CHANNELS)))
    calibration, weights = tmp_path / "dists.pt", tmp_path / "vgg16.pth"
    shaped = {k: torch.tensor(v).view(1, -1, 1, 1) for k, v in (("alpha", alpha), ("beta", beta))}
    torch.save({key: torch.nn.Parameter(value) for key, value in shaped.items()}, calibration)
    layers = vgg16(extractor("vgg16")).state_dict()
    torch.save({f"features.{key}": value for key, value in layers.items()}, weights)
    pred, target = pair()
    value = DISTSLoss(weights, calibration)(pred, target)
    assert float(value) == pytest.approx(dists_by_loops(pred, target, alpha, beta), rel=1e-4)


def test_grey_value_by_loops_untrained():
    extractor("vgg16")
    pred, target = pair(channels=1)
    ones = np.ones(sum(CHANNELS))
    wide = [x.expand(-1, 3, -1, -1) for x in (pred, target)]
    expected = dists_by_loops(*wide, ones, ones)
    assert float(DISTSLoss(random_init=True)(pred, target)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("size", [(6, 7), (1, 1), (5, 2)])
def test_l2_pool_by_loops(size):
    x = np.random.default_rng(0).standard_normal((2, 3, *size))
    np.testing.assert_allclose(l2_pool(torch.from_numpy(x)).numpy(), pooled_by_loops(x))


def test_l2_pool_gradient():
    x = torch.rand(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(l2_pool, x)
    black = torch.zeros(1, 2, 4, 4, requires_grad=True)
    l2_pool(black).sum().backward()
    assert float(black.grad.abs().max()) == 0.0


def test_missing_files_are_errors(tmp_path):
    nowhere, something = tmp_path / "none.pt", tmp_path / "some.pt"
    with pytest.raises(CheckpointError) as caught:
        DISTSLoss(calibration=nowhere)
    for part in (str(nowhere), "https://github.com/photosynthesis-team/piq", "dists_weights.pt"):
        assert part in str(caught.value)
    torch.save({"alpha": torch.ones(1475), "beta": torch.ones(3)}, something)
    with pytest.raises(CheckpointError, match="expected beta of 1475"):
        DISTSLoss(calibration=something)
    torch.save({"alpha": torch.ones(1475), "beta": torch.ones(1475)}, something)
    with pytest.raises(CheckpointError, match="vgg16-397923af"):
        DISTSLoss(weights=nowhere, calibration=something)
    with pytest.raises(ValueError, match="c must be above zero"):
        DISTSLoss(random_init=True, c=0.0)
