"""BasicVSR++: two rounds of propagation, each step from two frames by deformable alignment.

Reference: BasicVSR++: Improving Video Super-Resolution with Enhanced Propagation and Alignment,
K. C. K. Chan, S. Zhou, X. Xu, C. C. Loy, CVPR 2022, https://arxiv.org/abs/2104.13371; at scale 1:
On the Generalization of BasicVSR++ to Video Deblurring and Denoising, the same authors, 2022,
https://arxiv.org/abs/2204.05308. Names in the state dict are those of
https://github.com/ckkelvinchan/BasicVSR_PlusPlus (see `archs.recurrent_layers`).
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import deform_conv2d

from archs.common import at_least_fp32, check_count, without_autocast
from archs.recurrent_layers import RecurrentNet, ResidualBlocks, check_sizes, enlarge
from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from sr_train.ops.flow import flow_warp
from sr_train.ops.padding import pad_to

BRANCHES = ("backward_1", "forward_1", "backward_2", "forward_2")
"""In the order in which they run; each sees the features of those before it."""

GROUPS = 16
"""Groups of channels that have offsets of their own, the first half of them for one frame before
and the second half for two."""

TAPS = 9
"""Weights of a 3x3 kernel, each with its own offset."""


class Flows(NamedTuple):
    """For every step of a propagation but the first: (B, 2, H, W), in pixels."""

    one_back: list[Tensor]
    two_back: list[Tensor]


class SecondOrderAlignment(nn.Module):
    """Gather features of the last two steps where flow and learnt residues point.

    Offsets are flow plus at most `max_residue_magnitude` pixels (eq. 6 of the paper). They, and
    the convolution that they steer, stay in fp32: half precision has no sub-pixel positions.
    """

    def __init__(self, channels: int, max_residue_magnitude: float) -> None:
        super().__init__()
        self.max_residue_magnitude = max_residue_magnitude
        bound = 1 / math.sqrt(2 * channels * TAPS)
        self.weight = nn.Parameter(
            nn.init.uniform_(torch.empty(channels, 2 * channels, 3, 3), -bound, bound)
        )
        self.bias = nn.Parameter(torch.zeros(channels))
        self.conv_offset = nn.Sequential(
            nn.Conv2d(3 * channels + 4, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(channels, 3 * TAPS * GROUPS, 3, padding=1),
        )
        nn.init.zeros_(self.conv_offset[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.conv_offset[-1].bias)  # type: ignore[arg-type]

    def forward(
        self, one_back: Tensor, two_back: Tensor, current: Tensor, flow_1: Tensor, flow_2: Tensor
    ) -> Tensor:
        """Return the aligned features, (B, C, H, W).

        Args:
            one_back: (B, C, H, W), features of the step before.
            two_back: of the step before that; zeros where there is none.
            current: features of the frame itself.
            flow_1: (B, 2, H, W), from the current frame to the one of `one_back`.
            flow_2: the same to the one of `two_back`; zeros where there is none.
        """
        warped_1, warped_2 = flow_warp(one_back, flow_1), flow_warp(two_back, flow_2)
        hints = (flow_1.to(current.dtype), flow_2.to(current.dtype))
        found = self.conv_offset(torch.cat((warped_1, current, warped_2, *hints), 1))
        with without_autocast(current):
            residue, mask = at_least_fp32(found).split((2 * TAPS * GROUPS, TAPS * GROUPS), 1)
            # Offsets lie as (frame, group and tap, y and x); flow is x and y.
            flow = torch.stack((flow_1, flow_2), 1).flip(2).unsqueeze(2)
            reach = self.max_residue_magnitude * residue.tanh()
            offset = (reach.unflatten(1, (2, -1, 2)) + flow).flatten(1, 3)
            both = at_least_fp32(torch.cat((one_back, two_back), 1))
            aligned = deform_conv2d(
                both, offset, self.weight, self.bias, padding=1, mask=mask.sigmoid()
            )
        return aligned.to(current.dtype)


class BasicVSRPlusPlus(RecurrentNet):
    """Upscale or restore a clip with what every other frame of it shows.

    Four passes run through the clip, backwards and forwards twice. In each, a frame sees its own
    features, those of the passes before, and the aligned ones of the last two steps.

    A clip of one frame has nothing to align, so `spynet` and `deform_align` then get no gradient
    (which DDP waits for): train on two frames or more.

    Args:
        scale: 1, 2 or 4 for low-resolution input, published for 4; else 1.
        mid_channels: channels of the features; a multiple of 8.
        num_blocks: residual blocks of each pass.
        max_residue_magnitude: how far, in pixels of the features, alignment may leave the flow.
        is_low_res_input: False: for restoration at scale 1, features are 4 times smaller than the
            input, and so are the frames between which flow is estimated.
        extra_inputs: further inputs by name and their channels, which follow the colours; they
            join at the feature extraction, while flow sees only the colours.
        spynet: path of published weights of the flow network; None: it starts untrained.
        gradient_checkpointing: in training, store only the features of each frame after each pass
            and compute the rest again in the backward pass.

    Raises:
        ConfigError: an unsupported scale, a count below 1, or channels that do not divide.
        CheckpointError: if `spynet` is not a file of SpyNet's weights.
    """

    def __init__(
        self,
        scale: int,
        mid_channels: int = 64,
        num_blocks: int = 7,
        max_residue_magnitude: float = 10.0,
        is_low_res_input: bool = True,
        extra_inputs: Mapping[str, int] | None = None,
        spynet: str | Path | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        _check_arguments(scale, mid_channels, num_blocks, max_residue_magnitude, is_low_res_input)
        extra_inputs = dict(extra_inputs or {})
        for name, channels in extra_inputs.items():
            check_count("BasicVSRPlusPlus", f"extra_inputs.{name}", channels)
        num_doublings = scale.bit_length() - 1 if is_low_res_input else 2
        super().__init__(num_doublings, mid_channels, spynet, gradient_checkpointing)
        self.shrink = 1 if is_low_res_input else 4
        self.spec = NetSpec(
            scale=scale,
            size_multiple=self.shrink,
            min_size=self.shrink,
            takes_clips=True,
            time_field=None,
            extra_inputs=extra_inputs,
            weight_files=("spynet",),
        )
        in_channels = 3 + sum(extra_inputs.values())
        self.feat_extract = _extraction(in_channels, mid_channels, self.shrink)
        self.deform_align = nn.ModuleDict()
        self.backbone = nn.ModuleDict()
        for count, name in enumerate(BRANCHES, start=2):
            self.deform_align[name] = SecondOrderAlignment(mid_channels, max_residue_magnitude)
            self.backbone[name] = ResidualBlocks(count * mid_channels, mid_channels, num_blocks)
        self.reconstruction = ResidualBlocks(5 * mid_channels, mid_channels, 5)

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, T, 3, H*scale, W*scale) for `lq` (B, T, 3 + extras, H, W)."""
        batch, _, _, height, width = lq.shape
        frames = pad_to(lq.flatten(0, 1), self.shrink)
        extracted = self.run(self.feat_extract, frames)
        features = [extracted.unflatten(0, (batch, -1)).unbind(1)]
        colours = frames[:, :3].unflatten(0, (batch, -1))
        to_next, to_last = self.flows(self._shrunk(colours))
        backward, forward = _second_order(to_next[::-1]), _second_order(to_last)
        for name in BRANCHES:
            turn, flows = (-1, backward) if name.startswith("backward") else (1, forward)
            seen = list(zip(*features, strict=True))[::turn]
            features.append(tuple(self._propagate(name, seen, flows)[::turn]))
        parts = zip(colours.unbind(1), *features, strict=True)
        preds = torch.stack([self.run(self._reconstruct, *each) for each in parts], 1)
        return preds[..., : height * self.spec.scale, : width * self.spec.scale]

    def _shrunk(self, colours: Tensor) -> Tensor:
        """Return the frames (B, T, 3, h, w) at the size of the features."""
        if self.shrink == 1:
            return colours
        folded = functional.interpolate(
            colours.flatten(0, 1), scale_factor=1 / self.shrink, mode="bicubic"
        )
        return folded.unflatten(0, colours.shape[:2])

    def _propagate(self, name: str, seen: list[tuple[Tensor, ...]], flows: Flows) -> list[Tensor]:
        """Return a branch's features of every frame, in the order of `seen`.

        Args:
            name: one of `BRANCHES`.
            seen: for each frame its own features and those of the branches before, (B, C, H, W).
            flows: in the same order, from each frame but the first.
        """
        align, trunk = self.deform_align[name], self.backbone[name]

        def step(
            one_back: Tensor, two_back: Tensor, flow_1: Tensor, flow_2: Tensor, *seen: Tensor
        ) -> Tensor:
            aligned = align(one_back, two_back, seen[0], flow_1, flow_2)
            return aligned + trunk(torch.cat((*seen, aligned), 1))

        none = torch.zeros_like(seen[0][0])
        features = [none, self.run(trunk, torch.cat((*seen[0], none), 1))]
        for each, *flow in zip(seen[1:], *flows, strict=True):
            features.append(self.run(step, features[-1], features[-2], *flow, *each))
        return features[1:]

    def _reconstruct(self, colours: Tensor, *features: Tensor) -> Tensor:
        x = self.reconstruction(torch.cat(features, 1))
        return self.upsample(x) + enlarge(colours, self.spec.scale)


