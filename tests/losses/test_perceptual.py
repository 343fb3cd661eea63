"""Perceptual and style losses against torchvision's VGG19 and plain loops."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from losses.contextual import ContextualLoss
from losses.perceptual import PerceptualLoss, StyleLoss, gram
from sr_train.api.errors import CheckpointError
from sr_train.engine.precision import DTYPES
from tests.closeness import UNIT
from tests.losses.published import each_layer, vgg19
from tests.losses.zoo import extractor

NUMBERS = {"conv1_2": 2, "relu1_2": 3, "conv2_2": 7, "conv3_4": 16, "conv4_4": 25, "conv5_4": 34}
"""Places of layers in torchvision's list."""

CRITERIA = {
    "l1": abs,
    "mse": np.square,
    "charbonnier": lambda off: np.sqrt(off**2 + 1e-3**2) - 1e-3,
}


@cache
def published():
    return vgg19(extractor("vgg19"))


def pair(channels=3, size=32):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, channels, size, size, generator=generator)
    return (target + 0.2 * torch.rand(target.shape, generator=generator)).clamp(0, 1), target


def layers_of(image, names):
    numbers = {name: NUMBERS[name] for name in names}
    found = each_layer(published(), image, max(numbers.values()))
    return {name: found[number].double().numpy() for name, number in numbers.items()}


@pytest.fixture(scope="module", autouse=True)
def kept():
    """Keep the untrained VGG19 that all of them share."""
    return extractor("vgg19")


@pytest.mark.parametrize("channels", [1, 3])
def test_perceptual_of_the_default_by_torchvision(channels):
    """Real-ESRGAN's five layers before the ReLU, weighted 0.1, 0.1, 1, 1, 1, in L1."""
    pred, target = pair(channels)
    weights = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
    found, wanted = (layers_of(x.expand(-1, 3, -1, -1), weights) for x in (pred, target))
    expected = sum(w * abs(found[name] - wanted[name]).mean() for name, w in weights.items())
    value = PerceptualLoss(random_init=True)(pred, target)
    assert float(value) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_perceptual_criteria_before_and_after_the_relu(criterion):
    pred, target = pair(size=12)
    weights = {"conv1_2": -0.5, "relu1_2": 2.0}
    found, wanted = layers_of(pred, weights), layers_of(target, weights)
    expected = sum(
        w * CRITERIA[criterion](found[name] - wanted[name]).mean() for name, w in weights.items()
    )
    value = PerceptualLoss(weights, criterion, random_init=True)(pred, target)
    assert float(value) == pytest.approx(expected, rel=1e-4)


def gram_by_loops(features):
    batch, channels, height, width = features.shape
    result = np.zeros((batch, channels, channels))
    for b, c, d in itertools.product(range(batch), range(channels), range(channels)):
        total = sum(
            features[b, c, y, x] * features[b, d, y, x] for y in range(height) for x in range(width)
        )
        result[b, c, d] = total / (channels * height * width)
    return result


def test_gram_by_loops():
    features = np.random.default_rng(0).standard_normal((2, 4, 3, 5))
    found = gram(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found, gram_by_loops(features), rtol=1e-9)


def test_gram_of_huge_features_does_not_overflow():
    features = torch.full((1, 512, 8, 8), 1e18)
    assert torch.isfinite(gram(features)).all()


@pytest.mark.parametrize("criterion", CRITERIA)
def test_style_by_numpy(criterion):
    pred, target = pair(size=12)
    weights = {"relu1_2": 1.0, "conv2_2": 0.3}

    def grams(image):
        flat = {k: x.reshape(*x.shape[:2], -1) for k, x in layers_of(image, weights).items()}
        return {k: x @ x.transpose(0, 2, 1) / x[0].size for k, x in flat.items()}

    found, wanted = grams(pred), grams(target)
    expected = sum(
        w * CRITERIA[criterion](found[name] - wanted[name]).mean() for name, w in weights.items()
    )
    value = StyleLoss(weights, criterion, random_init=True)(pred, target)
    assert float(value) == pytest.approx(expected, rel=1e-3)


