"""VRT: a transformer that restores all frames of a clip at once, each with its neighbours.

Reference: VRT: A Video Restoration Transformer, J. Liang, J. Cao, Y. Fan, K. Zhang, R. Ranjan,
Y. Li, R. Timofte, L. Van Gool, IEEE TIP 2024 (arXiv 2022), https://arxiv.org/abs/2201.12288.
Names in the state dict are those of https://github.com/JingyunLiang/VRT.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from archs.common import check_choice, check_count, run_block
from archs.vrt_checks import (
    check_alignment,
    check_extra_inputs,
    check_numbers,
    check_stages,
    check_window,
)
from archs.vrt_layers import AttentionGroup, GatedPerceptron, Size
from archs.vrt_warping import FlowGuidedAlignment, flows_to_later, images_of_next
from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from sr_train.ops.padding import pad_to
from sr_train.ops.spynet import make_spynet

COLOURS = 3

HALVINGS = (0, 1, 2, 3, 2, 1, 0)
"""How often the features of each of the first seven stages are halved."""

MAX_OFFSET = 10.0
"""How far from the flow an alignment may look, in pixels of the whole size."""

Flows = list[list[Tensor]]
"""Of each size, those to frames at a distance of 1, 2, ..."""


class FrameConv(nn.Conv3d):
    """A 3x3 convolution of single frames, whose weights have a time axis of length one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B*T, C_out, H, W) for `x` (B*T, C_in, H, W)."""
        return functional.conv2d(x, self.weight.squeeze(2), self.bias, padding=1)


class Halving(nn.Module):
    """Put every 2x2 pixels into the channels: (B, T, H, W, C) to (B, T, H/2, W/2, 4*C)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return x.permute(0, 1, 2, 4, 5, 3, 6).flatten(4)


