"""What the samples of a decoded frame mean, and the RGB array that a viewer would see."""

import struct
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

UNSPECIFIED = 2
"""Of matrix, primaries and transfer in `Colour`."""
BT709 = 1
BT601 = 6
# By their numbers, since old versions name few of them: full chroma in and out, exact rounding.
_SCALING = int(Interpolation.BICUBIC) | 0x2000 | 0x4000 | 0x40000
_SWSCALE_MATRICES = {BT709: 1, 4: 4, 5: 5, BT601: 5, 7: 7, 9: 9, 10: 9}
"""From the matrices of H.273 to those of libswscale."""


@dataclass(frozen=True)
class Colour:
    """What the numbers of a video mean, in the codes of ITU-T H.273."""

    matrix: int
    """1: BT.709, 5 and 6: BT.601, 9: BT.2020; never unspecified."""
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class Orientation:
    """How a stored frame is turned and mirrored to be shown: one of eight ways."""

    is_transposed: bool = False
    """Rows and columns are exchanged first."""
    flips_rows: bool = False
    """Top and bottom are exchanged then."""
    flips_columns: bool = False
    """Left and right are exchanged then."""

    def applied(self, pixels: np.ndarray) -> np.ndarray:
        """Return a frame (H, W, C) as it is shown, contiguous."""
        shown = pixels.swapaxes(0, 1) if self.is_transposed else pixels
        rows = slice(None, None, -1 if self.flips_rows else 1)
        columns = slice(None, None, -1 if self.flips_columns else 1)
        return np.ascontiguousarray(shown[rows, columns])

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) as shown."""
        return (height, width) if self.is_transposed else (width, height)


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """Return how a frame is to be turned; the nearest way where its matrix is another one."""
    there = side_data_of(frame)
    if there is None:
        return _from_angle(frame.rotation)
    matrix = there.get("DISPLAYMATRIX")
    if matrix is None or len(memoryview(matrix)) < 20:
        return Orientation()
    # x' = ax + cy, y' = bx + dy, in rows of three of which the third is for perspective.
    a, b, _, c, d = struct.unpack_from("=5i", memoryview(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, flips_rows=d < 0, flips_columns=a < 0)
    return Orientation(True, flips_rows=b < 0, flips_columns=c < 0)


def side_data_of(frame: av.VideoFrame) -> dict[str, Any] | None:
    """Return what a frame carries beside its samples, by kind; None if PyAV does not know."""
    try:
        there: Any = frame.side_data
        return {data.type.name: data for data in there}
    except ValueError:  # of a kind that it does not know
        return None


def _from_angle(degrees: float) -> Orientation:
    """Return the orientation of a counter-clockwise rotation."""
    quarter = round(degrees / 90) % 4
    return Orientation(quarter % 2 == 1, quarter in {1, 2}, quarter in {2, 3})


def bits_of(frame: av.VideoFrame) -> int:
    """Return the bits of a sample."""
    return max(component.bits for component in frame.format.components)


def is_full_range(frame: av.VideoFrame) -> bool:
    """Return whether black is 0."""
    if frame.format.is_rgb or frame.format.name.startswith("yuvj"):
        return True
    return frame.color_range == ColorRange.JPEG.value


def matrix_of(frame: av.VideoFrame) -> int:
    """Return a frame's matrix, or the one that players guess where the file names none."""
    matrix = int(frame.colorspace)
    return matrix if matrix in _SWSCALE_MATRICES else usual_matrix(frame.width, frame.height)


def usual_matrix(width: int, height: int) -> int:
    """Return the matrix of a video of that size that names none."""
    return BT709 if width >= 1280 or height > 576 else BT601


class ToRGB:
    """Turn decoded frames into RGB arrays.

    Args:
        bits: of a sample; more than 8 become 16.
        orientation: how frames are to be turned.
    """

    def __init__(self, bits: int, orientation: Orientation) -> None:
        self._format = "rgb48le" if bits > 8 else "rgb24"
        self._orientation = orientation
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return (H, W, 3), uint8 or uint16, contiguous."""
        matrix = _SWSCALE_MATRICES[matrix_of(frame)]
        rgb: Any = self._reformatter.reformat(
            frame,
            format=self._format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if is_full_range(frame) else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=_SCALING,
        )
        return self._orientation.applied(rgb.to_ndarray())
