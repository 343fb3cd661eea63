"""What images and sequences must be to be used."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from data.index.arguments import Range
from data.index.selecting import Selection


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What an image or a sequence must be to be used."""

    scale: int
    lq_size: int | None = None
    """Side of the training crop in LQ pixels; None: any size will do."""
    selection: Selection = field(default_factory=Selection)
    """Held against the path below the root, with and without suffix; of a scene, also against
    that of its folder."""
    num_frames: int = 1
    """Frames from the first to the last of a clip."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Pattern -> (first, end): the frames used of a sequence, counted from 0 in their order, `end`
    not among them; None: to the last."""
