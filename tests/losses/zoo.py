"""One row for each loss of the package; `test_every_loss.py` tries them all."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from losses.colour import AverageColourLoss, ColourLoss, LQConsistencyLoss, LumaLoss
from losses.contextual import ContextualLoss
from losses.contrastive import InfoNCELoss
from losses.dists import DISTSLoss
from losses.features import Features, Precision, shared_features
from losses.frequency import FFTL1Loss, FocalFrequencyLoss
from losses.gan import (
    KINDS,
    LABELLED,
    DiscriminatorLoss,
    FeatureMatchingLoss,
    GeneratorLoss,
    GradientPenalty,
    Kind,
    R1Penalty,
    RelativisticDiscriminatorLoss,
    RelativisticGeneratorLoss,
)
from losses.gradient import GradientLoss, GradientVarianceLoss
from losses.ldl import LDLLoss
from losses.lpips import LPIPSLoss
from losses.perceptual import PerceptualLoss, StyleLoss
from losses.pixel import CharbonnierLoss, HuberLoss, L1Loss, MSELoss, PSNRLoss
from losses.ssim import MSSSIML1Loss, MSSSIMLoss, SSIMLoss
from losses.temporal import TemporalConsistencyLoss, TemporalDifferenceLoss
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
    """Whether it computes in float64 when given that, and is smooth at random images."""
    large: bool = False
    """Whether it has a network in it: fewer cases are tried."""
    zero_within: float = 1e-6
    """How far from 0 the value at identity may be, for images in [0, 1]."""
    rounding: float = 1e-5
    """How far, relatively, the order of sums may move the value."""


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


@cache
def extractor(backbone: str, precision: Precision = "fp32") -> Features:
    """Return the untrained extractor that losses made later share; kept, for it is large."""
    return shared_features(backbone, random_init=True, precision=precision)


def on(backbone: str, make: Callable[[], nn.Module], precision: Precision = "fp32") -> nn.Module:
    """Return a loss whose extractor is there already."""
    extractor(backbone, precision)
    return make()


def perceptual(precision: Precision) -> nn.Module:
    layers = {"conv1_1": 0.1, "conv1_2": 1.0}
    return on(
        "vgg19",
        lambda: PerceptualLoss(layers, random_init=True, precision=precision),
        precision,
    )


def style() -> nn.Module:
    layers = {"relu1_1": 1.0, "relu2_1": 1.0}
    return on("vgg19", lambda: StyleLoss(layers, random_init=True))


FEATURES = [
    Row("perceptual", lambda: perceptual("fp32"), large=True),
    Row("perceptual_bf16", lambda: perceptual("bf16"), large=True, rounding=1e-2),
    Row("perceptual_fp16", lambda: perceptual("fp16"), large=True, rounding=1e-3),
    Row("style", style, large=True),
    Row("lpips_alex", lambda: on("alex", lambda: LPIPSLoss("alex", random_init=True)), large=True),
    Row("lpips_vgg", lambda: on("vgg16", lambda: LPIPSLoss("vgg", random_init=True)), large=True),
    Row("dists", lambda: on("vgg16", lambda: DISTSLoss(random_init=True)), large=True),
    Row(
        "contextual",
        lambda: on("vgg19", lambda: ContextualLoss({"conv2_1": 1.0}, random_init=True)),
        zero=False,
        large=True,
    ),
    Row(
        "info_nce",
        lambda: on("vgg19", lambda: InfoNCELoss(["relu2_1"], random_init=True)),
        zero=False,
        large=True,
    ),
]


def generator_rows(kind: Kind) -> list[Row]:
    return [
        Row(
            f"gan_{kind}",
            lambda: GeneratorLoss(kind),
            zero=False,
            live=("fake_logits",),
            gradcheck=True,
        ),
        Row(
            f"gan_relativistic_{kind}",
            lambda: RelativisticGeneratorLoss(kind),
            zero=False,
            live=("fake_logits",),
            gradcheck=True,
        ),
    ]


def discriminator_rows(kind: Kind) -> list[Row]:
    both = ("fake_logits", "real_logits")
    return [
        Row(
            f"discriminator_{kind}",
            lambda: DiscriminatorLoss(kind, real_label=0.9 if kind in LABELLED else 1.0),
            zero=False,
            live=both,
            gradcheck=True,
        ),
        Row(
            f"discriminator_relativistic_{kind}",
            lambda: RelativisticDiscriminatorLoss(kind),
            zero=False,
            live=both,
            gradcheck=True,
        ),
    ]


GAN = [
    *(row for kind in KINDS for row in generator_rows(kind)),
    *(row for kind in KINDS for row in discriminator_rows(kind)),
    Row("feature_matching", FeatureMatchingLoss, live=("fake_features",)),
    Row("r1", lambda: R1Penalty(every=1), zero=False, live=("net_d",)),
    Row("gradient_penalty", GradientPenalty, zero=False, live=("net_d",)),
]

TEMPORAL = [
    Row("temporal_difference", TemporalDifferenceLoss, gradcheck=True),
    Row(
        "temporal_consistency",
        lambda: TemporalConsistencyLoss(random_init=True),
        zero=False,
        channels=(3,),
        large=True,
        rounding=1e-3,
    ),
]

LOSSES: list[Row] = [
    *PIXEL,
    *STRUCTURE,
    *FREQUENCY,
    *DETAIL,
    *COLOUR,
    *FEATURES,
    *GAN,
    *TEMPORAL,
]


class Critic(nn.Module):
    """A discriminator of two layers, for losses that ask for `net_d`.

    It is curved, and has no bias at its end: a penalty on its slope depends on all its weights.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 1, 3, padding=1, bias=False)
        with torch.no_grad():
            for weights in self.parameters():
                weights.copy_(torch.randn(weights.shape, generator=generator) * 0.2)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(nn.functional.silu(self.first(image)))
