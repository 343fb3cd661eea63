"""Total variation against plain loops."""

import itertools

import numpy as np
import pytest
import torch

from losses.variation import MaskedTotalVariationLoss, TotalVariationLoss


def neighbours(height, width):
    """Yield each pixel with its right, and with its lower neighbour."""
    for y, x in itertools.product(range(height), range(width)):
        if x + 1 < width:
            yield "across", (y, x), (y, x + 1)
        if y + 1 < height:
            yield "down", (y, x), (y + 1, x)


def variation(images, keep=lambda b, p, q: True):
    """Return the sum over both directions of the mean step, that of dropped ones being 0."""
    steps = {"across": [], "down": []}
    batch, channels, height, width = images.shape
    for b, c in itertools.product(range(batch), range(channels)):
        for way, p, q in neighbours(height, width):
            step = abs(images[b, c][q] - images[b, c][p])
            steps[way].append(step if keep(b, p, q) else 0.0)
    return sum(np.mean(found) for found in steps.values() if found)


@pytest.mark.parametrize("size", [(4, 5), (1, 3), (3, 1)])
def test_total_variation_by_loops(size):
    images = np.random.default_rng(0).random((2, 3, *size))
    found = float(TotalVariationLoss()(torch.from_numpy(images)))
    assert found == pytest.approx(variation(images), rel=1e-9)


def test_masked_total_variation_by_loops():
    random = np.random.default_rng(0)
    target = random.random((2, 3, 7, 8)) * 0.1
    target[:, :, 2:5, 3:6] += 0.5
    pred = random.random(target.shape)
    limit = 0.098

    def flat(b, pixel):
        rows, columns = (slice(max(0, at - 1), at + 2) for at in pixel)
        around = target[b, :, rows, columns].reshape(3, -1)
        return (around.max(1) - around.min(1) <= limit).all()

    def both(b, p, q):
        return flat(b, p) and flat(b, q)

    kept = sum(both(b, p, q) for b in range(2) for _, p, q in neighbours(7, 8))
    assert 5 < kept < 2 * len(list(neighbours(7, 8))) - 5, "a case with flat and rough places"
    loss = MaskedTotalVariationLoss(flatness=limit)
    found = float(loss(torch.from_numpy(pred), torch.from_numpy(target)))
    assert found == pytest.approx(variation(pred, both), rel=1e-9)


def test_eight_bit_levels_do_not_hang_on_rounding():
    """Four levels are flat and five are not, wherever in the range they lie."""
    loss = MaskedTotalVariationLoss()
    low = torch.arange(0, 250)
    pred = torch.rand(250, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    for step, is_flat in ((4, True), (5, False)):
        target = low.view(-1, 1, 1, 1).repeat(1, 1, 3, 3)
        target[..., 1] += step
        for each, image in zip(pred.split(1), (target.float() / 255).split(1), strict=True):
            assert (float(loss(each, image)) > 0) is is_flat


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="flatness"):
        MaskedTotalVariationLoss(flatness=-0.1)
