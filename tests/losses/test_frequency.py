"""Losses on spectra against NumPy's transform."""

import numpy as np
import pytest
import torch

from losses.frequency import FFTL1Loss, FocalFrequencyLoss


def pair(*shape):
    random = np.random.default_rng(0)
    return random.random(shape), random.random(shape)


def value(loss, pred, target):
    return float(loss(torch.from_numpy(pred), torch.from_numpy(target)))


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1)])
def test_fft_l1_by_numpy(size):
    pred, target = pair(2, 3, *size)
    off = np.fft.rfft2(pred) - np.fft.rfft2(target)
    expected = np.mean([abs(off.real), abs(off.imag)])
    assert value(FFTL1Loss(), pred, target) == pytest.approx(expected, rel=1e-9)


def focal(pred, target, alpha, patches, average, log, batch):
    """The published recipe, patch by patch."""
    height, width = (side // patches for side in pred.shape[-2:])
    spectra = []
    for row in range(patches):
        for column in range(patches):
            cut = (
                ...,
                slice(row * height, (row + 1) * height),
                slice(column * width, (column + 1) * width),
            )
            spectra.append([np.fft.fft2(x[cut], norm="ortho") for x in (pred, target)])
    fake, real = (np.stack(side, axis=1) for side in zip(*spectra, strict=True))
    if average:
        fake, real = fake.mean(0, keepdims=True), real.mean(0, keepdims=True)
    distance = abs(fake - real)
    weight = distance**alpha
    if log:
        weight = np.log(weight + 1)
    weight = weight / (weight.max() if batch else weight.max(axis=(-2, -1), keepdims=True))
    return (weight * distance**2).mean()


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(
    ("patches", "average", "log", "batch"),
    [
        (1, False, False, False),
        (2, False, False, False),
        (3, True, False, False),
        (1, False, True, False),
        (2, True, True, True),
    ],
)
def test_focal_frequency_by_numpy(alpha, patches, average, log, batch):
    pred, target = pair(2, 3, 9, 8)
    loss = FocalFrequencyLoss(alpha, patches, average, log, batch)
    expected = focal(pred, target, alpha, patches, average, log, batch)
    assert value(loss, pred, target) == pytest.approx(expected, rel=1e-9)


def test_without_focus_it_is_the_mean_squared_error():
    pred, target = pair(2, 3, 6, 5)
    expected = ((pred - target) ** 2).mean()
    assert value(FocalFrequencyLoss(alpha=0), pred, target) == pytest.approx(expected, rel=1e-9)


def test_the_weight_is_a_constant():
    pred, target = pair(1, 1, 6, 8)
    live = torch.from_numpy(pred).requires_grad_()
    FocalFrequencyLoss()(live, torch.from_numpy(target)).backward()
    off = np.fft.fft2(pred - target, norm="ortho")
    weight = abs(off) / abs(off).max()
    expected = 2 * np.fft.ifft2(weight * off, norm="ortho").real / pred.size
    torch.testing.assert_close(live.grad, torch.from_numpy(expected))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="alpha"):
        FocalFrequencyLoss(alpha=-1)
    with pytest.raises(ValueError, match="patches"):
        FocalFrequencyLoss(patches=0)