def test_style_forgives_a_shift_where_perceptual_does_not():
    _, target = pair(size=32)
    moved = target.roll(4, dims=-1)
    other = target.flip(1) * 0.5
    style, perceptual = StyleLoss(random_init=True), PerceptualLoss(random_init=True)
    assert float(style(moved, target)) < 0.2 * float(style(other, target))
    assert float(perceptual(moved, target)) > 0.5 * float(perceptual(other, target))


def test_terms_share_one_extractor_that_is_in_nobody_s_state():
    losses = nn.ModuleList(
        loss(random_init=True) for loss in (PerceptualLoss, StyleLoss, ContextualLoss)
    )
    assert len({id(loss.features) for loss in losses}) == 1
    assert losses[0].features is extractor("vgg19")
    assert list(losses.parameters()) == []
    assert losses.state_dict() == {}
    pred, target = pair(size=12)
    pred.requires_grad_()
    (losses[0](pred, target) + losses[1](pred, target)).backward()
    weights = list(losses[0].features.buffers())
    assert all(not each.requires_grad and each.grad is None for each in weights)


@pytest.mark.parametrize("loss", [PerceptualLoss, StyleLoss])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_of_the_network_is_near_fp32(loss, precision):
    extractor("vgg19", precision)
    pred, target = pair(size=16)
    layers = {"conv1_2": 0.1, "conv2_2": 1.0}
    exact = loss(layers, random_init=True)(pred, target)
    value = loss(layers, random_init=True, precision=precision)(pred, target)
    assert value.dtype is torch.float32
    # Rounded in each of three layers, their weights too; a Gram matrix squares that.
    assert float(value) == pytest.approx(float(exact), rel=8 * UNIT[DTYPES[precision]])
    assert float(value) != float(exact)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_weight_of_1e_7_moves_a_generator_in_fp16(precision):
    """Under the loss scale: through the extractor, the image and the generator."""
    layers = {"conv1_2": 0.1, "conv2_2": 1.0}
    torch.manual_seed(0)
    net_g = nn.Conv2d(3, 3, 3, padding=1)
    lq, target = pair(size=16)

    def gradient(loss, dtype, factor):
        net_g.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            pred = net_g(lq).float()
        (loss(pred, target) * factor).backward()
        return net_g.weight.grad.double() / factor

    extractor("vgg19", precision)
    exact = gradient(PerceptualLoss(layers, random_init=True), torch.float32, 1.0)
    loss = PerceptualLoss(layers, random_init=True, precision=precision)
    found = gradient(loss, torch.float16, 1e-7 * 2.0**16)
    assert float(found.abs().min()) > 0
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))


def test_missing_weights_are_an_error_that_says_what_to_do(tmp_path):
    path = tmp_path / "nowhere" / "vgg19.pth"
    for loss in (PerceptualLoss, StyleLoss, ContextualLoss):
        with pytest.raises(CheckpointError) as caught:
            loss(weights=path)
        for part in ("vgg19", str(path), "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"):
            assert part in str(caught.value)


def test_arguments_are_checked():
    for loss in (PerceptualLoss, StyleLoss):
        with pytest.raises(ValueError, match="did you mean 'conv3_4'"):
            loss({"conv34": 1.0}, random_init=True)
        with pytest.raises(ValueError, match=r"layers\.conv1_2=0"):
            loss({"conv1_2": 0.0}, random_init=True)
        with pytest.raises(ValueError, match="l1, mse, charbonnier, got 'fro'"):
            loss(criterion="fro", random_init=True)
        with pytest.raises(ValueError, match="at least one layer"):
            loss({}, random_init=True)
        with pytest.raises(ValueError, match="shape"):
            loss(random_init=True)(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
        with pytest.raises(ValueError, match="1 or 3 channels"):
            loss(random_init=True)(torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8))
