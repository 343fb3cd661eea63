"""InfoNCE against plain loops, and at the temperature where half precision overflows."""

import math

import numpy as np
import pytest
import torch

from losses.contrastive import InfoNCELoss, info_nce
from tests.losses.published import each_layer, vgg19
from tests.losses.zoo import extractor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def vectors(*shape):
    return np.random.default_rng(0).standard_normal(shape)


def by_loops(query, positive, negatives, temperature):
    """Return the mean of -log(exp(s_ii / T) / sum over j of exp(s_ij / T))."""

    def similarity(p, q):
        return p @ q / (np.linalg.norm(p) * np.linalg.norm(q))

    terms = []
    for b in range(len(query)):
        for i, x in enumerate(query[b]):
            others = [*positive[b], *([] if negatives is None else negatives[b])]
            masses = [math.exp(similarity(x, y) / temperature) for y in others]
            terms.append(-math.log(masses[i] / sum(masses)))
    return np.mean(terms)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("more", [False, True])
def test_value_by_loops(temperature, more):
    query, positive = vectors(2, 2, 5, 8)
    negatives = vectors(2, 3, 8) + 1 if more else None
    expected = by_loops(query, positive, negatives, temperature)
    given = [None if x is None else torch.from_numpy(x) for x in (query, positive, negatives)]
    assert float(info_nce(*given, temperature)) == pytest.approx(expected, rel=1e-9)


def test_gradcheck():
    query, positive = (torch.from_numpy(x).requires_grad_() for x in vectors(2, 1, 4, 3))
    negatives = torch.from_numpy(vectors(1, 2, 3) + 1).requires_grad_()
    assert torch.autograd.gradcheck(info_nce, (query, positive, negatives))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e-3, 1.0, 200.0])
def test_stable_at_a_temperature_of_0_07(dtype, size):
    """exp(1 / 0.07) is 1.6e6, which fp16 does not hold; here no exponential is taken of it."""
    assert torch.isinf(torch.tensor(1 / 0.07, dtype=torch.float16).exp())
    query, positive = (
        torch.from_numpy(x * size).to(dtype).requires_grad_() for x in vectors(2, 2, 6, 16)
    )
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        value = info_nce(query, positive)
        best = info_nce(query, query)
    assert value.dtype is torch.float32
    value.backward()
    assert torch.isfinite(query.grad).all()
    assert float(query.grad.abs().max()) > 0
    exact = info_nce(query.detach().double(), positive.detach().double())
    assert float(value.detach()) == pytest.approx(float(exact), rel=1e-5)
    assert 0 <= float(best.detach()) < float(value.detach())


def test_flat_features_score_log_n_and_opposites_the_most():
    flat = torch.ones(1, 7, 4)
    assert float(info_nce(flat, flat)) == pytest.approx(math.log(7), rel=1e-6)
    one = torch.eye(2)[None]
    expected = 2 / 0.07
    assert float(info_nce(one * 2 - 1, 1 - one * 2)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_loss_by_loops(channels):
    pred, target = (
        torch.rand(2, channels, 12, 10, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    network = vgg19(extractor("vgg19"))
    found, wanted = (each_layer(network, x.expand(-1, 3, -1, -1), 17) for x in (pred, target))

    def rows(tap, step):
        return tap.double().flatten(2).transpose(1, 2)[:, ::step].numpy()

    # At most 15 positions: each second of the 6 x 5 after the first pool, all 3 x 2 after the next.
    parts = [
        by_loops(rows(found[number], step), rows(wanted[number], step), None, 0.07)
        for number, step in ((8, 2), (17, 1))
    ]
    expected = np.mean(parts)
    loss = InfoNCELoss(("relu2_2", "relu3_4"), max_positions=15, random_init=True)
    assert float(loss(pred, target)) == pytest.approx(expected, rel=1e-3)


def test_arguments_are_checked():
    extractor("vgg19")
    with pytest.raises(ValueError, match="temperature"):
        InfoNCELoss(temperature=0.0, random_init=True)
    with pytest.raises(ValueError, match="max_positions"):
        InfoNCELoss(max_positions=0, random_init=True)
    with pytest.raises(ValueError, match="did you mean 'relu2_2'"):
        InfoNCELoss(["relu22"], random_init=True)
    with pytest.raises(ValueError, match="shape"):
        info_nce(torch.rand(1, 3, 4), torch.rand(1, 4, 4))
