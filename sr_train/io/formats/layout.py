"""What the readers of all image formats have in common."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Dtype = Literal["uint8", "uint16"]
Planes = tuple[np.ndarray, np.ndarray | None]
"""(H, W, 1 or 3) contiguous colours, and (H, W) alpha of the same dtype or none."""

_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
"""What is still mirrored when 5..8 are transposed, in OpenCV's terms: 1 across, 0 down, -1 both."""

MAX_SIDE = 1 << 20
"""Pixels; no format's reader goes beyond."""


class UnusableError(Exception):
    """Why a file cannot be used; whoever knows its path says it before these words."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a file's header says about its image, before the orientation is applied."""

    height: int
    width: int
    channels: int
    """Colours, 1 or 3; alpha not counted."""
    has_alpha: bool
    dtype: Dtype
    orientation: int = 1
    """EXIF's, 1..8."""

    def __post_init__(self) -> None:
        if not (0 < self.height <= MAX_SIDE and 0 < self.width <= MAX_SIDE):
            raise UnusableError(
                f"damaged or not supported: its header says {self.width}x{self.height} pixels; "
                f"expected sides from 1 to {MAX_SIDE}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the colours, as stored."""
        return self.height, self.width, self.channels

    def empty(self) -> Planes:
        """Return arrays of the image's shape, to be filled."""
        pixels = np.empty(self.shape, self.dtype)
        alpha = np.empty((self.height, self.width), self.dtype) if self.has_alpha else None
        return pixels, alpha


def unpacked(rows: np.ndarray, bits: int, width: int) -> np.ndarray:
    """Return (H, width) uint8 of samples of 1, 2 or 4 bits, the first in the highest bits."""
    if bits == 1:
        return np.unpackbits(rows, axis=1, count=width)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    parts = (rows[:, :, None] >> shifts) & np.uint8((1 << bits) - 1)
    return parts.reshape(rows.shape[0], -1)[:, :width]


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation (1..8) of a contiguous (H, W, ...) array, which may be reused."""
    shape = pixels.shape
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
        shape = (shape[1], shape[0], *shape[2:])
    if orientation in _FLIPS:
        pixels = cv2.flip(pixels, _FLIPS[orientation], dst=pixels)
    return pixels.reshape(shape)
