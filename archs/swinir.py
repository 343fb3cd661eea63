"""SwinIR: residual groups of shifted-window attention, with a head for each kind of task.

Reference: SwinIR: Image Restoration Using Swin Transformer, J. Liang, J. Cao, G. Sun, K. Zhang,
L. Van Gool, R. Timofte, ICCVW 2021, https://arxiv.org/abs/2108.10257.
Names in the state dict are those of https://github.com/JingyunLiang/SwinIR.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from archs.common import check_choice, check_count, colour_of
from archs.swin_layers import ResidualGroup, SwinBlock, shift_mask
from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from sr_train.ops.padding import pad_to

HEAD_FEAT = 64
"""Channels of the heads that work on the enlarged grid."""

SCALES = {
    "pixelshuffle": (2, 3, 4, 8),
    "pixelshuffledirect": (1, 2, 3, 4, 5, 6, 7, 8),
    "nearest+conv": (2, 4),
    "": (1,),
}
"""The scales of each `upsampler`."""


def _body_conv(channels: int, connection: str) -> nn.Module:
    """Return the convolution, or the bottleneck of three, that closes a residual."""
    if connection == "1conv":
        return nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(
        nn.Conv2d(channels, channels // 4, 3, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(channels // 4, channels // 4, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(channels // 4, channels, 3, padding=1),
    )


def _shuffles(scale: int) -> nn.Sequential:
    """Return pixel shuffles by 2, or one by 3, each after its convolution."""
    factors = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
    layers: list[nn.Module] = []
    for factor in factors:
        layers.append(nn.Conv2d(HEAD_FEAT, HEAD_FEAT * factor**2, 3, padding=1))
        layers.append(nn.PixelShuffle(factor))
    return nn.Sequential(*layers)


class SwinIR(nn.Module):
    """Restore or upscale with windowed self-attention.

    Published forms: classical (the defaults; `img_size` 48 or 64), lightweight (`embed_dim` 60,
    four groups, `pixelshuffledirect`), real-world (`nearest+conv`; large: `embed_dim` 240, nine
    groups, 8 heads, `3conv`), denoising (scale 1, `upsampler` empty, `img_size` 128), JPEG (the
    same with `window_size` 7, `img_size` 126, `img_range` 255).

    Args:
        scale: those of the head, see `SCALES`.
        in_channels: channels of `lq`.
        out_channels: channels of `pred`; None: as many as those of `lq`. Without a head, the
            first ones of `lq` are added to the result.
        upsampler: the head: `pixelshuffle`, `pixelshuffledirect`, `nearest+conv`, or empty for a
            residual at scale 1.
        window_size: side of an attention window, LQ pixels; at least 2.
        embed_dim: channels of the features; a multiple of every entry of `num_heads`.
        depths: Swin blocks in each residual group.
        num_heads: attention heads in each residual group.
        mlp_ratio: hidden channels of the perceptrons over `embed_dim`.
        resi_connection: `1conv` or, for less memory, `3conv`.
        img_size: side of the image whose masks a state dict carries, LQ pixels: a multiple of
            `window_size` above it. No effect on the result; images of any size go in.
        img_range: factor on the input, taken off the output; neutral 1.
        drop_path_rate: stochastic depth of the last block, growing from 0 in the first.
        gradient_checkpointing: in training, store only each block's input and compute the rest
            again in the backward pass: much less memory, about a third more time.

    Raises:
        ConfigError: an unsupported head, scale, size or number.
    """

    mean: Tensor

    def __init__(
        self,
        scale: int,
        in_channels: int = 3,
        out_channels: int | None = None,
        upsampler: str = "pixelshuffle",
        window_size: int = 8,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        mlp_ratio: float = 2.0,
        resi_connection: str = "1conv",
        img_size: int = 64,
        img_range: float = 1.0,
        drop_path_rate: float = 0.1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_choice("SwinIR", "upsampler", upsampler, tuple(SCALES))
        check_choice("SwinIR", f"scale (upsampler {upsampler!r})", scale, SCALES[upsampler])
        check_choice("SwinIR", "resi_connection", resi_connection, ("1conv", "3conv"))
        check_count("SwinIR", "in_channels", in_channels)
        out_channels = in_channels if out_channels is None else out_channels
        check_count("SwinIR", "out_channels", out_channels)
        if upsampler == "" and 1 < in_channels < out_channels:
            raise ConfigError(
                f"SwinIR: in_channels (upsampler '') must be 1 or at least out_channels "
                f"({out_channels}), as the input is added to the result; got {in_channels}"
            )
        check_count("SwinIR", "embed_dim", embed_dim, least=4)
        _check_attention(embed_dim, depths, num_heads)
        _check_window(window_size, img_size)
        _check_numbers(mlp_ratio, img_range, drop_path_rate)
        self.spec = NetSpec(
            scale=scale,
            in_channels=in_channels,
            out_channels=out_channels,
            colour=colour_of(in_channels, out_channels),
            size_multiple=window_size,
            min_size=window_size,
        )
        self.window_size = window_size
        self.img_range = img_range
        self.upsampler = upsampler
        known = in_channels == out_channels == 3
        mean = torch.tensor((0.4488, 0.4371, 0.4040) if known else (0.0,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.conv_first = nn.Conv2d(in_channels, embed_dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)})
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.layers = nn.ModuleList()
        for depth, heads in zip(depths, num_heads, strict=True):
            blocks = [
                SwinBlock(
                    embed_dim,
                    window_size,
                    heads,
                    shifted=bool(index % 2),
                    mlp_ratio=mlp_ratio,
                    drop_path=next(rates),
                    img_size=img_size,
                )
                for index in range(depth)
            ]
            conv = _body_conv(embed_dim, resi_connection)
            self.layers.append(ResidualGroup(blocks, conv, gradient_checkpointing))
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = _body_conv(embed_dim, resi_connection)
        self._build_head(embed_dim)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _build_head(self, embed_dim: int) -> None:
        scale, out_channels = self.spec.scale, self.spec.out_channels
        if self.upsampler == "":
            self.conv_last = nn.Conv2d(embed_dim, out_channels, 3, padding=1)
            return
        if self.upsampler == "pixelshuffledirect":
            self.upsample = nn.Sequential(
                nn.Conv2d(embed_dim, out_channels * scale**2, 3, padding=1), nn.PixelShuffle(scale)
            )
            return
        self.conv_before_upsample = nn.Sequential(
            nn.Conv2d(embed_dim, HEAD_FEAT, 3, padding=1), nn.LeakyReLU(inplace=True)
        )
        if self.upsampler == "pixelshuffle":
            self.upsample = _shuffles(scale)
        else:
            self.conv_up1 = nn.Conv2d(HEAD_FEAT, HEAD_FEAT, 3, padding=1)
            if scale == 4:
                self.conv_up2 = nn.Conv2d(HEAD_FEAT, HEAD_FEAT, 3, padding=1)
            self.conv_hr = nn.Conv2d(HEAD_FEAT, HEAD_FEAT, 3, padding=1)
        self.conv_last = nn.Conv2d(HEAD_FEAT, out_channels, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, out_channels, H*scale, W*scale) for `lq` (B, in_channels, H, W) in [0, 1]."""
        height, width = lq.shape[-2:]
        x = (pad_to(lq, self.window_size) - self.mean) * self.img_range
        shallow = self.conv_first(x)
        features = shallow + self.conv_after_body(self._body(shallow))
        if self.upsampler == "":
            pred = x[:, : self.spec.out_channels] + self.conv_last(features)
        else:
            pred = self._enlarge(features)
        pred = pred / self.img_range + self.mean
        return pred[..., : height * self.spec.scale, : width * self.spec.scale]

    def _body(self, features: Tensor) -> Tensor:
        """Run the residual groups on (B, C, H, W)."""
        height, width = features.shape[-2:]
        mask = shift_mask(height, width, self.window_size, features.device)
        x = self.patch_embed["norm"](features.permute(0, 2, 3, 1))
        for group in self.layers:
            x = group(x, mask)
        return self.norm(x).permute(0, 3, 1, 2)

    def _enlarge(self, features: Tensor) -> Tensor:
        """Return (B, out_channels, H*scale, W*scale) for features (B, C, H, W)."""
        if self.upsampler == "pixelshuffledirect":
            return self.upsample(features)
        x = self.conv_before_upsample(features)
        if self.upsampler == "pixelshuffle":
            return self.conv_last(self.upsample(x))
        x = _double_and_convolve(x, self.conv_up1)
        if self.spec.scale == 4:
            x = _double_and_convolve(x, self.conv_up2)
        return self.conv_last(functional.leaky_relu(self.conv_hr(x), 0.2))


