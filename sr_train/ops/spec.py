"""What a network says about itself: the facts that data, tiling and export need."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class NetSpec:
    """The contract between a generator and the framework; `net.spec` holds one.

    All lengths are pixels on the LQ grid.
    """

    scale: int
    """Integer upscaling factor; 1 for restoration."""
    in_channels: int = 3
    """Channels of `lq`."""
    out_channels: int = 3
    """Channels of `pred`."""
    colour: Literal["rgb", "y"] = "rgb"
    """`y`: the network sees and produces BT.601 studio-range luma alone."""
    size_multiple: int = 1
    """Grid on which tile origins must lie for a tile to equal the whole; neutral: 1. The network
    pads inside, so inputs of any size are accepted."""
    min_size: int = 1
    """Smallest side below which the network pads inside; neutral: 1."""
    receptive_field: int | None = None
    """Radius: how far to each side an input pixel can influence an output pixel. None: unbounded
    (global pooling, shifted windows), so tiling is a blend and not exact."""
