import logging
from functools import cache
from weakref import WeakValueDictionary

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import losses.features as features_module
from losses.features import (
    BACKBONES,
    Features,
    check_layers,
    shared_features,
)
from sr_train.api.errors import CheckpointError
from sr_train.engine.precision import DTYPES
from tests.closeness import UNIT


@cache
def published(backbone):
    """Return torchvision's own layers, randomly initialised."""
    from torchvision.models import alexnet
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    if backbone == "alex":
        return alexnet().features
    return make_layers(cfgs["D" if backbone == "vgg16" else "E"])


def stored(backbone):
    return {f"features.{key}": value for key, value in published(backbone).state_dict().items()}


@cache
def built(backbone="vgg19", precision="fp32"):
    return Features(backbone, None, precision)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_layers_are_those_of_torchvision(backbone):
    features = Features(backbone, stored(backbone))
    names = list(features.backbone.layers)
    image = torch.rand(2, 3, 66, 71)
    taps = features(image, names)
    assert list(taps) == names
    x = (image - features.mean) / features.std
    for name, layer in zip(names, published(backbone), strict=True):
        x = layer(x.clone())
        torch.testing.assert_close(taps[name], x, rtol=1e-4, atol=1e-6)


def test_a_layer_is_the_same_whoever_asks_beside_it():
    image = torch.rand(1, 3, 16, 16)
    together = built()(image, ["conv1_1", "relu1_1", "conv1_2", "pool1", "conv2_1"])
    assert (together["conv1_2"] < 0).any(), "taken before the ReLU"
    for name, value in together.items():
        torch.testing.assert_close(built()(image, [name])[name], value)


def test_nothing_is_computed_past_the_deepest(monkeypatch):
    calls = []
    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *args: calls.append(1) or convolve(*args))
    built()(torch.rand(1, 3, 8, 8), ["conv2_1", "relu1_2"])
    assert len(calls) == 3


def test_weights_are_out_of_reach():
    """Of optimizers, gradients, state dicts and modes."""
    model = nn.ModuleList([built()])
    model.train()
    assert not built().training
    assert list(model.parameters()) == []
    assert model.state_dict() == {}
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    built()(image, ["conv1_2"])["conv1_2"].sum().backward()
    assert all(not b.requires_grad and b.grad is None for b in built().buffers())
    assert float(image.grad.abs().sum()) > 0


def test_random_weights_are_the_same_everywhere(caplog, monkeypatch):
    monkeypatch.setattr(features_module, "_shared", WeakValueDictionary())
    torch.manual_seed(1)
    with caplog.at_level(logging.WARNING):
        first = shared_features("alex", random_init=True)
    assert "RANDOM" in caplog.text
    key = "weight0"
    before = first.get_buffer(key).clone()
    del first
    torch.manual_seed(2)
    again = shared_features("alex", random_init=True)
    assert torch.equal(again.get_buffer(key), before)


def test_one_instance_for_all_who_want_the_same(tmp_path):
    path = tmp_path / "alex.pth"
    torch.save(stored("alex"), path)
    first = shared_features("alex", path)
    assert shared_features("alex", str(path)) is first
    assert shared_features("alex", path, precision="bf16") is not first
    assert shared_features("alex", random_init=True) is not first
    torch.testing.assert_close(first.get_buffer("bias10"), stored("alex")["features.10.bias"])


def test_weights_are_looked_for_in_the_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    with pytest.raises(CheckpointError) as caught:
        shared_features("vgg19")
    for part in (str(folder / "vgg19-dcbb9e9d.pth"), "https://download.pytorch.org/models/vgg19"):
        assert part in str(caught.value)
    folder.mkdir(parents=True)
    torch.save(stored("alex"), folder / "alexnet-owt-7be5be79.pth")
    assert shared_features("alex").get_buffer("weight0").shape == (64, 3, 11, 11)


