"""One row for each loss of the package; `test_every_loss.py` tries them all."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from losses.colour import AverageColourLoss, ColourLoss, LQConsistencyLoss, LumaLoss
from losses.frequency import FFTL1Loss, FocalFrequencyLoss
from losses.gradient import GradientLoss, GradientVarianceLoss
from losses.ldl import LDLLoss
from losses.pixel import CharbonnierLoss, HuberLoss, L1Loss, MSELoss, PSNRLoss
from losses.ssim import MSSSIML1Loss, MSSSIMLoss, SSIMLoss
from losses.variation import MaskedTotalVariationLoss, TotalVariationLoss


@dataclass(frozen=True)
class Row:
    """A small form of a loss, and what may be expected of it."""

    name: str
    make: Callable[[], nn.Module]
    zero: bool = True
    """Whether it is 0 when pred equals target (real features equal fake ones, and so on)."""
    live: tuple[str, ...] = ("pred",)
    """Arguments of `forward` that carry a graph; it must reach none of the others."""
    channels: tuple[int, ...] = (1, 3)
    """Numbers of channels that it takes."""
    gradcheck: bool = False
    """Whether it computes in float64 when given that, and is smooth at random pictures."""
    examples: int = 10
    """How many random cases to draw; fewer for a loss with a large network in it."""
    zero_within: float = 1e-6
    """How far from 0 the value at identity may be, for pictures in [0, 1]."""


PIXEL = [
    Row("l1", L1Loss, gradcheck=True),
    Row("mse", MSELoss, gradcheck=True),
    Row("huber", HuberLoss, gradcheck=True),
    Row("huber_narrow", lambda: HuberLoss(delta=0.05), gradcheck=True),
    Row("charbonnier", CharbonnierLoss, gradcheck=True),
    Row("psnr", PSNRLoss, zero=False, gradcheck=True),
]

STRUCTURE = [
    Row("ssim", SSIMLoss, gradcheck=True),
    Row("ssim_small", lambda: SSIMLoss(window=3, sigma=0.8), gradcheck=True),
    Row("ms_ssim", MSSSIMLoss, gradcheck=True),
    Row("ms_ssim_small", lambda: MSSSIMLoss(window=2, sigma=0.5), gradcheck=True),
    Row("ms_ssim_l1", MSSSIML1Loss, gradcheck=True),
]

FREQUENCY = [
    Row("fft_l1", FFTL1Loss, gradcheck=True),
    Row("focal_frequency", FocalFrequencyLoss),
    Row("focal_frequency_flat", lambda: FocalFrequencyLoss(alpha=0, patches=2), gradcheck=True),
    Row(
        "focal_frequency_batch",
        lambda: FocalFrequencyLoss(ave_spectrum=True, log_matrix=True, batch_matrix=True),
    ),
]

DETAIL = [
    Row("gradient", GradientLoss, gradcheck=True),
    Row("gradient_variance", lambda: GradientVarianceLoss(patch=4), gradcheck=True),
    Row("tv", TotalVariationLoss, zero=False, gradcheck=True),
    Row(
        "masked_tv",
        lambda: MaskedTotalVariationLoss(flatness=0.9),
        zero=False,
        gradcheck=True,
    ),
    Row("ldl", LDLLoss),
]

COLOUR = [
    Row("colour", ColourLoss, channels=(3,)),
    Row("luma", LumaLoss, channels=(3,), gradcheck=True),
    Row("average_colour", AverageColourLoss, gradcheck=True),
    Row("lq_consistency", LQConsistencyLoss),
]

LOSSES: list[Row] = [*PIXEL, *STRUCTURE, *FREQUENCY, *DETAIL, *COLOUR]


class Critic(nn.Module):
    """A discriminator of two layers, for losses that ask for `net_d`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 1, 3, padding=1)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.2)

    def forward(
        self, picture: Tensor, with_features: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        features = nn.functional.leaky_relu(self.first(picture), 0.2)
        logits = self.last(features)
        return (logits, [features]) if with_features else logits
