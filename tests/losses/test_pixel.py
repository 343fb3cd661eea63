import math

import pytest
import torch

from losses.pixel import CharbonnierLoss, HuberLoss, L1Loss, MSELoss, PSNRLoss

LOSSES = [L1Loss(), MSELoss(), CharbonnierLoss(), CharbonnierLoss(eps=0.1)]


@pytest.mark.parametrize("loss", LOSSES)
def test_zero_at_identity(loss):
    image = torch.rand(2, 3, 4, 5)
    assert float(loss(image, image)) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (L1Loss(), (0.3 + 0.4) / 2),
        (MSELoss(), (0.09 + 0.16) / 2),
        # sqrt(0.09 + 0.16) - 0.4 and sqrt(0.16 + 0.16) - 0.4, halved
        (CharbonnierLoss(eps=0.4), (0.5 - 0.4 + 0.565685425 - 0.4) / 2),
        (HuberLoss(), (0.09 + 0.16) / 4),
        # 0.3 is inside, 0.35 (0.4 - 0.35 / 2) outside
        (HuberLoss(delta=0.35), (0.09 / 2 + 0.35 * 0.4 - 0.35**2 / 2) / 2),
        (PSNRLoss(), 10 * math.log10(0.125)),
    ],
)
def test_value_by_hand(loss, expected):
    pred = torch.tensor([[[[0.5, 0.1]]]])
    target = torch.tensor([[[[0.2, 0.5]]]])
    assert float(loss(pred, target)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", [MSELoss(), CharbonnierLoss()])
def test_gradcheck(loss):
    torch.manual_seed(0)
    pred = torch.rand(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(1, 2, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), pred)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fill", [0.0, 1.0, 1e-7, 200.0])
def test_extremes_are_finite(loss, dtype, fill):
    pred = torch.full((1, 3, 1, 1), fill, dtype=dtype, requires_grad=True)
    for target in (torch.zeros_like(pred), pred.detach(), torch.ones_like(pred)):
        pred.grad = None
        value = loss(pred.float(), target.float())
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_shapes_must_agree(loss):
    with pytest.raises(ValueError, match="one shape"):
        loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5))


def test_psnr_is_that_of_each_image():
    """The mean of decibels, not the decibels of the mean."""
    pred = torch.zeros(2, 1, 2, 2)
    target = torch.stack([torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.01)])
    assert float(PSNRLoss()(pred, target)) == pytest.approx(-(20 + 40) / 2, abs=1e-3)
    assert float(PSNRLoss()(pred, pred)) == pytest.approx(-80, abs=1e-4)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="delta"):
        HuberLoss(delta=0.0)
    with pytest.raises(ValueError, match="eps"):
        PSNRLoss(eps=0.0)


def test_charbonnier_needs_a_positive_eps():
    with pytest.raises(ValueError, match="above zero"):
        CharbonnierLoss(eps=0.0)