class Doubling(nn.Module):
    """Undo `Halving`: (B, T, H, W, 4*C) to (B, T, 2*H, 2*W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(4, (2, 2, -1))
        return x.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5).flatten(2, 3)


def _resize(index: int, in_channels: int, channels: int) -> nn.Sequential:
    """Return what brings the features of the stage before to the size of stage `index`."""
    if index == 0:
        return nn.Sequential(OrderedDict({"1": nn.LayerNorm(channels)}))
    halves = HALVINGS[index] > HALVINGS[index - 1]
    inner = 4 * in_channels if halves else in_channels // 4
    return nn.Sequential(
        Halving() if halves else Doubling(), nn.LayerNorm(inner), nn.Linear(inner, channels)
    )


@dataclass
class _Groups:
    """Makes groups of attention one after the other, with ever more stochastic depth."""

    window: Size
    mlp_ratio: float
    rates: Iterator[float]
    gradient_checkpointing: bool

    def make(
        self,
        channels: int,
        num_heads: int,
        depth: int,
        *,
        frames: int | None = None,
        mutual: bool = False,
    ) -> AttentionGroup:
        """Return `depth` blocks; `frames`: of a window, where it is not the usual one."""
        return AttentionGroup(
            channels,
            (self.window[0] if frames is None else frames, *self.window[1:]),
            num_heads,
            mutual=mutual,
            mlp_ratio=self.mlp_ratio,
            drop_paths=list(islice(self.rates, depth)),
            gradient_checkpointing=self.gradient_checkpointing,
        )


class Stage(nn.Module):
    """Attention between two frames, then among those of a window, then the neighbours' features.

    Args:
        resize: brings features to the size and channels of this stage.
        between_two: attention within and between two frames.
        among_all: attention in windows of more frames.
        channels: C.
        align: alignment of the neighbours; None: they are not looked at.
        gradient_checkpointing: compute the alignment again in the backward pass.
    """

    def __init__(
        self,
        resize: nn.Sequential,
        between_two: AttentionGroup,
        among_all: AttentionGroup,
        channels: int,
        align: FlowGuidedAlignment | None,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.aligns = align is not None
        self.reshape = resize
        self.residual_group1 = between_two
        self.residual_group2 = among_all
        self.linear1 = nn.Linear(channels, channels)
        self.linear2 = nn.Linear(channels, channels)
        if align is not None:
            self.pa_deform = align
            self.pa_fuse = GatedPerceptron(3 * channels, 3 * channels, channels)

    def forward(self, x: Tensor, later: list[Tensor], earlier: list[Tensor]) -> Tensor:
        """Return (B, T, H', W', C) for the features of the stage before and flows at H' x W'.

        Args:
            x: (B, T, H, W, C_in).
            later: flows to later frames.
            earlier: flows to later frames of the clip turned around in time.
        """
        x = self.reshape(x)
        x = x + self.linear1(self.residual_group1(x))
        x = x + self.linear2(self.residual_group2(x))
        if not self.aligns:
            return x
        join = partial(self._join_neighbours, later=later, earlier=earlier)
        return run_block(join, x, recompute=self.gradient_checkpointing and self.training)

    def _join_neighbours(self, x: Tensor, later: list[Tensor], earlier: list[Tensor]) -> Tensor:
        frames = x.permute(0, 1, 4, 2, 3)
        ahead = self.pa_deform(frames, later).permute(0, 1, 3, 4, 2)
        behind = self.pa_deform(frames.flip(1), earlier).flip(1).permute(0, 1, 3, 4, 2)
        return self.pa_fuse(torch.cat((x, ahead, behind), -1))


class ResidualGroup(nn.Module):
    """A group of attention blocks and a linear layer, in one residual."""

    def __init__(self, group: AttentionGroup, channels: int) -> None:
        super().__init__()
        self.residual_group = group
        self.linear = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.residual_group(x))


def _shuffles(scale: int, channels: int) -> nn.Sequential:
    """Return pixel shuffles by 2, or one by 3, each after its convolution, and one more of those.

    The numbers are those of layers that turned the axes around, where frames were a third one.
    """
    factors = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, factor in enumerate(factors):
        layers[f"{5 * index}"] = FrameConv(channels, channels * factor**2)
        layers[f"{5 * index + 2}"] = nn.PixelShuffle(factor)
        layers[f"{5 * index + 4}"] = nn.LeakyReLU(0.1, inplace=True)
    layers[f"{5 * len(factors)}"] = FrameConv(channels, channels)
    return nn.Sequential(layers)


class VRT(nn.Module):
    """Restore or upscale a clip with attention among its frames and features of neighbours.

    Seven stages work at the whole size, a half, a quarter, an eighth and back; groups of attention
    follow. Published forms: x4 on REDS of 6 frames (the defaults) and of 16 (`window_size`
    [8, 8, 8], `pa_frames` 6, `deformable_groups` 24), x4 on Vimeo (`pa_frames` 4, `window_size`
    [8, 8, 8], `deformable_groups` 16); deblurring and denoising at scale 1, see the config
    `vrt_deblur`. That for interpolation makes one frame of four and does not load here.

    Args:
        scale: 1, 2, 3, 4 or 8.
        window_size: frames, rows and columns of an attention window; an odd number of frames in a
            clip is fine, as is any size of a frame.
        depths: attention blocks of each of the seven stages and of each group after them.
        indep_reconsts: groups whose windows are one frame long, counted like `depths` from 0.
        embed_dims: channels of each stage and group; multiples of 4 and of their `num_heads`.
        num_heads: attention heads of each stage and group.
        mul_attn_ratio: fraction of the blocks of a stage with attention between two frames.
        mlp_ratio: hidden channels of the perceptrons over those of the features.
        drop_path_rate: stochastic depth of the last block, growing from 0 in the first.
        pa_frames: neighbours whose features a frame gets, half of them before and half after it:
            2, 4 or 6; 0: none, and no flow.
        deformable_groups: parts of the features with offsets of their own in the alignment.
        head_feat: channels of the layers that enlarge; none at scale 1.
        extra_inputs: further inputs by name and their channels; they are warped with the colours,
            from which alone flow is estimated and the result starts.
        nonblind_denoising: take a further input `noise_level` of one channel, which is not warped.
        spynet: path of published weights of the flow network; None: it starts untrained.
        gradient_checkpointing: in training, store only the input of each block and alignment and
            compute the rest again in the backward pass: much less memory, about a third more time.

    Raises:
        ConfigError: an unsupported scale, or numbers that do not fit each other.
        CheckpointError: if `spynet` is not a file of SpyNet's weights.
    """

    def __init__(
        self,
        scale: int,
        window_size: Sequence[int] = (6, 8, 8),
        depths: Sequence[int] = (8, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4, 4, 4),
        indep_reconsts: Sequence[int] = (11, 12),
        embed_dims: Sequence[int] = (120,) * 7 + (180,) * 6,
        num_heads: Sequence[int] = (6,) * 13,
        mul_attn_ratio: float = 0.75,
        mlp_ratio: float = 2.0,
        drop_path_rate: float = 0.2,
        pa_frames: int = 2,
        deformable_groups: int = 12,
        head_feat: int = 64,
        extra_inputs: Mapping[str, int] | None = None,
        nonblind_denoising: bool = False,
        spynet: str | Path | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_choice("VRT", "scale", scale, (1, 2, 3, 4, 8))
        check_choice("VRT", "pa_frames", pa_frames, (0, 2, 4, 6))
        check_count("VRT", "head_feat", head_feat)
        check_window(window_size)
        check_stages(depths, embed_dims, num_heads, indep_reconsts)
        check_numbers(mul_attn_ratio, mlp_ratio, drop_path_rate)
        check_alignment(embed_dims, pa_frames // 2, deformable_groups)
        extra_inputs = check_extra_inputs(extra_inputs, nonblind_denoising)
        self.spec = NetSpec(
            scale=scale,
            size_multiple=8,
            min_size=8,
            takes_clips=True,
            time_field=None,
            min_frames=2,
            extra_inputs=extra_inputs,
            weight_files=("spynet",),
        )
        self.reach = pa_frames // 2
        self.unwarped = int(nonblind_denoising)
        self.gradient_checkpointing = gradient_checkpointing
        warped = COLOURS + sum(extra_inputs.values()) - self.unwarped
        seen = 1 + 2 * 4 if self.reach else 1
        self.conv_first = FrameConv(warped * seen + self.unwarped, embed_dims[0])
        if self.reach:
            self.spynet = make_spynet(spynet)
        groups = _Groups(
            (window_size[0], window_size[1], window_size[2]),
            mlp_ratio,
            iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist()),
            gradient_checkpointing,
        )
        for index in range(len(HALVINGS)):
            mutual = int(depths[index] * mul_attn_ratio)
            channels, heads = embed_dims[index], num_heads[index]
            before = embed_dims[max(index - 1, 0)]
            stage = Stage(
                _resize(index, before, channels),
                groups.make(channels, heads, mutual, frames=2, mutual=True),
                groups.make(channels, heads, depths[index] - mutual),
                channels,
                self._alignment(index, channels, deformable_groups),
                gradient_checkpointing,
            )
            self.add_module(f"stage{index + 1}", stage)
        channels = embed_dims[-1]
        enter = {"1": nn.LayerNorm(embed_dims[0]), "2": nn.Linear(embed_dims[0], channels)}
        self.stage8 = nn.ModuleList([nn.Sequential(OrderedDict(enter))])
        for index in range(len(HALVINGS), len(depths)):
            frames = 1 if index in indep_reconsts else None
            group = groups.make(channels, num_heads[index], depths[index], frames=frames)
            self.stage8.append(ResidualGroup(group, channels))
        self.norm = nn.LayerNorm(channels)
        self.conv_after_body = nn.Linear(channels, embed_dims[0])
        self._build_head(embed_dims[0], head_feat)

    def _alignment(
        self, index: int, channels: int, deformable_groups: int
    ) -> FlowGuidedAlignment | None:
        if not self.reach:
            return None
        farthest = MAX_OFFSET / 2 ** HALVINGS[index]
        return FlowGuidedAlignment(channels, self.reach, deformable_groups, farthest)

    def _build_head(self, channels: int, head_feat: int) -> None:
        if self.spec.scale == 1:
            self.conv_last = FrameConv(channels, COLOURS)
            return
        self.conv_before_upsample = nn.Sequential(
            FrameConv(channels, head_feat), nn.LeakyReLU(inplace=True)
        )
        self.upsample = _shuffles(self.spec.scale, head_feat)
        self.conv_last = FrameConv(head_feat, COLOURS)

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, T, 3, H*scale, W*scale) for `lq` (B, T, 3 + extra channels, H, W) in [0, 1].

        Raises:
            ConfigError: fewer than two frames.
        """
        batch, num_frames = lq.shape[:2]
        if num_frames < self.spec.min_frames:
            raise ConfigError(f"VRT: a clip must have at least 2 frames; got {num_frames}")
        height, width = (side * self.spec.scale for side in lq.shape[-2:])
        clip = pad_to(lq, self.spec.size_multiple)
        later, earlier = self._flows(clip[:, :, :COLOURS])
        x = self._with_next(clip, later, earlier).flatten(0, 1)
        shallow = self.conv_first(x).unflatten(0, (batch, -1)).permute(0, 1, 3, 4, 2)
        x = shallow + self.conv_after_body(self._body(shallow, later, earlier))
        pred = self._enlarge(x.flatten(0, 1).permute(0, 3, 1, 2))
        base = clip[:, :, :COLOURS].flatten(0, 1)
        if self.spec.scale > 1:
            base = functional.interpolate(base, pred.shape[-2:], mode="bilinear")
        return (pred + base).unflatten(0, (batch, -1))[..., :height, :width]

    def _flows(self, colours: Tensor) -> tuple[Flows, Flows]:
        """Return the flows to later frames, and those of the clip turned around in time."""
        if not self.reach:
            return [[]] * 4, [[]] * 4
        recompute = self.gradient_checkpointing and self.training
        estimate = partial(flows_to_later, self.spynet, reach=self.reach)
        later = run_block(estimate, colours, recompute=recompute)
        return later, run_block(estimate, colours.flip(1), recompute=recompute)

    def _with_next(self, clip: Tensor, later: Flows, earlier: Flows) -> Tensor:
        """Join each frame with the images of its two neighbours, warped to it."""
        if not self.reach:
            return clip
        moving = clip[:, :, : clip.shape[2] - self.unwarped]
        ahead = images_of_next(moving, later[0][0])
        behind = images_of_next(moving.flip(1), earlier[0][0]).flip(1)
        return torch.cat((moving, ahead, behind, clip[:, :, moving.shape[2] :]), 2)

    def _body(self, x: Tensor, later: Flows, earlier: Flows) -> Tensor:
        """Run all stages on (B, T, H, W, C)."""
        kept: list[Tensor] = []
        for index, halvings in enumerate(HALVINGS):
            if index > 4:
                x = x + kept[HALVINGS[index - 1]]
            stage = getattr(self, f"stage{index + 1}")
            x = stage(x, later[halvings], earlier[halvings])
            if index < 3:
                kept.append(x)
        x = x + kept[0]
        for layer in self.stage8:
            x = layer(x)
        return self.norm(x)

    def _enlarge(self, x: Tensor) -> Tensor:
        """Return (B*T, 3, H*scale, W*scale) for features (B*T, C, H, W)."""
        if self.spec.scale > 1:
            x = self.upsample(self.conv_before_upsample(x))
        return self.conv_last(x)
