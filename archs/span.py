"""SPAN: a fast convolutional network whose attention has no parameters of its own.

Reference: Swift Parameter-free Attention Network for Efficient Super-Resolution, C. Wan et al.,
CVPRW 2024, https://arxiv.org/abs/2311.12770.
Names in the state dict are those of https://github.com/hongyuanyu/SPAN. By an entry `no_norm`,
which is no weight, other programs say that the input is taken as it is: img_range 1, rgb_mean 0.
"""

import math
from collections.abc import Mapping, Sequence

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
    without_autocast,
)
from sr_train.api.errors import ConfigError
from sr_train.api.names import Argument, Shape
from sr_train.api.network import NetSpec

_UNCHANGED = "no_norm"
"""How other programs mark weights of networks that take the input as it is."""

WIDENING = 2
"""How many times wider the inner channels of a branched convolution are."""


class _Kernel(nn.Module):
    """A derived 3x3 kernel and bias; nothing is learnt here."""

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out_channels, in_channels, 3, 3))
        self.register_buffer("bias", torch.zeros(out_channels))


def _weights(conv: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return at_least_fp32(conv.weight), at_least_fp32(conv.bias)


class BranchedConv(nn.Module):
    """A 3x3 convolution written as 1x1, 3x3, 1x1 in a row plus a 1x1 skip.

    The branches are linear, so forward folds their weights into one 3x3 kernel and convolves
    once, in training too: the gradients are those of the branches, which together would cost
    about six times the arithmetic. `eval_conv` holds that kernel in saved weights for loaders
    that read it there; forward never does, so it cannot be out of date.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        wide_in, wide_out = WIDENING * in_channels, WIDENING * out_channels
        self.sk = nn.Conv2d(in_channels, out_channels, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, wide_in, 1),
            nn.Conv2d(wide_in, wide_out, 3),
            nn.Conv2d(wide_out, out_channels, 1),
        )
        self.eval_conv = _Kernel(in_channels, out_channels)
        self.register_state_dict_pre_hook(_refresh_eval_conv)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the kernel (O, I, 3, 3) and bias (O,), computed in float32 or wider.

        Padding the input with zeros before the first 1x1 lets its bias reach the border, just
        as one 3x3 convolution of a zero-padded input does; so the fold is exact there as well.
        """
        with without_autocast(self.sk.weight):
            (inner, inner_bias), (kernel, bias), (outer, outer_bias), (skip, skip_bias) = (
                _weights(layer) for layer in (*self.conv, self.sk)
            )
            inner, outer = inner.flatten(1), outer.flatten(1)
            bias = outer @ (kernel.sum((2, 3)) @ inner_bias + bias) + outer_bias + skip_bias
            kernel = torch.einsum("op,pqhw->oqhw", outer, kernel)
            weight = torch.einsum("oqhw,qi->oihw", kernel, inner)
            weight = weight + functional.pad(skip, (1, 1, 1, 1))
        return weight, bias

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.folded()
        dtype = self.sk.weight.dtype
        return functional.conv2d(x, weight.to(dtype), bias.to(dtype), padding=1)


def _refresh_eval_conv(module: nn.Module, prefix: str, keep_vars: bool) -> None:
    """Bring the saved kernel up to date whenever a state dict is taken."""
    assert isinstance(module, BranchedConv)
    with torch.no_grad():
        weight, bias = module.folded()
        module.eval_conv.weight.copy_(weight)
        module.eval_conv.bias.copy_(bias)


class MergedConv(nn.Module):
    """The 3x3 convolution that a branched one amounts to."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.eval_conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.eval_conv(x)


class AttentionBlock(nn.Module):
    """Three convolutions, whose result weighs itself by an odd function of its values."""

    def __init__(self, conv: type[BranchedConv] | type[MergedConv], channels: int) -> None:
        super().__init__()
        self.c1_r = conv(channels, channels)
        self.c2_r = conv(channels, channels)
        self.c3_r = conv(channels, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's result and its first activation."""
        first = functional.silu(self.c1_r(x))
        third = self.c3_r(functional.silu(self.c2_r(first)))
        return (third + x) * (torch.sigmoid(third) - 0.5), first


class SPAN(nn.Module):
    """Six attention blocks, four of whose features are fused and shuffled up.

    Args:
        scale: 1 to 8; published for 2 and 4.
        in_channels: channels of `lq`.
        out_channels: channels of `pred`.
        num_feat: channels of the features; published with 52 and, as SPAN-S, 48.
        img_range: factor on the input after the mean is taken off; the output, in [0, 1], is
            not scaled back. Published weights need 255; neutral 1.
        rgb_mean: one value in [0, 1] for each input channel; neutral 0. None: the mean of the
            published weights for three channels, else 0.
        reparameterised: build plain 3x3 convolutions, to use or fine-tune a merged network; see
            `merged`. Their weights are the `eval_conv` entries of the branched form.
        gradient_checkpointing: in training, store only each block's input and compute the rest
            again in the backward pass.

    Raises:
        ConfigError: an unsupported scale, number of channels, range or mean.
    """

    mean: Tensor

    def __init__(
        self,
        scale: int,
        in_channels: int = 3,
        out_channels: int = 3,
        num_feat: int = 48,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] | None = None,
        reparameterised: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_choice("SPAN", "scale", scale, SHUFFLE_SCALES)
        check_count("SPAN", "in_channels", in_channels)
        check_count("SPAN", "out_channels", out_channels)
        check_count("SPAN", "num_feat", num_feat)
        if img_range <= 0:
            raise ConfigError(f"SPAN: img_range must be above 0; got {img_range}")
        if rgb_mean is None:
            rgb_mean = (0.4488, 0.4371, 0.4040) if in_channels == 3 else (0.0,) * in_channels
        if len(rgb_mean) != in_channels:
            raise ConfigError(
                f"SPAN: rgb_mean must have in_channels ({in_channels}) values; got {rgb_mean}"
            )
        # One pixel for conv_1, three for each block, one each for conv_2 and the upsampler.
        self.spec = NetSpec(
            scale=scale,
            in_channels=in_channels,
            out_channels=out_channels,
            colour=colour_of(in_channels, out_channels),
            receptive_field=21,
        )
        self.num_feat = num_feat
        self.img_range = img_range
        self.rgb_mean = tuple(map(float, rgb_mean))
        self.reparameterised = reparameterised
        self.gradient_checkpointing = gradient_checkpointing
        self.register_buffer(
            "mean", torch.tensor(tuple(rgb_mean)).view(1, -1, 1, 1), persistent=False
        )
        conv = MergedConv if reparameterised else BranchedConv
        self.conv_1 = conv(in_channels, num_feat)
        self.block_1 = AttentionBlock(conv, num_feat)
        self.block_2 = AttentionBlock(conv, num_feat)
        self.block_3 = AttentionBlock(conv, num_feat)
        self.block_4 = AttentionBlock(conv, num_feat)
        self.block_5 = AttentionBlock(conv, num_feat)
        self.block_6 = AttentionBlock(conv, num_feat)
        self.conv_cat = nn.Conv2d(4 * num_feat, num_feat, 1)
        self.conv_2 = conv(num_feat, num_feat)
        self.upsampler = nn.Sequential(
            nn.Conv2d(num_feat, out_channels * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )

    def own_name(self, name: str) -> str | None:
        """Return None for a mark that the input is taken as it is, where it is."""
        unchanged = self.img_range == 1 and not any(self.rgb_mean)
        return None if name == _UNCHANGED and unchanged else name

    def arguments_in(self, shapes: Mapping[str, Shape]) -> dict[str, Argument] | None:
        """Read off the arguments of the SPAN that weights are of, see `Describes`."""
        first = shapes.get("conv_1.eval_conv.weight", ())
        last = shapes.get("upsampler.0.weight", ())
        if len(first) != 4 or len(last) != 4:
            return None
        told: dict[str, Argument] = {
            "scale": math.isqrt(last[0] // self.spec.out_channels),
            "in_channels": first[1],
            "num_feat": first[0],
            "reparameterised": "conv_1.sk.weight" not in shapes,
            "img_range": self.img_range,
            "rgb_mean": list(self.rgb_mean),
        }
        if _UNCHANGED in shapes:
            told |= {"img_range": 1.0, "rgb_mean": [0.0] * first[1]}
        return told

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, out_channels, H*scale, W*scale) for `lq` (B, in_channels, H, W) in [0, 1]."""
        recompute = self.gradient_checkpointing and self.training
        shallow = self.conv_1((lq - self.mean) * self.img_range)
        early, _ = run_block(self.block_1, shallow, recompute=recompute)
        x = early
        for block in (self.block_2, self.block_3, self.block_4, self.block_5):
            x, _ = run_block(block, x, recompute=recompute)
        x, late = run_block(self.block_6, x, recompute=recompute)
        fused = self.conv_cat(torch.cat((shallow, self.conv_2(x), early, late), 1))
        return self.upsampler(fused)

    def merged(self) -> "SPAN":
        """Return a reparameterised copy: the same function with fewer weights, and faster.

        The copy has this network's device, precision and mode, and shares nothing with it.
        """
        weight = self.conv_cat.weight
        copy = SPAN(
            scale=self.spec.scale,
            in_channels=self.spec.in_channels,
            out_channels=self.spec.out_channels,
            num_feat=self.num_feat,
            img_range=self.img_range,
            rgb_mean=self.rgb_mean,
            reparameterised=True,
            gradient_checkpointing=self.gradient_checkpointing,
        ).to(weight.device, weight.dtype)
        state = self.state_dict()
        copy.load_state_dict({name: state[name] for name in copy.state_dict()})
        return copy.train(self.training)
