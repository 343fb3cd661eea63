"""Learned perceptual distance, through the `lpips` package."""

import logging
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sr_train.api.errors import ConfigError
from sr_train.api.metric import Metric, Pixels
from sr_train.io.pretrained import find_weights, read_state, stored_tensor
from sr_train.metrics.base import Border, check_border, cropped_pair

log = logging.getLogger(__name__)

_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
_SMALLEST = {"alex": 31, "vgg": 16}
"""Least side for which the last layer still has a pixel."""


class LPIPS(Metric):
    """Return the LPIPS distance, version 0.1: 0 for identical images, lower is better.

    The calibrated layers come with the `lpips` package. The backbone is torchvision's ImageNet
    classifier, which must lie on this machine already: nothing is ever downloaded.

    Args:
        net: backbone, `alex` as in the papers' tables, or `vgg`.
        weights: the backbone's torchvision state dict; None looks in torch hub's cache
            (`$TORCH_HOME/hub/checkpoints`) for the file under torchvision's own name.
        border: pixels left out on each side of the gt grid; `scale` for as many as the scale.
        device: where the backbone runs.
        random_init: leave the backbone untrained. The value then means nothing; for tests.

    Raises:
        CheckpointError: if the backbone's weights are not there or are something else.

    Reference: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual
        Metric, CVPR 2018, https://arxiv.org/abs/1801.03924
    """

    higher_is_better = False

    def __init__(
        self,
        net: Literal["alex", "vgg"] = "alex",
        weights: str | Path | None = None,
        border: Border = 0,
        device: str | torch.device = "cpu",
        random_init: bool = False,
    ) -> None:
        if net not in _FILES:
            raise ConfigError(f"net must be one of {', '.join(sorted(_FILES))}, got {net!r}")
        self.net = net
        self.border = check_border(border)
        self.device = torch.device(device)
        path = None if random_init else find_weights(f"LPIPS({net})", _FILES[net], weights)
        self._distance = _build(net)
        if path is None:
            log.warning("LPIPS(%s) runs with RANDOM weights: its values mean nothing", net)
        else:
            _load_backbone(self._distance, path)
        self._distance.to(self.device)

    def __call__(self, pred: Pixels, gt: Pixels, scale: int) -> float:
        """Return the distance of one pair; grey counts as R = G = B.

        Args:
            pred: (H, W, C) or (H, W), uint8 or uint16.
            gt: same shape and dtype as `pred`.
            scale: upscaling factor, read for `border='scale'`.

        Raises:
            DataError: if the images do not match or are too small for border and backbone.
        """
        pred, gt = cropped_pair(pred, gt, self.border, scale, _SMALLEST[self.net])
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            return float(self._distance(self._tensor(pred), self._tensor(gt)))

    def _tensor(self, pixels: Pixels) -> Tensor:
        """Return (H, W, C) as (1, 3, H, W) in [-1, 1] on the device."""
        white = np.float32(np.iinfo(pixels.dtype).max)
        planes = np.moveaxis(pixels.astype(np.float32) / white * 2 - 1, 2, 0)
        lone = torch.from_numpy(np.ascontiguousarray(planes))[None]
        return lone.to(self.device).expand(1, 3, -1, -1)


def _build(net: str) -> nn.Module:
    """Return the package's network with its calibrated layers and an untrained backbone."""
    import lpips  # here: it imports torchvision and scipy, which few runs need

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        distance: nn.Module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    return distance.eval().requires_grad_(False)


def _load_backbone(distance: nn.Module, path: Path) -> None:
    """Fill the backbone from torchvision's `features.N.weight` and `.bias`.

    The package keeps torchvision's layer numbers and only sorts them into slices, `net.sliceK.N`.
    """
    state = read_state(path)
    for name, parameter in distance.get_submodule("net").named_parameters():
        key = f"features.{name.split('.', 1)[1]}"
        stored = stored_tensor(state, key, tuple(parameter.shape), f"LPIPS: {path}")
        with torch.no_grad():
            parameter.copy_(stored)