def test_a_file_of_another_network_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(stored("alex"), path)
    with pytest.raises(CheckpointError, match=r"weights\.pth.*features\.0\.weight.*64, 3, 3, 3"):
        shared_features("vgg16", path)


def test_words_are_checked():
    with pytest.raises(ValueError, match="vgg16, vgg19, alex"):
        shared_features("vgg", random_init=True)
    with pytest.raises(ValueError, match="fp32, bf16, fp16"):
        shared_features("vgg19", random_init=True, precision="half")
    with pytest.raises(ValueError, match="did you mean 'conv3_4'"):
        check_layers("vgg19", ["conv1_2", "conv34"])
    with pytest.raises(ValueError, match="at least one"):
        check_layers("vgg19", [])


def test_grey_counts_as_three_equal_channels():
    grey = torch.rand(2, 1, 9, 9)
    one = built()(grey, ["conv1_2"])["conv1_2"]
    torch.testing.assert_close(one, built()(grey.expand(-1, 3, -1, -1), ["conv1_2"])["conv1_2"])
    for shape in ((1, 2, 9, 9), (3, 9, 9), (1, 1, 3, 9, 9)):
        with pytest.raises(ValueError, match="1 or 3 channels"):
            built()(torch.rand(shape), ["conv1_2"])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (31, 31)])
def test_small_images_pass(backbone, size):
    features = built(backbone)
    image = torch.rand(1, 3, *size, requires_grad=True)
    last = list(features.backbone.layers)[-1]
    value = features(image, [last])[last]
    value.sum().backward()
    assert value.numel() > 0
    assert torch.isfinite(image.grad).all()


def gradient(precision, factor):
    """Return value and gradient of factor * mean |feature| over two layers."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 16, 16, generator=generator).requires_grad_()
    taps = built("vgg19", precision)(image, ["conv1_2", "conv3_1"])
    value = sum(tap.abs().mean() for tap in taps.values())
    (value * factor).backward()
    assert all(tap.dtype is torch.float32 for tap in taps.values())
    return value.detach(), image.grad.double()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("factor", [1e-20, 1e-7, 1e-7 * 2**16, 1.0, 1e12])
def test_gradients_of_any_size_survive_low_precision(precision, factor):
    """A term of weight 1e-7, with and without a loss scale, is felt as in fp32."""
    value, grad = gradient("fp32", factor)
    low_value, low_grad = gradient(precision, factor)
    # Means of features that are rounded in each of five layers, their weights too.
    torch.testing.assert_close(low_value, value, rtol=8 * UNIT[DTYPES[precision]], atol=0)
    assert torch.isfinite(low_grad).all()
    cosine = (low_grad / low_grad.norm() * (grad / grad.norm())).sum()
    assert float(cosine) > (0.98 if precision == "bf16" else 0.999)
    torch.testing.assert_close(low_grad.norm(), grad.norm(), rtol=0.05, atol=0)


def test_a_zero_gradient_stays_zero_in_fp16():
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    (built("vgg19", "fp16")(image, ["conv1_2"])["conv1_2"] * 0).sum().backward()
    assert float(image.grad.abs().max()) == 0.0


def test_a_spoilt_gradient_is_not_hidden_in_fp16():
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    (built("vgg19", "fp16")(image, ["conv1_2"])["conv1_2"] * float("inf")).sum().backward()
    assert not torch.isfinite(image.grad).any()


@pytest.mark.parametrize("fill", [0.0, 1.0, 1e4, -1e4, 6e4])
def test_fp16_does_not_overflow(fill):
    image = torch.full((1, 3, 4, 4), fill, requires_grad=True)
    value = built("vgg19", "fp16")(image, ["conv5_4"])["conv5_4"]
    value.square().sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(image.grad).all()


def test_an_autocast_region_around_changes_nothing():
    image = torch.rand(1, 3, 8, 8)
    plain = built()(image, ["conv2_1"])["conv2_1"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = built()(image, ["conv2_1"])["conv2_1"]
    assert torch.equal(inside, plain)
