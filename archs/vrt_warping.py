"""Frames brought to where their neighbours are: flows, warped images, deformable alignment.

Everything here looks from a frame at later ones; turned around in time, it looks at earlier ones.
Shapes: B clips of T frames, C channels, K how many frames apart the farthest neighbour is.

Reference: VRT: A Video Restoration Transformer, J. Liang et al., IEEE TIP 2024 (arXiv 2022),
https://arxiv.org/abs/2201.12288, section 3.3; BasicVSR++: Improving Video Super-Resolution with
Enhanced Propagation and Alignment, K. C. K. Chan et al., CVPR 2022,
https://arxiv.org/abs/2104.13371, section 3.2.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import deform_conv2d

from archs.common import at_least_fp32, without_autocast
from sr_train.ops.flow import flow_warp
from sr_train.ops.spynet import SpyNet

LEVELS = 4
"""Sizes at which flows are needed: whole, half, quarter and eighth."""


def flows_to_later(spynet: SpyNet, clip: Tensor, reach: int) -> list[list[Tensor]]:
    """Estimate where each frame's pixels lie in the frames after it, in float32.

    Flows to the next frame are estimated, those farther are made of them.

    Args:
        spynet: the flow network.
        clip: (B, T, 3, H, W), H and W multiples of 8.
        reach: K.

    Returns:
        For each of the four sizes K flows, (B, T - k, 2, H / 2**i, W / 2**i) in its own pixels
        for a distance of k frames; none at all beyond the clip.
    """
    batch = clip.shape[0]
    levels = spynet.pyramid(clip[:, :-1].flatten(0, 1), clip[:, 1:].flatten(0, 1), LEVELS)
    chains = []
    for level in levels:
        near = level.float().unflatten(0, (batch, -1))
        chain = [near]
        for distance in range(2, min(reach, near.shape[1]) + 1):
            chain.append(_one_frame_farther(chain[-1], near, distance))
        chains.append(chain)
    return chains


def _one_frame_farther(flows: Tensor, near: Tensor, distance: int) -> Tensor:
    """Follow `flows`, of `distance - 1` frames, and from there one frame on."""
    start = flows[:, :-1]
    step = flow_warp(near[:, distance - 1 :].flatten(0, 1), start.flatten(0, 1))
    return start + step.unflatten(0, start.shape[:2])


def images_of_next(clip: Tensor, flows: Tensor) -> Tensor:
    """Look up the four pixels of the next frame around where each pixel's flow points to.

    Nothing flows back through `flows`, of which rounding leaves no gradient.

    Args:
        clip: (B, T, C, H, W).
        flows: (B, T - 1, 2, H, W), to the next frame.

    Returns:
        (B, T, 4 * C, H, W); zeros for the last frame.
    """
    later = clip[:, 1:].flatten(0, 1)
    x, y = flows.detach().flatten(0, 1).float().unbind(1)
    corners = [
        flow_warp(later, torch.stack((column, row), 1), mode="nearest")
        for column in (x.floor(), x.ceil())
        for row in (y.floor(), y.ceil())
    ]
    return _then_nothing(torch.cat(corners, 1), clip)


def _then_nothing(frames: Tensor, clip: Tensor) -> Tensor:
    """Return (B*(T-1), ...) as (B, T, ...), with zeros for the last frame."""
    frames = frames.unflatten(0, (clip.shape[0], -1))
    return torch.cat((frames, torch.zeros_like(frames[:, :1])), 1)


class FlowGuidedAlignment(nn.Module):
    """A deformable convolution over K neighbours, whose offsets start from the flows to them.

    Args:
        channels: C; a multiple of K.
        reach: K.
        deformable_groups: parts of the channels with offsets of their own; a multiple of K that
            divides K * C.
        max_offset: how far from the flow an offset may point, in pixels.
    """

    def __init__(
        self, channels: int, reach: int, deformable_groups: int, max_offset: float
    ) -> None:
        super().__init__()
        self.reach = reach
        self.max_offset = max_offset
        bound = 1.0 / math.sqrt(9 * channels)
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset = nn.Sequential(
            nn.Conv2d((1 + reach) * channels + 2 * reach, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, 27 * deformable_groups, 3, padding=1),
        )
        nn.init.zeros_(self.conv_offset[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv_offset[-1].bias)  # type: ignore[arg-type]

    def forward(self, clip: Tensor, flows: Sequence[Tensor]) -> Tensor:
        """Return what each frame's later neighbours show of it, zeros for the last frame.

        Args:
            clip: (B, T, C, H, W).
            flows: (B, T - k, 2, H, W) for every distance k up to K, fewer in a shorter clip.

        Returns:
            (B, T, C, H, W).
        """
        sources, targets = self._neighbours(clip, flows)
        warped = [flow_warp(*pair) for pair in zip(sources, targets, strict=True)]
        current = clip[:, :-1].flatten(0, 1)
        seen = torch.cat((*warped, current, *(flow.to(clip.dtype) for flow in targets)), 1)
        rows, columns, weights = at_least_fp32(self.conv_offset(seen)).chunk(3, 1)
        offsets = self.max_offset * torch.tanh(torch.cat((rows, columns), 1))
        parts = [
            part + flow.flip(1).repeat(1, part.shape[1] // 2, 1, 1)
            for part, flow in zip(offsets.chunk(self.reach, 1), targets, strict=True)
        ]
        with without_autocast(clip):
            aligned = deform_conv2d(
                at_least_fp32(torch.cat(sources, 1)),
                torch.cat(parts, 1),
                at_least_fp32(self.weight),
                at_least_fp32(self.bias),
                padding=1,
                mask=torch.sigmoid(weights),
            )
        return _then_nothing(aligned.to(clip.dtype), clip)

    def _neighbours(
        self, clip: Tensor, flows: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return K lists of T - 1 frames and flows each, zeros beyond the clip, in one batch."""
        count = clip.shape[1] - 1
        sources, targets = [], []
        for distance in range(1, self.reach + 1):
            frames = clip[:, distance:]
            flow = flows[distance - 1] if distance <= len(flows) else flows[0][:, :0]
            beyond = (0, 0, 0, 0, 0, 0, 0, count - frames.shape[1])
            sources.append(functional.pad(frames, beyond).flatten(0, 1))
            targets.append(functional.pad(flow, beyond).flatten(0, 1))
        return sources, targets
