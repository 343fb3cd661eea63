"""SRVGGNetCompact: a plain stack of 3x3 convolutions on the LQ grid, then one pixel shuffle.

Reference: Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data,
X. Wang, L. Xie, C. Dong, Y. Shan, ICCVW 2021, https://arxiv.org/abs/2107.10833.
The network comes with that paper's code; names in the state dict are those of
https://github.com/XPixelGroup/BasicSR and https://github.com/xinntao/Real-ESRGAN.
"""

import math
import re
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from archs.common import SHUFFLE_SCALES, check_choice, check_count, colour_of
from sr_train.api.errors import ConfigError
from sr_train.api.names import Argument, Shape
from sr_train.api.network import NetSpec

_CONV = re.compile(r"body\.\d{1,9}\.weight")


def _number(name: str) -> int:
    return int(name.split(".")[1])


def _is_square(number: int, divisor: int) -> bool:
    """Tell whether a number divides into a square."""
    if divisor < 1 or number % divisor:
        return False
    return math.isqrt(number // divisor) ** 2 == number // divisor


def _activation(name: str, channels: int) -> nn.Module:
    if name == "prelu":
        return nn.PReLU(channels)
    if name == "relu":
        return nn.ReLU(inplace=True)
    return nn.LeakyReLU(0.1, inplace=True)


class SRVGGNetCompact(nn.Module):
    """Learn the difference from nearest-neighbour upscaling.

    Args:
        scale: 1 to 8.
        in_channels: channels of `lq`: 1, or at least `out_channels`, whose upscaled first ones
            are added to the result.
        out_channels: channels of `pred`.
        num_feat: channels of the body.
        num_conv: convolutions between the first and the last.
        activation: `prelu`, `relu` or `leakyrelu` (slope 0.1).

    Raises:
        ConfigError: an unsupported scale, activation or number of channels.
    """

    def __init__(
        self,
        scale: int,
        in_channels: int = 3,
        out_channels: int = 3,
        num_feat: int = 64,
        num_conv: int = 16,
        activation: str = "prelu",
    ) -> None:
        super().__init__()
        name = "SRVGGNetCompact"
        check_choice(name, "scale", scale, SHUFFLE_SCALES)
        check_count(name, "in_channels", in_channels)
        check_count(name, "out_channels", out_channels)
        check_count(name, "num_feat", num_feat)
        check_count(name, "num_conv", num_conv, least=0)
        check_choice(name, "activation", activation, ("prelu", "relu", "leakyrelu"))
        if 1 < in_channels < out_channels:
            raise ConfigError(
                f"{name}: in_channels must be 1 or at least out_channels ({out_channels}), as the "
                f"upscaled input is added to the result; got {in_channels}"
            )
        self.spec = NetSpec(
            scale=scale,
            in_channels=in_channels,
            out_channels=out_channels,
            colour=colour_of(in_channels, out_channels),
            receptive_field=num_conv + 2,
        )
        layers: list[nn.Module] = []
        for channels in (in_channels, *[num_feat] * num_conv):
            layers.append(nn.Conv2d(channels, num_feat, 3, padding=1))
            layers.append(_activation(activation, num_feat))
        layers.append(nn.Conv2d(num_feat, out_channels * scale**2, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def arguments_in(self, shapes: Mapping[str, Shape]) -> dict[str, Argument] | None:
        """Read off the arguments of the network that weights are of, see `Describes`."""
        convs = {name: shape for name, shape in shapes.items() if len(shape) == 4}
        if len(convs) < 2 or not all(map(_CONV.fullmatch, convs)):
            return None
        first, *_, last = (convs[name] for name in sorted(convs, key=_number))
        # Of colours that may be: those of this network, of the input, grey.
        colours = [c for c in (self.spec.out_channels, first[1], 1) if _is_square(last[0], c)]
        if not colours:
            return None
        return {
            "scale": math.isqrt(last[0] // colours[0]),
            "in_channels": first[1],
            "out_channels": colours[0],
            "num_feat": first[0],
            "num_conv": len(convs) - 2,
        }

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, out_channels, H*scale, W*scale) for `lq` (B, in_channels, H, W)."""
        residual = functional.pixel_shuffle(self.body(lq), self.spec.scale)
        base = lq[:, : self.spec.out_channels]
        return residual + functional.interpolate(base, scale_factor=float(self.spec.scale))
