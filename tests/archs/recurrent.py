"""The published layouts of BasicVSR and BasicVSR++, written down once for their tests."""

import math
from collections.abc import Callable, Iterator

from torch import nn

Shapes = dict[str, tuple[int, ...]]


def conv(place: str, out_channels: int, in_channels: int, side: int = 3) -> Shapes:
    return {
        f"{place}.weight": (out_channels, in_channels, side, side),
        f"{place}.bias": (out_channels,),
    }


def residual(place: str, in_channels: int, channels: int, num_blocks: int) -> Shapes:
    shapes = conv(f"{place}.main.0", channels, in_channels)
    for block in range(num_blocks):
        for number in (1, 2):
            shapes |= conv(f"{place}.main.2.{block}.conv{number}", channels, channels)
    return shapes


def flow() -> Shapes:
    channels = (8, 32, 64, 32, 16, 2)
    shapes: Shapes = {"spynet.mean": (1, 3, 1, 1), "spynet.std": (1, 3, 1, 1)}
    for level in range(6):
        for number in range(5):
            place = f"spynet.basic_module.{level}.basic_module.{number}.conv"
            shapes |= conv(place, channels[number + 1], channels[number], 7)
    return shapes


def tail(channels: int = 64) -> Shapes:
    return (
        conv("upsample1.upsample_conv", 4 * channels, channels)
        | conv("upsample2.upsample_conv", 256, channels)
        | conv("conv_hr", 64, 64)
        | conv("conv_last", 3, 64)
    )


def in_basicsr(name: str) -> str:
    """Return what BasicSR calls a parameter of mmagic."""
    first, _, rest = name.partition(".")
    if first == "spynet" and rest.startswith("basic_module"):
        _, level, _, number, _, kind = rest.split(".")
        return f"spynet.basic_module.{level}.basic_module.{2 * int(number)}.{kind}"
    first = first.replace("_resblocks", "_trunk").replace("upsample", "upconv")
    return f"{first}.{rest.removeprefix('upsample_conv.')}"


def own_shapes(net: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def renamed(shapes: Shapes, rename: Callable[[str], str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((rename(name), shape) for name, shape in shapes.items())


def count(net: nn.Module) -> int:
    return sum(math.prod(weights.shape) for weights in net.parameters())
