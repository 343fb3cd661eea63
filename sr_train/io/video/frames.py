"""Read video files frame by frame: (H, W, 3) RGB, uint8, or uint16 where the file has more bits.

The matrix and range that a file names are used; where it names none, BT.709 above 576 lines or
from 1280 columns and BT.601 below, studio range, as players do. Frames are turned and mirrored as
the file says, in quarters. Interlaced frames are taken as they are. Times are seconds, exact,
counted from where the file starts.

Of a damaged file all frames that can be decoded are given, each at its time and with its number;
`Losses` says which are not. Sources are paths or open binary files that can seek. Files come out
of `video_out`.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from sr_train.io.video.colour import (
    BT709,
    Colour,
    Orientation,
    ToRGB,
    bits_of,
    orientation_of,
    usual_matrix,
)
from sr_train.io.video.index import FrameIndex, build_index
from sr_train.io.video.info import VideoInfo, probe
from sr_train.io.video.losses import Losses
from sr_train.io.video.reader import FrameReader
from sr_train.io.video.source import Source, open_video, start_of
from sr_train.io.video.timeline import walk

__all__ = [
    "BT709",
    "Colour",
    "FrameIndex",
    "FrameReader",
    "Losses",
    "Orientation",
    "Source",
    "TimedFrame",
    "VideoInfo",
    "build_index",
    "open_video",
    "probe",
    "read_frames",
    "read_timed_frames",
    "start_of",
    "usual_matrix",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TimedFrame:
    """A frame and its place in the video."""

    pixels: np.ndarray
    """(H, W, 3), RGB, uint8 or uint16, contiguous."""
    time: Fraction
    """Seconds since the file's start."""
    number: int
    """Counted from 0; frames that are missing have numbers too."""


def read_frames(source: Source, start: int = 0) -> Iterator[np.ndarray]:
    """Yield the frames from number `start` on, (H, W, 3) RGB, without a gap.

    Raises:
        DataError: no such file, no video in it, or at the first frame that is damaged.
    """
    with FrameReader(source) as reader:
        for number in range(start, len(reader)):
            yield reader[number]


def read_timed_frames(
    source: Source, start: int = 0, losses: Losses | None = None
) -> Iterator[TimedFrame]:
    """Yield the frames that can be decoded in the order in which they are shown.

    One is in memory at a time.

    Args:
        source: path, or open binary file that can seek.
        start: number of the first frame; those before it are decoded and dropped.
        losses: takes what could not be read, complete at the end; None: a warning says so.

    Raises:
        DataError: no such file, no video in it, or none of its frames can be decoded.
    """
    found = Losses() if losses is None else losses
    convert: ToRGB | None = None
    wanted = start
    for placed in walk(source, found):
        if convert is None:
            first = placed.shown.frame
            convert = ToRGB(bits_of(first), orientation_of(first))
        if placed.number >= wanted:
            yield TimedFrame(convert(placed.shown.frame), placed.time, placed.number)
            wanted = placed.number + 1
    if losses is None and found:
        log.warning("%s: %s", getattr(source, "name", source), found)
