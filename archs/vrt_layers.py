"""Attention between the frames of a clip, in shifted windows: the layers that VRT is made of.

Shapes: B clips, T frames, H x W pixels, C channels; a window is t x h x w, and holds N of them.
M windows make a clip. Features lie channels last, (B, T, H, W, C).

Reference: VRT: A Video Restoration Transformer, J. Liang et al., IEEE TIP 2024 (arXiv 2022),
https://arxiv.org/abs/2201.12288, section 3.2; gated perceptrons: GLU Variants Improve
Transformer, N. Shazeer, 2020, https://arxiv.org/abs/2002.05202.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from archs.common import run_block
from archs.swin_layers import BLOCKED, DropPath

Size = tuple[int, int, int]
"""Frames, rows and columns."""

HEAD_GRAIN = 8
"""Attention without a matrix of logits in memory wants heads of a multiple of so many channels."""


def split_windows(x: Tensor, window: Size) -> Tensor:
    """Cut (B, T, H, W, C) into (B*M, N, C): clip by clip, then by time, rows and columns."""
    batch, frames, height, width, channels = x.shape
    t, h, w = window
    x = x.reshape(batch, frames // t, t, height // h, h, width // w, w, channels)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, t * h * w, channels)


def join_windows(windows: Tensor, window: Size, size: Size) -> Tensor:
    """Undo `split_windows`: (B*M, N, C) to (B, T, H, W, C) for `size` (T, H, W)."""
    frames, height, width = size
    t, h, w = window
    x = windows.view(-1, frames // t, height // h, width // w, t, h, w, windows.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, frames, height, width, x.shape[-1])


def fit_window(size: Size, window: Size, shift: Size) -> tuple[Size, Size]:
    """Return the window and shift for features of a size.

    A window holds no more frames than the clip has, and along an axis that one window covers
    nothing is shifted.
    """
    t, h, w = (
        0 if length <= side else step
        for length, side, step in zip(size, window, shift, strict=True)
    )
    return (min(size[0], window[0]), window[1], window[2]), (t, h, w)


def padded_size(size: Size, window: Size) -> Size:
    """Return the next multiples of the window."""
    t, h, w = (-(-length // side) * side for length, side in zip(size, window, strict=True))
    return t, h, w


def shift_mask(
    size: Size, window: Size, shift: Size, device: torch.device | None = None
) -> Tensor | None:
    """Return what to add to the logits in shifted windows, (M, N, N) float32; None: nothing.

    Shifting is cyclic, so windows at the end hold pixels from both borders; those must not see
    each other.

    Args:
        size: T, H, W, multiples of `window`.
        window: t, h, w.
        shift: by how much, less than the window along each axis.
        device: where to make it.
    """
    if not any(shift):
        return None
    frames, rows, columns = (
        _bands(length, side, step, device)
        for length, side, step in zip(size, window, shift, strict=True)
    )
    region = (frames[:, None, None] * 3 + rows[:, None]) * 3 + columns
    of_window = split_windows(region[None, ..., None], window).squeeze(-1)
    return torch.where(of_window[:, :, None] == of_window[:, None, :], 0.0, BLOCKED)


def _bands(length: int, side: int, shift: int, device: torch.device | None) -> Tensor:
    """Number the parts of an axis that did not lie together before the shift."""
    position = torch.arange(length, device=device)
    if shift == 0:
        return torch.zeros_like(position)
    return (position >= length - side).long() + (position >= length - shift).long()


def relative_position_index(window: Size) -> Tensor:
    """Return the row of the bias table for each pair of pixels in a window, (N, N) int64."""
    axes = [torch.arange(side) for side in window]
    position = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    t, h, w = (position[:, None] - position[None, :] + torch.tensor(window) - 1).unbind(-1)
    return (t * (2 * window[1] - 1) + h) * (2 * window[2] - 1) + w


def sine_positions(height: int, width: int, channels: int) -> Tensor:
    """Return sines and cosines of rows, then of columns, (1, height*width, channels).

    Reference: End-to-End Object Detection with Transformers, N. Carion et al., ECCV 2020,
    https://arxiv.org/abs/2005.12872, appendix A.4; positions count from 1 to 2 pi.
    """
    half = channels // 2
    frequency = 10000.0 ** (-2.0 * torch.arange(half // 2) / half)

    def along(length: int) -> Tensor:
        angle = torch.arange(1, length + 1) * (2 * math.pi / (length + 1e-6))
        phase = angle[:, None] * frequency
        return torch.stack((phase.sin(), phase.cos()), -1).flatten(1)

    rows = along(height)[:, None].expand(height, width, half)
    columns = along(width)[None].expand(height, width, half)
    return torch.cat((rows, columns), -1).view(1, height * width, channels)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """Mix values by the softmax of scaled products plus a bias.

    Args:
        query: (B*M, heads, N, C/heads), as are `key` and `value`.
        key: what queries are compared with.
        value: what is mixed.
        bias: (1 or M, 1 or heads, N, N), added to the logits of each clip.

    Returns:
        (B*M, N, C).
    """
    count, heads, length, channels = query.shape
    if bias is not None:
        if bias.shape[0] > 1:
            bias = bias.repeat(count // bias.shape[0], 1, 1, 1)
        bias = bias.to(query.dtype).expand(count, heads, length, length)
    if query.is_cuda and (missing := -channels % HEAD_GRAIN):
        query, key, value = (functional.pad(x, (0, missing)) for x in (query, key, value))
    out = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=bias, scale=channels**-0.5
    )
    return out[..., :channels].transpose(1, 2).flatten(2)


class WindowAttention(nn.Module):
    """Self-attention within windows, and mutual attention between the two frames of each.

    Self-attention knows positions by a learnt bias for every relative one. In mutual attention
    each frame asks the other one (equations 3 to 5), and positions are sines added to both.

    Args:
        channels: C.
        window: t, h, w; two frames where `mutual`.
        num_heads: attention heads.
        mutual: join mutual attention to self-attention.
    """

    relative_position_index: Tensor
    position_bias: Tensor

    def __init__(self, channels: int, window: Size, num_heads: int, mutual: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.mutual = mutual
        t, h, w = window
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * t - 1) * (2 * h - 1) * (2 * w - 1), num_heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv_self = nn.Linear(channels, 3 * channels)
        if mutual:
            self.register_buffer("position_bias", sine_positions(h, w, channels))
            self.qkv_mut = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear((1 + mutual) * channels, channels)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B*M, N, C) for `windows` of that shape and a `mask` (M, N, N) to add."""
        length = windows.shape[1]
        rows = self.relative_position_index[:length, :length]
        bias = self.relative_position_bias_table[rows].permute(2, 0, 1)[None]
        if mask is not None:
            bias = bias + mask[:, None]
        query, key, value = self._heads(self.qkv_self(windows))
        out = attend(query, key, value, bias)
        if self.mutual:
            out = torch.cat((self._between_frames(windows, mask), out), -1)
        return self.proj(out)

    def _between_frames(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Return what each frame finds in the other one, (B*M, N, C).

        Pixels are kept apart by where they lie within a frame, whatever the frame.
        """
        half = windows.shape[1] // 2
        bias = None if mask is None else mask[:, None, :half, :half]
        query, key, value = self._heads(self.qkv_mut(windows + self.position_bias.repeat(1, 2, 1)))
        first = attend(query[:, :, half:], key[:, :, :half], value[:, :, :half], bias)
        second = attend(query[:, :, :half], key[:, :, half:], value[:, :, half:], bias)
        return torch.cat((first, second), 1)

    def _heads(self, qkv: Tensor) -> Sequence[Tensor]:
        """Part (B*M, N, 3*C) into query, key and value, (B*M, heads, N, C/heads) each."""
        return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class GatedPerceptron(nn.Module):
    """Two layers, of which the first is weighed by a gate of its own."""

    def __init__(self, channels: int, hidden: int, out_channels: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(channels, hidden)
        self.fc12 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc11(x)) * self.fc12(x))


class AttentionBlock(nn.Module):
    """Attention in windows, shifted or not, and a gated perceptron, both residual.

    Args:
        channels: C.
        window: t, h, w.
        shift: of the windows; zeros: not shifted.
        num_heads: attention heads.
        mutual: join mutual attention between two frames.
        mlp_ratio: hidden channels of the perceptron over `channels`.
        drop_path: rate of stochastic depth.
    """

    def __init__(
        self,
        channels: int,
        window: Size,
        shift: Size,
        num_heads: int,
        *,
        mutual: bool,
        mlp_ratio: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window, num_heads, mutual)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = GatedPerceptron(channels, int(channels * mlp_ratio), channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B, T, H, W, C) for `x` of that shape and the `shift_mask` of T, H and W."""
        x = x + self.drop_path(self._attend(self.norm1(x), mask))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        size = (x.shape[1], x.shape[2], x.shape[3])
        window, shift = fit_window(size, self.window, self.shift)
        full = padded_size(size, window)
        if full != size:
            t, h, w = (new - old for new, old in zip(full, size, strict=True))
            x = functional.pad(x, (0, 0, 0, w, 0, h, 0, t))
        shifted = any(shift)
        if shifted:
            x = x.roll([-step for step in shift], (1, 2, 3))
        windows = self.attn(split_windows(x, window), mask if shifted else None)
        x = join_windows(windows, window, full)
        if shifted:
            x = x.roll(shift, (1, 2, 3))
        return x[:, : size[0], : size[1], : size[2]] if full != size else x


class AttentionGroup(nn.Module):
    """Blocks in a row, every second one shifted by half a window."""

    def __init__(
        self,
        channels: int,
        window: Size,
        num_heads: int,
        *,
        mutual: bool,
        mlp_ratio: float,
        drop_paths: Sequence[float],
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.gradient_checkpointing = gradient_checkpointing
        self.blocks = nn.ModuleList(
            AttentionBlock(
                channels,
                window,
                self.shift if index % 2 else (0, 0, 0),
                num_heads,
                mutual=mutual,
                mlp_ratio=mlp_ratio,
                drop_path=drop_path,
            )
            for index, drop_path in enumerate(drop_paths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, T, H, W, C) for `x` of that shape."""
        size = (x.shape[1], x.shape[2], x.shape[3])
        window, shift = fit_window(size, self.window, self.shift)
        mask = shift_mask(padded_size(size, window), window, shift, x.device)
        recompute = self.gradient_checkpointing and self.training
        for block in self.blocks:
            x = run_block(block, x, mask, recompute=recompute, random=True)
        return x
