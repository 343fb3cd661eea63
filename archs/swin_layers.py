"""Attention in shifted windows: the layers that SwinIR is made of.

Shapes: B images, H x W pixels, C channels, w the side of a window, N = w*w pixels in one,
M = (H/w) * (W/w) windows in an image. Features lie channels last, (B, H, W, C).

Reference: Swin Transformer: Hierarchical Vision Transformer using Shifted Windows, Z. Liu et al.,
ICCV 2021, https://arxiv.org/abs/2103.14030; stochastic depth: Deep Networks with Stochastic
Depth, G. Huang et al., ECCV 2016, https://arxiv.org/abs/1603.09382.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from archs.common import run_block

BLOCKED = -100.0
"""Added to the logits of pixels that are not neighbours; finite, as in the published masks."""


def split_windows(x: Tensor, window: int) -> Tensor:
    """Cut (B, H, W, C) into (B*M, N, C), image by image, row by row."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def join_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Undo `split_windows`: (B*M, N, C) to (B, H, W, C)."""
    channels = windows.shape[-1]
    x = windows.view(-1, height // window, width // window, window, window, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def shift_mask(height: int, width: int, window: int, device: torch.device | None = None) -> Tensor:
    """Return what to add to the logits in windows shifted by half a side, (M, N, N) float32.

    Shifting is cyclic, so windows at the end hold pixels from both borders; those must not see
    each other.

    Args:
        height: H, a multiple of `window`.
        width: W, a multiple of `window`.
        window: side of a window.
        device: where to make it.
    """

    def band(size: int) -> Tensor:
        position = torch.arange(size, device=device)
        return (position >= size - window).int() + (position >= size - window // 2).int()

    region = 3 * band(height)[:, None] + band(width)[None, :]
    of_window = split_windows(region.view(1, height, width, 1), window).squeeze(-1)
    return torch.where(of_window[:, :, None] == of_window[:, None, :], 0.0, BLOCKED)


def _relative_position_index(window: int) -> Tensor:
    """Return the row of the bias table for each pair of pixels in a window, (N, N) int64."""
    position = torch.arange(window)
    row = position.repeat_interleave(window)
    column = position.repeat(window)
    down = row[:, None] - row[None, :] + window - 1
    right = column[:, None] - column[None, :] + window - 1
    return down * (2 * window - 1) + right


class DropPath(nn.Module):
    """In training, drop the branch of a sample at `rate` and scale up those that stay."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = torch.rand((x.shape[0],) + (1,) * (x.ndim - 1), device=x.device) < keep
        return x * (kept / keep).to(x.dtype)


class WindowAttention(nn.Module):
    """Self-attention within windows, with a learnt bias for every relative position."""

    relative_position_index: Tensor

    def __init__(self, channels: int, window: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (channels // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * window - 1) ** 2, num_heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_position_index(window))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B*M, N, C) for `windows` of that shape and a `mask` (M, N, N) to add."""
        count, length, channels = windows.shape
        qkv = self.qkv(windows).view(count, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.permute(2, 0, 1).unsqueeze(0)
        if mask is not None:
            bias = bias + mask.unsqueeze(1)
        logits = (query * self.scale) @ key.transpose(-2, -1)
        logits = logits.unflatten(0, (-1, bias.shape[0])) + bias.to(logits.dtype)
        out = logits.softmax(-1).flatten(0, 1) @ value
        return self.proj(out.transpose(1, 2).reshape(count, length, channels))


class SwinBlock(nn.Module):
    """Attention in windows, shifted or not, and a two-layer perceptron, both residual.

    A shifted block carries the mask of an image of `img_size` as a buffer, because published
    weights do; forward is given the mask that fits its input. Weights saved for another
    `img_size` load too: their mask is left aside.
    """

    attn_mask: Tensor | None

    def __init__(
        self,
        channels: int,
        window: int,
        num_heads: int,
        *,
        shifted: bool,
        mlp_ratio: float,
        drop_path: float,
        img_size: int,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = window // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, num_heads)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        hidden = int(channels * mlp_ratio)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(channels, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, channels)
            )
        )
        mask = shift_mask(img_size, img_size, window) if self.shift else None
        self.register_buffer("attn_mask", mask)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(prefix + "attn_mask")
        if (
            isinstance(saved, Tensor)
            and self.attn_mask is not None
            and saved.shape[1:] == self.attn_mask.shape[1:]
        ):
            state_dict[prefix + "attn_mask"] = self.attn_mask
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, H, W, C) for `x` of that shape and the `shift_mask` of H and W."""
        x = x + self.drop_path(self._attend(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        windows = self.attn(split_windows(x, self.window), mask if self.shift else None)
        x = join_windows(windows, self.window, height, width)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x


class SwinBlocks(nn.Module):
    """Blocks in a row, every second one shifted."""

    def __init__(self, blocks: list[SwinBlock], gradient_checkpointing: bool) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        recompute = self.gradient_checkpointing and self.training
        for block in self.blocks:
            x = run_block(block, x, mask, recompute=recompute, random=True)
        return x


class ResidualGroup(nn.Module):
    """Swin blocks and a convolution, in one residual."""

    def __init__(
        self, blocks: list[SwinBlock], conv: nn.Module, gradient_checkpointing: bool
    ) -> None:
        super().__init__()
        self.residual_group = SwinBlocks(blocks, gradient_checkpointing)
        self.conv = conv

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.residual_group(x, mask)
        return x + self.conv(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
