"""LPIPS, the learned perceptual distance, as a loss."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from losses.features import BACKBONES, PLANES, Precision, shared_features
from sr_train.api.errors import CheckpointError
from sr_train.api.loss import Loss
from sr_train.io.pretrained import read_state, stored_tensor

LAYERS = {
    "alex": ("relu1", "relu2", "relu3", "relu4", "relu5"),
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
}


class LPIPSLoss(Loss):
    """LPIPS, version 0.1: sum over layers of mean over positions of w_c * |f_c - g_c|^2.

    f and g are the features of a position, each scaled to length one. The calibrated w come with
    the `lpips` package; the network is ours, because the package's scaling has a NaN slope where
    all features of a position are zero. Its input scaling, for images in [-1, 1], is the
    ImageNet normalisation of images in [0, 1], which is what this loss takes. Small images are
    treated as `Features` does, where the package stops.

    Args:
        net: `vgg`, which the authors advise for optimising, or `alex`, as in the papers' tables.
        weights: torchvision's state dict of the network; None looks in torch hub's cache.
        random_init: leave the network untrained; for tests.
        precision: of the network, see `Features`; distances are fp32 always.
        eps: added to the squared length under the root.

    Raises:
        CheckpointError: if the weights are not there or are something else.
        ValueError: if an argument cannot be used, or at the call if the shapes differ.

    Reference: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual
        Metric, CVPR 2018, https://arxiv.org/abs/1801.03924,
        https://github.com/richzhang/PerceptualSimilarity
    """

    planes = PLANES

    def __init__(
        self,
        net: Literal["vgg", "alex"] = "vgg",
        weights: str | Path | None = None,
        random_init: bool = False,
        precision: Precision = "fp32",
        eps: float = 1e-10,
    ) -> None:
        super().__init__()
        if net not in ("vgg", "alex"):
            raise ValueError(f"net must be vgg or alex, got {net!r}")
        if eps <= 0:
            raise ValueError(f"eps must be above zero, got {eps}")
        backbone = "vgg16" if net == "vgg" else net
        self.layers = LAYERS[backbone]
        self.eps = eps
        self.features = shared_features(backbone, weights, random_init, precision)
        for layer, calibration in zip(self.layers, _calibration(net, backbone), strict=True):
            self.register_buffer(f"calibration_{layer}", calibration, persistent=False)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        found, wanted = self.features.pair(pred, target, self.layers)
        terms = []
        for layer in self.layers:
            difference = self._unit(found[layer]) - self._unit(wanted[layer])
            weighted = self.get_buffer(f"calibration_{layer}") * difference.square()
            terms.append(weighted.sum(1).mean())
        return torch.stack(terms).sum()

    def _unit(self, features: Tensor) -> Tensor:
        """Return features with length one at every position, or zero where all are zero."""
        return features * torch.rsqrt(features.square().sum(1, keepdim=True) + self.eps)


def _calibration(net: str, backbone: str) -> list[Tensor]:
    """Return the weight of each channel, (C, 1, 1) for each layer, from the installed package."""
    package = find_spec("lpips")  # importing it would draw in scipy and torchvision
    if package is None or package.origin is None:
        raise CheckpointError("LPIPSLoss needs the package lpips: pip install lpips")
    path = Path(package.origin).parent / "weights" / "v0.1" / f"{net}.pth"
    state = read_state(path)
    widths = {
        name.replace("conv", "relu"): conv.fan_out
        for name, conv in BACKBONES[backbone].layers.items()
        if conv is not None
    }
    source = f"the calibration of LPIPS({net}), {path},"
    return [
        stored_tensor(state, f"lin{number}.model.1.weight", (1, widths[layer], 1, 1), source)[0]
        for number, layer in enumerate(LAYERS[backbone])
    ]
