"""The contextual loss against plain loops over positions."""

import math

import numpy as np
import pytest
import torch

from losses.contextual import ContextualLoss, contextual_similarity, positions
from tests.losses.published import each_layer, vgg19
from tests.losses.zoo import extractor


def vectors(*shape):
    return np.random.default_rng(0).standard_normal((2, *shape))


def similarity_by_loops(x, y, h):
    """Return CX of one image, as in equations 1 to 4 of the paper."""
    centre = y.mean(0)
    x, y = x - centre, y - centre

    def distance(p, q):
        return 1 - (p @ q) / (np.linalg.norm(p) * np.linalg.norm(q))

    table = np.array([[distance(p, q) for q in y] for p in x])
    best = np.zeros(len(y))
    for row in table:
        w = [math.exp((1 - d / (min(row) + 1e-5)) / h) for d in row]
        best = np.maximum(best, np.array(w) / sum(w))
    return best.mean()


@pytest.mark.parametrize("h", [0.5, 0.1])
def test_similarity_by_loops(h):
    x, y = vectors(2, 7, 4)
    expected = [similarity_by_loops(p, q, h) for p, q in zip(x, y, strict=True)]
    found = contextual_similarity(torch.from_numpy(x), torch.from_numpy(y), h)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_similarity_is_one_for_positions_in_another_order_and_one_nth_for_flat_ones():
    x = torch.from_numpy(vectors(2, 9, 16)[0])
    assert contextual_similarity(x.flip(1), x).tolist() == pytest.approx([1.0, 1.0])
    flat = torch.ones(1, 9, 16)
    assert float(contextual_similarity(flat, flat)) == pytest.approx(1 / 9)


def test_similarity_gradient():
    x, y = vectors(1, 5, 3)
    live = torch.from_numpy(x).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda each: contextual_similarity(each, torch.from_numpy(y)), live
    )


def test_positions_are_the_same_in_both_and_evenly_spaced():
    features = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert positions(features, 20).shape == (2, 20, 3)
    assert torch.equal(positions(features, 20)[1, 7], features[1, :, 1, 2])
    kept = positions(features, 8)
    assert kept.shape == (2, 7, 3), "every third of 20"
    assert torch.equal(kept[0, 2], features[0, :, 1, 1])


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_by_loops(channels):
    pred, target = (
        torch.rand(2, channels, 24, 20, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    layers = {"conv3_2": 1.0, "conv4_2": 0.5}
    numbers = {"conv3_2": 12, "conv4_2": 21}
    network = vgg19(extractor("vgg19"))
    found, wanted = (each_layer(network, x.expand(-1, 3, -1, -1), 21) for x in (pred, target))
    expected = 0.0
    for layer, weight in layers.items():
        flat = [
            taps[numbers[layer]].double().flatten(2).transpose(1, 2).numpy()
            for taps in (found, wanted)
        ]
        scores = [similarity_by_loops(x, y, 0.5) for x, y in zip(*flat, strict=True)]
        expected -= weight * np.log(scores).mean()
    value = ContextualLoss(layers, random_init=True)(pred, target)
    assert float(value) == pytest.approx(expected, rel=1e-3)


def test_arguments_are_checked():
    extractor("vgg19")
    with pytest.raises(ValueError, match="h must be"):
        ContextualLoss(h=0.0, random_init=True)
    with pytest.raises(ValueError, match="max_positions"):
        ContextualLoss(max_positions=0, random_init=True)
    with pytest.raises(ValueError, match="did you mean"):
        ContextualLoss({"conv3_22": 1.0}, random_init=True)
