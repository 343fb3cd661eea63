"""Contextual loss: features of VGG19 compared by their nearest neighbours, not by position."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses.features import PLANES, Precision, check_layers, shared_features

LAYERS = {"conv3_2": 1.0, "conv4_2": 1.0}


class PositionLoss(nn.Module):
    """What losses share that compare the features of positions of VGG19's layers.

    Args:
        layers: names of layers.
        max_positions: most positions of a layer that are compared, taken at even distances in
            reading order, the same in both images; memory grows with the square.
        weights: torchvision's `vgg19-dcbb9e9d.pth`; None looks in torch hub's cache.
        random_init: leave the network untrained; for tests.
        precision: of the network, see `Features`.

    Raises:
        CheckpointError: if the weights are not there or are something else.
        ValueError: if an argument cannot be used.
    """

    planes = PLANES

    def __init__(
        self,
        layers: Iterable[str],
        max_positions: int,
        weights: str | Path | None,
        random_init: bool,
        precision: Precision,
    ) -> None:
        super().__init__()
        self._names = list(layers)
        check_layers("vgg19", self._names)
        if max_positions < 1:
            raise ValueError(f"max_positions must be at least 1, got {max_positions}")
        self.max_positions = max_positions
        self.features = shared_features("vgg19", weights, random_init, precision)

    def pairs(self, pred: Tensor, target: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the positions of both images, (B, N, C) each, by layer; `target`'s fixed.

        Raises:
            ValueError: if the shapes differ.
        """
        found, wanted = self.features.pair(pred, target, self._names)
        most = self.max_positions
        return {
            name: (positions(found[name], most), positions(wanted[name], most))
            for name in self._names
        }


class ContextualLoss(PositionLoss):
    """Weighted sum over layers of -log CX, see `contextual_similarity`.

    It is made for images that are not aligned. It is near 0 for equal images whose positions
    all differ, and log N for flat ones, where each of the N positions is as near to every other.

    Args:
        layers: weight of each layer of VGG19; None for conv3_2 and conv4_2, 1 each.
        h: bandwidth; smaller makes the nearest neighbour count more.
        max_positions: most positions of a layer that are compared, taken at even distances in
            reading order, the same in both images; memory grows with the square.
        weights: torchvision's `vgg19-dcbb9e9d.pth`; None looks in torch hub's cache.
        random_init: leave the network untrained; for tests.
        precision: of the network, see `Features`; similarities are fp32 always.

    Raises:
        CheckpointError: if the weights are not there or are something else.
        ValueError: if an argument cannot be used, or at the call if the shapes differ.

    Reference: Mechrez et al., The Contextual Loss for Image Transformation with Non-Aligned Data,
        ECCV 2018, https://arxiv.org/abs/1803.02077
    """

    def __init__(
        self,
        layers: Mapping[str, float] | None = None,
        h: float = 0.5,
        max_positions: int = 100 * 100,
        weights: str | Path | None = None,
        random_init: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        layers = LAYERS if layers is None else layers
        super().__init__(layers, max_positions, weights, random_init, precision)
        if h <= 0:
            raise ValueError(f"h must be above zero, got {h}")
        self.layers = dict(layers)
        self.h = h

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        terms = [
            -self.layers[layer] * contextual_similarity(x, y, self.h).log().mean()
            for layer, (x, y) in self.pairs(pred, target).items()
        ]
        return torch.stack(terms).sum()


def contextual_similarity(x: Tensor, y: Tensor, h: float = 0.5) -> Tensor:
    """Return CX = mean over j of max over i of CX_ij, (B,), between 1/N and 1.

    d_ij is the cosine distance of x_i and y_j, both less the mean of y; with
    e_ij = d_ij / (min over k of d_ik + 1e-5), CX_ij is the softmax over j of (1 - e_ij) / h.

    Args:
        x: (B, N, C) features of N positions of the prediction.
        y: (B, N, C) of the target.
        h: bandwidth, above zero.
    """
    centre = y.mean(1, keepdim=True)
    x, y = unit(x - centre), unit(y - centre)
    with torch.autocast(x.device.type, enabled=False):
        distance = (1 - x @ y.transpose(1, 2)).clamp(min=0)
    relative = distance / (distance.amin(2, keepdim=True) + 1e-5)
    return F.softmax((1 - relative) / h, dim=2).amax(1).mean(1)


def positions(features: Tensor, most: int) -> Tensor:
    """Return (B, N, C) of (B, C, H, W), with N at most `most`, at even distances."""
    flat = features.flatten(2).transpose(1, 2)
    step = math.ceil(flat.shape[1] / most)
    return flat[:, ::step]


def unit(vectors: Tensor, eps: float = 1e-12) -> Tensor:
    """Return vectors (..., C) scaled to length one; zero stays, with a finite slope."""
    return vectors * torch.rsqrt(vectors.square().sum(-1, keepdim=True) + eps)
