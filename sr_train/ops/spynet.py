"""SpyNet: optical flow from coarse to fine, as video networks and losses use it.

Reference: Optical Flow Estimation using a Spatial Pyramid Network, A. Ranjan, M. J. Black,
CVPR 2017, https://arxiv.org/abs/1611.00850. Names in the state dict are those of
https://github.com/XPixelGroup/BasicSR, which VRT shares; those of
https://github.com/open-mmlab/mmagic are accepted.
"""

import logging
import re
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sr_train.api.names import accept_other_names, to_own_names
from sr_train.io.pretrained import find_weights, read_state, stored_tensor
from sr_train.ops.flow import flow_warp

log = logging.getLogger(__name__)

LEVELS = 6
"""Scales of the pyramid, so that the coarsest is 32 times smaller."""

PUBLISHED = "spynet_sintel_final-3d2a1287.pth"
URL = f"https://github.com/JingyunLiang/VRT/releases/download/v0.0/{PUBLISHED}"

OTHER_NAME = re.compile(r"basic_module\.(\d)\.basic_module\.(\d)\.conv\.(weight|bias)")
"""In mmagic an activation is part of its convolution, so only convolutions are counted."""


class Refinement(nn.Module):
    """What one scale adds to the flow of the coarser one."""

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.Sequential(
            nn.Conv2d(8, 32, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(32, 64, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(64, 32, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(32, 16, 7, padding=3),
            nn.ReLU(),
            nn.Conv2d(16, 2, 7, padding=3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 2, H, W) for `x` (B, 8, H, W): both images and the flow so far."""
        return self.basic_module(x)


class SpyNet(nn.Module):
    """Estimate where each pixel of one image lies in another.

    It runs in the precision of its weights, whatever autocast says: half precision has no
    sub-pixel positions in an image of common size.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.basic_module = nn.ModuleList(Refinement() for _ in range(LEVELS))
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        accept_other_names(self)

    def own_name(self, name: str) -> str:
        """Return the name here of what mmagic calls `name`."""
        return OTHER_NAME.sub(
            lambda found: f"basic_module.{found[1]}.basic_module.{2 * int(found[2])}.{found[3]}",
            name,
        )

    def forward(self, ref: Tensor, supp: Tensor) -> Tensor:
        """Return the flow from `ref` to `supp`, such that warping `supp` by it gives `ref`.

        Args:
            ref: (B, 3, H, W) RGB in [0, 1], of any size.
            supp: the same shape.

        Returns:
            (B, 2, H, W) in pixels, to the right and down; in the dtype of the weights.
        """
        return self.pyramid(ref, supp, 1)[0]

    def pyramid(self, ref: Tensor, supp: Tensor, levels: int) -> list[Tensor]:
        """Return the flows of the finest scales, each in its own pixels.

        Args:
            ref: (B, 3, H, W) RGB in [0, 1], of any size.
            supp: the same shape.
            levels: how many scales, 1 to 6.

        Returns:
            The flow at H x W, the one at H//2 x W//2, and so on; no side is below 1.
        """
        height, width = ref.shape[-2:]
        inner = (-(-height // 32) * 32, -(-width // 32) * 32)
        with torch.autocast(ref.device.type, enabled=False):
            flows = self._flows(self._scales(ref, inner), self._scales(supp, inner))
            return [
                _resize_flow(flow, (max(height >> level, 1), max(width >> level, 1)))
                for level, flow in enumerate(flows[: -levels - 1 : -1])
            ]

    def _scales(self, image: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Return the normalised image at every scale, the coarsest first."""
        image = image.to(self.mean.dtype)
        image = functional.interpolate(image, size, mode="bilinear", align_corners=False)
        scales = [(image - self.mean) / self.std]
        for _ in range(LEVELS - 1):
            scales.append(functional.avg_pool2d(scales[-1], 2))
        return scales[::-1]

    def _flows(self, ref: list[Tensor], supp: list[Tensor]) -> list[Tensor]:
        """Return the flow at every scale, the coarsest first."""
        flow = torch.zeros_like(ref[0][:, :2])
        flows: list[Tensor] = []
        for level, refine in enumerate(self.basic_module):
            if level > 0:
                flow = 2.0 * functional.interpolate(
                    flow, scale_factor=2, mode="bilinear", align_corners=True
                )
            warped = flow_warp(supp[level], flow, padding="border")
            flow = flow + refine(torch.cat((ref[level], warped, flow), 1))
            flows.append(flow)
        return flows


def make_spynet(weights: str | Path | None) -> SpyNet:
    """Build a SpyNet, with published weights or untrained.

    Args:
        weights: path of BasicSR's, VRT's or mmagic's file; None: untrained, said once in the log.

    Raises:
        CheckpointError: if the file is not there, or is not one of SpyNet's weights.
    """
    net = SpyNet()
    if weights is None:
        _tell_untrained()
        return net
    path = find_weights("SpyNet", PUBLISHED, weights, URL, "spynet")
    state = read_state(path)
    for layout in ("params", "state_dict"):
        state = state[layout] if isinstance(state.get(layout), dict) else state
    state = to_own_names(net, state)
    source = f"spynet={path}"
    fitting = {
        name: stored_tensor(state, name, tuple(own.shape), source)
        for name, own in net.named_parameters()
    }
    net.load_state_dict(fitting, strict=False)
    return net


@cache
def _tell_untrained() -> None:
    log.info("spynet=null: optical flow starts untrained, unless a checkpoint brings it")


def _resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (B, 2, H, W) and count in the new pixels."""
    height, width = flow.shape[-2:]
    resized = functional.interpolate(flow, size, mode="bilinear", align_corners=False)
    return torch.stack((resized[:, 0] * (size[1] / width), resized[:, 1] * (size[0] / height)), 1)
