"""Losses on the layers of VGG19: their distance (perceptual) and that of their Gram matrices."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.features import PLANES, Precision, check_layers, shared_features
from losses.pixel import charbonnier
from sr_train.api.loss import Loss

Criterion = Literal["l1", "mse", "charbonnier"]

Distance = Callable[[Tensor, Tensor], Tensor]

CRITERIA: dict[str, Distance] = {"l1": F.l1_loss, "mse": F.mse_loss, "charbonnier": charbonnier}

ESRGAN_LAYERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
GATYS_LAYERS = {"relu1_1": 1.0, "relu2_1": 1.0, "relu3_1": 1.0, "relu4_1": 1.0, "relu5_1": 1.0}


class _LayerLoss(Loss):
    """Weighted sum over layers of VGG19 of a distance of what `describe` makes of them."""

    planes = PLANES
    usual_layers: ClassVar[Mapping[str, float]]

    def __init__(
        self,
        layers: Mapping[str, float] | None = None,
        criterion: Criterion = "l1",
        weights: str | Path | None = None,
        random_init: bool = False,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__()
        self.layers = _checked(self.usual_layers if layers is None else layers, criterion)
        self.criterion = CRITERIA[criterion]
        self.features = shared_features("vgg19", weights, random_init, precision)

    def describe(self, features: Tensor) -> Tensor:
        """Return what of features (B, C, H, W) is compared: all of them."""
        return features

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        found, wanted = self.features.pair(pred, target, self.layers)
        terms = [
            weight * self.criterion(self.describe(found[name]), self.describe(wanted[name]))
            for name, weight in self.layers.items()
        ]
        return torch.stack(terms).sum()


class PerceptualLoss(_LayerLoss):
    """Weighted sum over layers of VGG19 of the mean distance of features.

    ESRGAN compares features before the ReLU, which are denser and keep brightness better than
    those after it; Real-ESRGAN takes five layers with the weights of the default.

    Args:
        layers: weight of each layer; `conv3_4` is before, `relu3_4` after the ReLU. None for
            Real-ESRGAN's.
        criterion: `l1`, `mse`, or `charbonnier` (see `losses.pixel`), averaged over a layer.
        weights: torchvision's `vgg19-dcbb9e9d.pth`; None looks in torch hub's cache.
        random_init: leave the network untrained; for tests.
        precision: of the network, see `Features`; distances are fp32 always.

    Raises:
        CheckpointError: if the weights are not there or are something else.
        ValueError: if a layer, its weight or the criterion cannot be used, or at the call if the
            shapes differ.

    References: Johnson et al. 2016, https://arxiv.org/abs/1603.08155; Wang et al., ESRGAN, 2018,
        https://arxiv.org/abs/1809.00219; Wang et al., Real-ESRGAN, 2021, section 4.1,
        https://arxiv.org/abs/2107.10833
    """

    usual_layers = ESRGAN_LAYERS


class StyleLoss(_LayerLoss):
    """Weighted sum over layers of VGG19 of the mean distance of Gram matrices.

    G = F F^T / (C H W) for features F of (C, H*W): which channels are strong together, wherever
    in the image. Gram matrices are fp32.

    Args:
        layers: weight of each layer; None for those of Gatys et al., the first ReLU of each block.
        criterion: `l1` (BasicSR's), `mse` (the papers') or `charbonnier`, averaged over a matrix.
        weights: torchvision's `vgg19-dcbb9e9d.pth`; None looks in torch hub's cache.
        random_init: leave the network untrained; for tests.
        precision: of the network, see `Features`.

    Raises:
        CheckpointError: if the weights are not there or are something else.
        ValueError: as `PerceptualLoss`.

    References: Gatys et al. 2015, https://arxiv.org/abs/1508.06576; Johnson et al. 2016, equation
        3, https://arxiv.org/abs/1603.08155
    """

    usual_layers = GATYS_LAYERS

    def describe(self, features: Tensor) -> Tensor:
        """Return the Gram matrices, (B, C, C)."""
        return gram(features)


def gram(features: Tensor) -> Tensor:
    """Return F F^T / (C H W), (B, C, C), of features (B, C, H, W), never under autocast."""
    flat = features.flatten(2)
    # Each factor takes its share first: the product of huge features would overflow before it.
    flat = flat / math.sqrt(flat.shape[1] * flat.shape[2])
    with torch.autocast(flat.device.type, enabled=False):
        return flat @ flat.transpose(1, 2)


def _checked(layers: Mapping[str, float], criterion: str) -> dict[str, float]:
    check_layers("vgg19", layers)
    for layer, weight in layers.items():
        if weight == 0 or not math.isfinite(weight):
            raise ValueError(f"layers.{layer}={weight}: expected a finite number other than zero")
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}")
    return dict(layers)
