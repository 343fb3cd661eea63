"""LPIPS against the package of its authors, on the same untrained network."""

from pathlib import Path

import pytest
import torch
from torch import nn

from losses.features import read_state
from losses.lpips import LPIPSLoss
from sr_train.api.errors import CheckpointError
from tests.losses.zoo import extractor

BACKBONES = {"alex": "alex", "vgg": "vgg16"}


def published(net):
    """Return the package's LPIPS with our extractor's weights and its own calibration."""
    import lpips

    model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    features = extractor(BACKBONES[net])
    for slice_ in model.net.children():
        for number, layer in slice_.named_children():
            if isinstance(layer, nn.Conv2d):
                layer.load_state_dict(
                    {key: features.get_buffer(f"{key}{number}") for key in ("weight", "bias")}
                )
    return model


def pair(channels=3):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, channels, 40, 43, generator=generator)
    return (target + 0.3 * torch.rand(target.shape, generator=generator)).clamp(0, 1), target


@pytest.mark.parametrize("net", BACKBONES)
def test_value_and_gradient_are_those_of_the_package(net, monkeypatch):
    # The classifier's huge matrices are made and thrown away: spare their random numbers.
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: None)
    pred, target = pair()
    model, loss = published(net), LPIPSLoss(net, random_init=True)
    values, slopes = [], []
    for each in (lambda x: model(x, target, normalize=True).mean(), lambda x: loss(x, target)):
        live = pred.clone().requires_grad_()
        value = each(live)
        value.backward()
        values.append(value.item())
        slopes.append(live.grad)
    assert values[0] > 0.01
    assert values[1] == pytest.approx(values[0], rel=1e-3)
    torch.testing.assert_close(
        slopes[1], slopes[0], rtol=1e-2, atol=1e-2 * float(slopes[0].abs().max())
    )


def test_the_calibration_is_that_of_the_package():
    import lpips

    state = read_state(Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth")
    extractor("alex")
    loss = LPIPSLoss("alex", random_init=True)
    for number, layer in enumerate(loss.layers):
        stored = state[f"lin{number}.model.1.weight"]
        assert torch.equal(loss.get_buffer(f"calibration_{layer}"), stored[0])
        assert (stored >= 0).all(), "else the distance could fall below zero"
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []


def test_grey_counts_as_three_equal_channels():
    extractor("alex")
    pred, target = pair(channels=1)
    loss = LPIPSLoss("alex", random_init=True)
    wide = loss(pred.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1))
    torch.testing.assert_close(loss(pred, target), wide)
    with pytest.raises(ValueError, match="1 or 3 channels"):
        loss(torch.rand(1, 2, 16, 16), torch.rand(1, 2, 16, 16))


def test_black_positions_have_a_finite_slope():
    """All features of a position are zero after the ReLU: the length of zero has no slope."""
    extractor("alex")
    black = torch.zeros(1, 3, 64, 64, requires_grad=True)
    loss = LPIPSLoss("alex", random_init=True)
    for layer in loss.layers:
        calibration = loss.get_buffer(f"calibration_{layer}")
        features = torch.zeros(1, len(calibration), 2, 2, requires_grad=True)
        loss._unit(features).square().sum().backward()
        assert torch.isfinite(features.grad).all()
    loss(black, torch.rand(1, 3, 64, 64)).backward()
    assert torch.isfinite(black.grad).all()


def test_missing_weights_and_wrong_words_are_errors(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"vgg16: no weights at .*none\.pth.*vgg16-397923af"):
        LPIPSLoss(weights=tmp_path / "none.pth")
    with pytest.raises(ValueError, match="vgg or alex, got 'squeeze'"):
        LPIPSLoss("squeeze", random_init=True)
    with pytest.raises(ValueError, match="eps"):
        LPIPSLoss("alex", random_init=True, eps=0.0)
    monkeypatch.setattr("losses.lpips.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install lpips"):
        LPIPSLoss("alex", random_init=True)
