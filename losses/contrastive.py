"""InfoNCE: features of a position should be nearer to their own target than to others."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from losses.common import check_pair
from losses.contextual import PositionLoss, unit
from losses.features import Precision

LAYERS = ("relu2_2", "relu3_4", "relu4_4")


def info_nce(
    query: Tensor, positive: Tensor, negatives: Tensor | None = None, temperature: float = 0.07
) -> Tensor:
    """Return the mean over queries of logsumexp_j(s_ij / T) - s_ii / T, at least 0.

    s is the cosine similarity. The other positions' positives are a query's negatives. Everything
    is computed in fp32 whatever the dtype given: at T = 0.07 the exponents reach 29.

    Args:
        query: (B, N, C), any float dtype.
        positive: (B, N, C), the i-th belongs to the i-th query.
        negatives: (B, M, C), more negatives for every query.
        temperature: T, above zero.

    Raises:
        ValueError: if the shapes do not match.

    Reference: van den Oord et al., Representation Learning with Contrastive Predictive Coding,
        2018, equation 4, https://arxiv.org/abs/1807.03748
    """
    check_pair(query, positive)
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    with torch.autocast(query.device.type, enabled=False):
        x, y = unit(query.to(wide)), unit(positive.to(wide))
        others = y if negatives is None else torch.cat([y, unit(negatives.to(wide))], dim=1)
        logits = x @ others.transpose(1, 2) / temperature
        own = logits.diagonal(dim1=1, dim2=2)
        return (torch.logsumexp(logits, dim=2) - own).mean()


class InfoNCELoss(PositionLoss):
    """Mean over layers of VGG19 of InfoNCE between positions of an image.

    The positive of a position of `pred` is the same position of `target`; its negatives are the
    target's other positions of the same image. It keeps textures of different places apart; it
    is above zero for equal images, and log N for flat ones.

    Args:
        layers: layers of VGG19.
        temperature: T, above zero.
        max_positions: most positions of a layer that are compared, at even distances.
        weights: torchvision's `vgg19-dcbb9e9d.pth`; None looks in torch hub's cache.
        random_init: leave the network untrained; for tests.
        precision: of the network, see `Features`; similarities are fp32 always.

    Raises:
        CheckpointError: if the weights are not there or are something else.
        ValueError: if an argument cannot be used, or at the call if the shapes differ.

    References: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748 (the loss); Park et al.,
        Contrastive Learning for Unpaired Image-to-Image Translation, 2020,
        https://arxiv.org/abs/2007.15651 (positions as classes, T = 0.07, 256 positions)
    """

    def __init__(
        self,
        layers: Sequence[str] = LAYERS,
        temperature: float = 0.07,
        max_positions: int = 256,
        weights: str | Path | None = None,
        random_init: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(layers, max_positions, weights, random_init, precision)
        if temperature <= 0:
            raise ValueError(f"temperature must be above zero, got {temperature}")
        self.layers = tuple(layers)
        self.temperature = temperature

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        terms = [
            info_nce(query, positive, temperature=self.temperature)
            for query, positive in self.pairs(pred, target).values()
        ]
        return torch.stack(terms).mean()
