"""IMDN: a light network that distils a quarter of its channels at every convolution.

Reference: Lightweight Image Super-Resolution with Information Multi-distillation Network,
Z. Hui, X. Gao, Y. Yang, X. Wang, ACM Multimedia 2019, https://arxiv.org/abs/1909.11856.
Names in the state dict are those of https://github.com/Zheng222/IMDN.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from archs.common import (
    SHUFFLE_SCALES,
    at_least_fp32,
    check_choice,
    check_count,
    colour_of,
    run_block,
)
from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec

VARIANCE_EPS = 1e-10
"""Keeps the gradient of the standard deviation finite on flat features."""


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.05, inplace=True)


class ContrastAttention(nn.Module):
    """Weigh each channel by its mean plus its standard deviation over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, channels // 16, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // 16, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(at_least_fp32(x), (2, 3), correction=0, keepdim=True)
        contrast = torch.sqrt(variance + VARIANCE_EPS) + mean
        return x * self.conv_du(contrast.to(x.dtype))


class DistillationBlock(nn.Module):
    """Keep a quarter of the channels after each convolution and refine the others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kept = channels // 4
        self.passed = channels - self.kept
        self.c1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.c2 = nn.Conv2d(self.passed, channels, 3, padding=1)
        self.c3 = nn.Conv2d(self.passed, channels, 3, padding=1)
        self.c4 = nn.Conv2d(self.passed, self.kept, 3, padding=1)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.cca = ContrastAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        kept1, rest = _lrelu(self.c1(x)).split((self.kept, self.passed), 1)
        kept2, rest = _lrelu(self.c2(rest)).split((self.kept, self.passed), 1)
        kept3, rest = _lrelu(self.c3(rest)).split((self.kept, self.passed), 1)
        kept = torch.cat((kept1, kept2, kept3, self.c4(rest)), 1)
        return x + self.c5(self.cca(kept))


class IMDN(nn.Module):
    """Chain distillation blocks and fuse the results of all of them.

    Args:
        scale: 1 to 8; published for 2, 3 and 4.
        in_channels: channels of `lq`.
        out_channels: channels of `pred`.
        num_feat: channels of the features; a multiple of 4 of at least 16.
        num_block: distillation blocks.
        gradient_checkpointing: in training, store only each block's input and compute the rest
            again in the backward pass.

    Raises:
        ConfigError: an unsupported scale or number of channels or blocks.
    """

    def __init__(
        self,
        scale: int,
        in_channels: int = 3,
        out_channels: int = 3,
        num_feat: int = 64,
        num_block: int = 6,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_choice("IMDN", "scale", scale, SHUFFLE_SCALES)
        check_count("IMDN", "in_channels", in_channels)
        check_count("IMDN", "out_channels", out_channels)
        check_count("IMDN", "num_feat", num_feat, least=16)
        check_count("IMDN", "num_block", num_block)
        if num_feat % 4:
            raise ConfigError(
                f"IMDN: num_feat must be a multiple of 4; got {num_feat}, "
                f"nearest: {num_feat // 4 * 4}, {num_feat // 4 * 4 + 4}"
            )
        self.spec = NetSpec(
            scale=scale,
            in_channels=in_channels,
            out_channels=out_channels,
            colour=colour_of(in_channels, out_channels),
        )
        self.gradient_checkpointing = gradient_checkpointing
        self.block_names = [f"IMDB{number}" for number in range(1, num_block + 1)]
        self.fea_conv = nn.Conv2d(in_channels, num_feat, 3, padding=1)
        for name in self.block_names:
            self.add_module(name, DistillationBlock(num_feat))
        self.c = nn.Sequential(
            nn.Conv2d(num_feat * num_block, num_feat, 1), nn.LeakyReLU(0.05, inplace=True)
        )
        self.LR_conv = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(num_feat, out_channels * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, out_channels, H*scale, W*scale) for `lq` (B, in_channels, H, W)."""
        shallow = self.fea_conv(lq)
        x, stages = shallow, []
        for name in self.block_names:
            recompute = self.gradient_checkpointing and self.training
            x = run_block(getattr(self, name), x, recompute=recompute)
            stages.append(x)
        fused = self.LR_conv(self.c(torch.cat(stages, 1))) + shallow
        return self.upsampler(fused)