def _double_and_convolve(x: Tensor, conv: nn.Module) -> Tensor:
    return functional.leaky_relu(conv(functional.interpolate(x, scale_factor=2.0)), 0.2)


def _check_attention(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
    if not depths or len(depths) != len(num_heads):
        raise ConfigError(
            "SwinIR: depths and num_heads must be of the same length, at least 1; "
            f"got {list(depths)} and {list(num_heads)}"
        )
    for index, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
        check_count("SwinIR", f"depths[{index}]", depth)
        check_count("SwinIR", f"num_heads[{index}]", heads)
        if embed_dim % heads:
            raise ConfigError(
                f"SwinIR: embed_dim ({embed_dim}) must be a multiple of num_heads[{index}]; "
                f"got {heads}"
            )


def _check_window(window_size: int, img_size: int) -> None:
    check_count("SwinIR", "window_size", window_size, least=2)
    check_count("SwinIR", "img_size", img_size)
    if img_size % window_size or img_size <= window_size:
        below = max(img_size // window_size, 2) * window_size
        raise ConfigError(
            f"SwinIR: img_size must be a multiple of window_size ({window_size}) above it; "
            f"got {img_size}, nearest: {below}, {below + window_size}"
        )


def _check_numbers(mlp_ratio: float, img_range: float, drop_path_rate: float) -> None:
    if mlp_ratio <= 0:
        raise ConfigError(f"SwinIR: mlp_ratio must be above 0; got {mlp_ratio}")
    if img_range <= 0:
        raise ConfigError(f"SwinIR: img_range must be above 0; got {img_range}")
    if not 0 <= drop_path_rate < 1:
        raise ConfigError(f"SwinIR: drop_path_rate must be in [0, 1); got {drop_path_rate}")
