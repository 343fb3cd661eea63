"""Adversarial losses on logits: what a generator and a discriminator minimise.

Logits are what a discriminator returns, before any sigmoid: one tensor of any shape (one number
per image, or per patch), or a list of such, one per scale. Every loss averages over the elements
of a scale and then over the scales, in fp32.

The costs of one logit x, towards `real` with label r and towards `fake` with label f:

========  =============================  =============================
kind      towards real                   towards fake
========  =============================  =============================
vanilla   BCE(sigmoid(x), r)             BCE(sigmoid(x), f)
lsgan     (x - r)^2                      (x - f)^2
wgan      -x                             x
hinge     max(0, 1 - x)                  max(0, 1 + x)
softplus  log(1 + exp(-x))               log(1 + exp(x))
========  =============================  =============================

`softplus` (also known as wgan_softplus) is `vanilla` with labels 1 and 0, without labels to smooth.

A discriminator's loss is the MEAN of its real and its fake part, so that a discriminator that
cannot tell them apart scores the same as a generator in its place (ln 2 for vanilla), whatever
the kind. BasicSR's ESRGAN halves too, while its SRGAN and Real-ESRGAN add the parts up. Adam does
not see the factor, but a penalty beside the loss does: halve a penalty's weight that was published
for the sum.

References: Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661 (vanilla, non-saturating);
    Mao et al. 2017, https://arxiv.org/abs/1611.04076 (lsgan); Arjovsky et al. 2017,
    https://arxiv.org/abs/1701.07875 (wgan); Lim and Ye 2017, https://arxiv.org/abs/1705.02894
    (hinge); Karras et al. 2019, https://arxiv.org/abs/1812.04948 (softplus).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_train.api.loss import Loss

Kind = Literal["vanilla", "lsgan", "wgan", "hinge", "softplus"]
Logits = Tensor | list[Tensor]

KINDS = ("vanilla", "lsgan", "wgan", "hinge", "softplus")
LABELLED = ("vanilla", "lsgan")
"""The kinds whose cost has a label, which can be smoothed."""


class GeneratorLoss(Loss):
    """Cost of the discriminator's logits for the generated images, taken towards `real`.

    This is the non-saturating form. `hinge` has no margin here: like `wgan` it is -mean(x).
    Labels are never smoothed for the generator.

    Args:
        kind: vanilla, lsgan, wgan, hinge or softplus; the same as the discriminator's.

    Raises:
        ValueError: if the kind is unknown.
    """

    def __init__(self, kind: Kind = "vanilla") -> None:
        super().__init__()
        self.kind = "wgan" if _checked(kind) == "hinge" else kind

    def forward(self, fake_logits: Logits) -> Tensor:
        scales = [_cost(self.kind, x, True, 1.0) for x in _scales(fake_logits)]
        return torch.stack(scales).mean()


class DiscriminatorLoss(Loss):
    """Mean of the cost of real images towards `real` and of generated ones towards `fake`.

    Args:
        kind: vanilla, lsgan, wgan, hinge or softplus.
        real_label: r above; 0.9 is one-sided label smoothing (Salimans et al. 2016,
            https://arxiv.org/abs/1606.03498).
        fake_label: f above.

    Raises:
        ValueError: if the kind is unknown, a label is set for a kind without labels, or a label
            of `vanilla` is outside [0, 1].
    """

    def __init__(
        self, kind: Kind = "vanilla", real_label: float = 1.0, fake_label: float = 0.0
    ) -> None:
        super().__init__()
        _check_labels(_checked(kind), real_label, fake_label, usual_fake=0.0)
        self.kind = kind
        self.real_label = real_label
        self.fake_label = fake_label

    def forward(self, fake_logits: Logits, real_logits: Logits) -> Tensor:
        scales = []
        for fake, real in _paired_scales(fake_logits, real_logits):
            real_part = _cost(self.kind, real, True, self.real_label)
            fake_part = _cost(self.kind, fake, False, self.fake_label)
            scales.append((real_part + fake_part) / 2)
        return torch.stack(scales).mean()


class RelativisticGeneratorLoss(Loss):
    """Relativistic average loss of the generator: generated more real than real on average.

    With x_f and x_r the logits: the mean of the cost of x_f - mean(x_r) towards `real` and of
    x_r - mean(x_f) towards `fake`; `lsgan` has the labels 1 and -1. The means run over all
    elements of a scale of one call: k micro-batches are therefore not exactly one batch.

    Args:
        kind: vanilla (ESRGAN's), lsgan, wgan, hinge or softplus.

    Raises:
        ValueError: if the kind is unknown.

    References: Jolicoeur-Martineau, The relativistic discriminator, 2018,
        https://arxiv.org/abs/1807.00734; Wang et al., ESRGAN, 2018, section 3.2 (there without
        the half), https://arxiv.org/abs/1809.00219
    """

    def __init__(self, kind: Kind = "vanilla") -> None:
        super().__init__()
        self.kind = _checked(kind)
        self.fake_label = _RELATIVISTIC_FAKE_LABEL[kind]

    def forward(self, fake_logits: Logits, real_logits: Logits) -> Tensor:
        scales = [
            _relativistic(self.kind, fake, real.detach(), 1.0, self.fake_label)
            for fake, real in _paired_scales(fake_logits, real_logits)
        ]
        return torch.stack(scales).mean()


class RelativisticDiscriminatorLoss(Loss):
    """Relativistic average loss of the discriminator: real more real than generated on average.

    The loss of `RelativisticGeneratorLoss` with the roles of real and generated changed. The
    gradient goes through the averages as well, as in the paper; BasicSR cuts it there.

    Args:
        kind: vanilla (ESRGAN's), lsgan, wgan, hinge or softplus.
        real_label: label of real images, for vanilla and lsgan; 0.9 smooths.
        fake_label: label of generated images; None for 0 (vanilla) or -1 (lsgan).

    Raises:
        ValueError: as `DiscriminatorLoss`.
    """

    def __init__(
        self, kind: Kind = "vanilla", real_label: float = 1.0, fake_label: float | None = None
    ) -> None:
        super().__init__()
        usual = _RELATIVISTIC_FAKE_LABEL[_checked(kind)]
        label = usual if fake_label is None else fake_label
        _check_labels(kind, real_label, label, usual_fake=usual)
        self.kind = kind
        self.real_label = real_label
        self.fake_label = label

    def forward(self, fake_logits: Logits, real_logits: Logits) -> Tensor:
        scales = [
            _relativistic(self.kind, real, fake, self.real_label, self.fake_label)
            for fake, real in _paired_scales(fake_logits, real_logits)
        ]
        return torch.stack(scales).mean()


class R1Penalty(Loss):
    """Gradient penalty on real images: every * 1/2 * E |grad_x D(x)|^2, on every n-th step.

    Lazy regularisation: the term is worked out on steps that are multiples of `every`, and then
    multiplied by `every`; on the others it is a zero without a graph. Steps are those of the
    discriminator, which may learn more seldom than the generator. The term's weight is the
    paper's gamma (10 for faces at one logit per image).

    D's outputs for one image are added up and divided by the root of their number: with one
    logit that is the paper, with patches the strength does not depend on the image's size. The
    network runs in fp32 with autocast off, whatever the step's precision.

    Args:
        every: distance of the steps that have the penalty; 1 for each step.

    Raises:
        ValueError: if `every` is below 1.

    References: Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018,
        section 4.1, https://arxiv.org/abs/1801.04406; Karras et al., StyleGAN2, 2020, section 3.1
        (lazy, every 16th step), https://arxiv.org/abs/1912.04958
    """

    def __init__(self, every: int = 16) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.every = every

    def forward(self, real: Tensor, net_d: nn.Module, step: int) -> Tensor:
        if step % self.every:
            return torch.zeros((), device=real.device)
        squares = [slope.mean() for slope in _squared_slopes(net_d, real)]
        return torch.stack(squares).mean() * (self.every / 2)


class GradientPenalty(Loss):
    """WGAN-GP: E (|grad_x D(x)| - 1)^2 at random points between real and generated images.

    x = a * real + (1 - a) * fake with one a per image, uniform in [0, 1) from torch's generator
    of the device. The published weight is 10. D's outputs for one image are added up and divided
    by the root of their number, see `R1Penalty`; the network runs in fp32 with autocast off.

    Args:
        eps: added to |grad|^2 under the root, whose slope would be infinite at a zero gradient.

    Raises:
        ValueError: if eps is not above zero, or at the call if the shapes differ.

    Reference: Gulrajani et al., Improved Training of Wasserstein GANs, 2017, section 4,
        https://arxiv.org/abs/1704.00028
    """

    def __init__(self, eps: float = 1e-12) -> None:
        super().__init__()
        if eps <= 0:
            raise ValueError(f"eps must be above zero, got {eps}")
        self.eps = eps

    def forward(self, real: Tensor, fake: Tensor, net_d: nn.Module) -> Tensor:
        """Return the penalty of images (B, C, H, W), with a graph into the weights of `net_d`.

        Raises:
            ValueError: if the shapes differ.
        """
        if real.shape != fake.shape:
            raise ValueError(
                f"real and fake must have one shape, got {tuple(real.shape)} and "
                f"{tuple(fake.shape)}"
            )
        position = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
        between = fake.detach().float().lerp(real.detach().float(), position)
        penalties = [
            (torch.sqrt(slope + self.eps) - 1).square().mean()
            for slope in _squared_slopes(net_d, between)
        ]
        return torch.stack(penalties).mean()


class FeatureMatchingLoss(Loss):
    """Mean over the layers of the L1 distance of the discriminator's features.

    The real features are a target: no gradient goes there. The published weight is 10.

    Raises:
        ValueError: at the call, if the lists differ in length or shape, or are empty.

    Reference: Wang et al., pix2pixHD, 2018, equation 4, https://arxiv.org/abs/1711.11585
    """

    def forward(self, fake_features: list[Tensor], real_features: list[Tensor]) -> Tensor:
        shapes = [[tuple(x.shape) for x in layers] for layers in (fake_features, real_features)]
        if not fake_features or shapes[0] != shapes[1]:
            raise ValueError(
                f"fake and real features must match, got shapes {shapes[0]} and {shapes[1]}"
            )
        layers = [
            (_wide(fake) - _wide(real.detach())).abs().mean()
            for fake, real in zip(fake_features, real_features, strict=True)
        ]
        return torch.stack(layers).mean()


_RELATIVISTIC_FAKE_LABEL = {kind: -1.0 if kind == "lsgan" else 0.0 for kind in KINDS}


def _cost(kind: str, logits: Tensor, real: bool, label: float) -> Tensor:
    """Return the mean cost of logits towards real or fake; the label is read where there is one."""
    x = _wide(logits)
    if kind == "vanilla":
        return F.binary_cross_entropy_with_logits(x, torch.full_like(x, label))
    if kind == "lsgan":
        return (x - label).square().mean()
    wrong = -x if real else x
    if kind == "wgan":
        return wrong.mean()
    return (F.relu(1 + wrong) if kind == "hinge" else F.softplus(wrong)).mean()


def _relativistic(
    kind: str, above: Tensor, below: Tensor, real_label: float, fake_label: float
) -> Tensor:
    """Return the loss that is low where `above` exceeds `below`."""
    above, below = _wide(above), _wide(below)
    upper = _cost(kind, above - below.mean(), True, real_label)
    lower = _cost(kind, below - above.mean(), False, fake_label)
    return (upper + lower) / 2


def _squared_slopes(net_d: nn.Module, image: Tensor) -> list[Tensor]:
    """Return |grad D|^2 of each image, (B,), for every scale, with a graph into D's weights."""
    with torch.autocast(image.device.type, enabled=False):
        x = image.detach().float().requires_grad_()
        slopes = []
        for logits in _scales(net_d(x)):
            score = logits.float().sum() / (logits.numel() / len(logits)) ** 0.5
            (slope,) = torch.autograd.grad(score, x, create_graph=True)
            slopes.append(slope.flatten(1).square().sum(1))
    return slopes


def _wide(x: Tensor) -> Tensor:
    """Return at least fp32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def _scales(logits: Logits) -> list[Tensor]:
    scales = [logits] if isinstance(logits, Tensor) else list(logits)
    if not scales:
        raise ValueError("logits must be a tensor or a list of at least one, got an empty list")
    return scales


def _paired_scales(fake_logits: Logits, real_logits: Logits) -> list[tuple[Tensor, Tensor]]:
    fake, real = _scales(fake_logits), _scales(real_logits)
    if len(fake) != len(real):
        raise ValueError(f"fake logits have {len(fake)} scales, real logits {len(real)}")
    return list(zip(fake, real, strict=True))


def _checked(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    return kind


def _check_labels(kind: str, real_label: float, fake_label: float, usual_fake: float) -> None:
    if kind not in LABELLED and (real_label, fake_label) != (1.0, usual_fake):
        raise ValueError(
            f"kind {kind!r} has no labels: leave out real_label and fake_label, or choose one "
            f"of {', '.join(LABELLED)}; got {real_label} and {fake_label}"
        )
    if kind == "vanilla" and not (0 <= real_label <= 1 and 0 <= fake_label <= 1):
        raise ValueError(
            f"labels of kind 'vanilla' are probabilities in [0, 1], got {real_label} and "
            f"{fake_label}"
        )
