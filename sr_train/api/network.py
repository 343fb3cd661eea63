"""What a network says about itself: the facts that data, tiling and export need."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class NetSpec:
    """The contract between a generator and the framework; `net.spec` holds one.

    All lengths are pixels on the LQ grid, or frames.
    """

    scale: int
    """Integer upscaling factor; 1 for restoration."""
    in_channels: int = 3
    """Channels of `lq`, without those of `extra_inputs`."""
    out_channels: int = 3
    """Channels of `pred`."""
    colour: Literal["rgb", "y"] = "rgb"
    """`y`: the network sees and produces BT.601 studio-range luma only."""
    size_multiple: int = 1
    """Grid on which tile origins must lie for a tile to equal the whole: what both sides of an
    input are padded up to a multiple of; neutral: 1."""
    min_size: int = 1
    """Smallest side below which inputs are padded; neutral: 1."""
    pads_inside: bool = True
    """True: the network pads by itself, so it takes inputs of any size. False: inputs are mirrored
    at their right and bottom before it, as the two lengths above say, and its output is cut."""
    receptive_field: int | None = None
    """Radius: how far to each side an input pixel can influence an output pixel. None: unbounded
    (global pooling, shifted windows), so tiling is a blend and not exact."""
    takes_clips: bool = False
    """True: from (B, T, C, H, W) to (B, T, out_channels, H*scale, W*scale), one frame for each;
    False: the same without T."""
    time_field: int | None = 0
    """Radius in frames: how far to each side an input frame can influence an output frame. None:
    unbounded (recurrence), so chunks of a long clip are blended. Read where `takes_clips`."""
    min_frames: int = 1
    """Fewest frames of a clip."""
    extra_inputs: Mapping[str, int] = field(default_factory=dict)
    """Further inputs on the LQ grid by name, such as `spikes`, and their channels; they follow
    those of `lq` in the network's input, in this order."""
    weight_files: tuple[str, ...] = ()
    """Arguments of the constructor that name files of weights to start from. Trained weights hold
    what became of those, so the card of such a file leaves them out."""
