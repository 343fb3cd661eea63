import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import spectral_norm

from archs.spectral import SpectralConv2d
from tests.archs.discriminators import SPECTRAL, build, image, total


def layer(seed: int = 0) -> SpectralConv2d:
    torch.manual_seed(seed)
    return SpectralConv2d(3, 8, 3, padding=1)


def change(net: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in net.parameters():
            weights.add_(torch.randn(weights.shape, generator=generator) * 0.05)


def norm_of(conv: SpectralConv2d) -> float:
    return float(torch.linalg.matrix_norm(conv.normalised().detach().float().flatten(1), 2))


def vectors(net: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for name, value in net.named_buffers() if name[-2:] in {"_u", "_v"}]


def test_the_result_has_norm_one_from_the_start():
    conv = layer().eval()
    assert norm_of(conv) == pytest.approx(1, abs=0.05)


def test_the_norm_follows_the_weights():
    conv = layer().train()
    for seed in range(30):
        change(conv, seed)
        conv(image())
    for _ in range(20):
        with torch.no_grad():
            conv.weight_orig.mul_(1.0).view(-1)[0] += 1e-4
        conv(image())
    assert norm_of(conv) == pytest.approx(1, abs=0.05)


def test_one_iteration_is_that_of_torch():
    """After a change of the weights, the first call in training is torch's, bit for bit."""
    ours = layer().train()
    theirs = spectral_norm(nn.Conv2d(3, 8, 3, padding=1)).train()
    change(ours)
    theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    seen = image()
    results = []
    for conv in (ours, theirs):
        result = conv(seen)
        result.square().sum().backward()
        results += [result, conv.weight_orig.grad, conv.bias.grad, conv.weight_u, conv.weight_v]
    for a, b in zip(results[:5], results[5:], strict=True):
        torch.testing.assert_close(a, b)


def test_the_iteration_advances_once_for_each_change():
    conv = layer().train()
    start = vectors(conv)
    change(conv)
    conv(image())
    moved = vectors(conv)
    assert not torch.equal(moved[0], start[0])
    for seed in range(3):
        conv(image(seed=seed))
    assert all(torch.equal(a, b) for a, b in zip(moved, vectors(conv), strict=True))


def test_nothing_moves_in_evaluation():
    conv = layer().eval()
    before = vectors(conv)
    change(conv)
    conv(image())
    assert all(torch.equal(a, b) for a, b in zip(before, vectors(conv), strict=True))


@pytest.mark.parametrize("make", SPECTRAL.values(), ids=SPECTRAL.keys())
def test_micro_batches_give_the_gradient_of_the_whole(make):
    net = build(make).train()
    change(net)
    other = copy.deepcopy(net)
    seen = image(batch=4)
    total(net(seen)).backward()
    for part in seen.split(1):
        (total(other(part)) / 4).backward()
    for (name, a), b in zip(net.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-6, msg=f"{name}: {{}}".format)


@pytest.mark.parametrize("make", SPECTRAL.values(), ids=SPECTRAL.keys())
def test_equal_weights_stay_equal_whatever_is_seen(make):
    """Processes see different images, take the same optimizer step and share no buffers."""
    nets = [build(make).train() for _ in range(2)]
    for step in range(3):
        for rank, net in enumerate(nets):
            for call in range(1 + rank):
                net(image(16 * (1 + rank), 16, seed=10 * step + call))
            change(net, seed=step)
    for a, b in zip(vectors(nets[0]), vectors(nets[1]), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("make", SPECTRAL.values(), ids=SPECTRAL.keys())
def test_a_run_that_goes_on_from_its_state_is_the_unbroken_run(make):
    whole = build(make).train()
    change(whole)
    whole(image())
    resumed = make().train()
    resumed.load_state_dict(whole.state_dict())
    for net in (whole, resumed):
        net(image())
        change(net, seed=5)
        net(image())
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_autocast_leaves_the_norm_alone():
    conv = layer().train()
    change(conv)
    other = copy.deepcopy(conv)
    exact = conv.normalised()
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype):
            weight = copy.deepcopy(other).normalised()
        assert weight.dtype == torch.float32
        assert torch.equal(weight, exact)


@pytest.mark.parametrize("training", [True, False])
def test_a_graph_survives_later_calls(training):
    conv = layer().train(training)
    first = conv(image())
    second_order = torch.autograd.grad(first.square().sum(), conv.weight_orig, create_graph=True)
    with torch.no_grad():
        conv.weight_u.neg_()
        conv.weight_v.neg_()
    second_order[0].square().sum().backward()
    assert torch.isfinite(conv.weight_orig.grad).all()


def test_zero_and_non_finite_weights_leave_the_vectors_usable():
    conv = layer().train()
    kept = conv.weight_orig.detach().clone()
    for value in (0.0, float("nan"), float("inf")):
        with torch.no_grad():
            conv.weight_orig.fill_(value)
        result = conv(image())
        assert torch.isfinite(result).all() == (value == 0.0)
    with torch.no_grad():
        conv.weight_orig.copy_(kept)
    for seed in range(5):
        change(conv, seed)
        conv(image())
    assert norm_of(conv) == pytest.approx(1, abs=0.1)


def test_weights_in_half_precision_are_normalised_in_float32():
    conv = layer().half().train()
    assert conv.normalised().dtype == torch.float16
    assert norm_of(conv) == pytest.approx(1, abs=0.05)