def _extraction(in_channels: int, channels: int, shrink: int) -> nn.Module:
    if shrink == 1:
        return ResidualBlocks(in_channels, channels, 5)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, stride=2, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
        ResidualBlocks(channels, channels, 5),
    )


def _second_order(flows: list[Tensor]) -> Flows:
    """Add the flows over two steps: the second one's is looked up where the first one leads."""
    two_back = [torch.zeros_like(flow) for flow in flows[:1]]
    for earlier, flow in pairwise(flows):
        two_back.append(flow + flow_warp(earlier, flow))
    return Flows(flows, two_back)


def _check_arguments(
    scale: int,
    mid_channels: int,
    num_blocks: int,
    max_residue_magnitude: float,
    is_low_res_input: bool,
) -> None:
    name = "BasicVSRPlusPlus"
    check_sizes(name, scale, mid_channels, num_blocks)
    if mid_channels % 8:
        raise ConfigError(
            f"{name}: mid_channels must be a multiple of 8; got {mid_channels}, "
            f"nearest: {max(8, mid_channels // 8 * 8)}"
        )
    if max_residue_magnitude <= 0:
        raise ConfigError(
            f"{name}: max_residue_magnitude must be above 0; got {max_residue_magnitude}"
        )
    if not is_low_res_input and scale != 1:
        raise ConfigError(
            f"{name}: is_low_res_input=false restores at scale 1; got scale={scale}, so leave it "
            "true or set scale=1"
        )
