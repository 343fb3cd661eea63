"""Read video files frame by frame: (H, W, 3) RGB, uint8, or uint16 where the file has more bits.

The matrix and range that a file names are used; where it names none, BT.709 above 576 lines or
from 1280 columns and BT.601 below, studio range, as players do. A rotation that is a multiple of
90 degrees is applied; a mirroring is not. Interlaced frames are taken as they are. Times are
seconds, exact, counted from where the file starts.

Sources are paths or open binary files that can seek. Files come out of `video_out`.
"""

import logging
import os
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from sr_train.ops.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".mpg", ".mpeg"})
"""Lower-case file name suffixes that are taken for videos."""

Source = str | os.PathLike[str] | BinaryIO

UNSPECIFIED = 2
"""Of matrix, primaries and transfer in `Colour`."""
BT709 = 1
BT601 = 6
# By their numbers, since old versions name few of them: full chroma in and out, exact rounding.
SCALING = int(Interpolation.BICUBIC) | 0x2000 | 0x4000 | 0x40000
"""How libswscale converts colours."""
SWSCALE_MATRICES = {BT709: 1, 4: 4, 5: 5, BT601: 5, 7: 7, 9: 9, 10: 9}
"""From the matrices of H.273 to those of libswscale."""


@dataclass(frozen=True)
class Colour:
    """What the numbers of a video mean, in the codes of ITU-T H.273."""

    matrix: int
    """1: BT.709, 5 and 6: BT.601, 9: BT.2020; never unspecified."""
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is read to its end."""

    width: int
    """Pixels, after the rotation."""
    height: int
    """Pixels, after the rotation."""
    frames: int
    """As many as the file says it has; else duration times rate."""
    frames_exact: bool
    """Whether the file itself counts its frames."""
    fps: Fraction
    """Frames per second; the mean where it varies."""
    duration: Fraction | None
    """Seconds, where the file says so."""
    rotation: int
    """Degrees counter-clockwise by which stored frames are turned: 0, 90, 180 or 270."""
    codec: str
    pixel_format: str
    """FFmpeg's name for what is stored."""
    bits: int
    """Per sample; frames are uint16 above 8."""
    colour: Colour
    is_full_range: bool
    aspect: Fraction
    """Width of a pixel by its height, after the rotation."""
    time_base: Fraction
    """Seconds of one tick of the file's clock."""
    audio: tuple[str, ...]
    """Codec of each audio track."""

    @property
    def dtype(self) -> Literal["uint8", "uint16"]:
        """Return the dtype of its frames."""
        return "uint16" if self.bits > 8 else "uint8"


@dataclass(frozen=True)
class TimedFrame:
    """A frame and when it is shown."""

    pixels: np.ndarray
    """(H, W, 3), RGB, uint8 or uint16, contiguous."""
    time: Fraction | None
    """Seconds since the file's start; None in files that tell no times."""


def probe(source: Source) -> VideoInfo:
    """Return size, rate and kind of a video; its first frame is decoded.

    Raises:
        DataError: no such file, no video in it, or damaged.
    """
    with _opened(source) as (container, name):
        stream = _video_stream(container, name)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise DataError(f"{name}: holds no frame that can be decoded")
        return _info(container, stream, frame, name)


def read_frames(source: Source, start: int = 0) -> Iterator[np.ndarray]:
    """Yield the frames from number `start` on, (H, W, 3) RGB; see `read_timed_frames`."""
    return (frame.pixels for frame in read_timed_frames(source, start))


def read_timed_frames(source: Source, start: int = 0) -> Iterator[TimedFrame]:
    """Yield frames in the order in which they are shown; one is in memory at a time.

    A file that ends before it has given as many frames as it says is warned about.

    Args:
        source: path, or open binary file that can seek.
        start: number of the first frame; those before it are decoded and dropped.

    Raises:
        DataError: no such file, no video in it, or damaged.
    """
    with _opened(source) as (container, name):
        stream = _video_stream(container, name)
        stream.thread_type = "AUTO"
        origin = start_of(container)
        convert = _Converter(name)
        count = 0
        for frame in container.decode(stream):
            if count >= start:
                yield TimedFrame(convert(frame), _time(frame, origin))
            count += 1
        if count == 0:
            raise DataError(f"{name}: holds no frame that can be decoded")
        if count < stream.frames:
            log.warning("%s: says it has %d frames, but ends after %d", name, stream.frames, count)


class FrameReader:
    """Any frame of a video by its number, exactly; close it, or use it in a `with`.

    The file's packets are listed once, without decoding. A frame is found by decoding from the key
    frame before it; frames asked for in order cost no more than reading does. Not for several
    threads at a time; it does not survive a fork.

    Args:
        source: path, or open binary file that can seek.

    Raises:
        DataError: no such file, no video in it, damaged, or without time stamps.
    """

    def __init__(self, source: Source) -> None:
        self.info = probe(source)
        self._container, self._name = open_video(source)
        self._stream = _video_stream(self._container, self._name)
        with _explained(self._name):
            self._times, self._keys = _index(self._container, self._stream, self._name)
        self._convert = _Converter(self._name)
        self._coming: Iterator[av.VideoFrame] = iter(())
        self._next_time: int | None = None

    def __len__(self) -> int:
        return len(self._times)

    def __getitem__(self, number: int) -> np.ndarray:
        """Return frame `number`, (H, W, 3) RGB.

        Raises:
            IndexError: if there is no such frame.
            DataError: if it cannot be decoded.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"{self._name}: frame {number} of {len(self)}")
        wanted = self._times[number]
        at = bisect_right(self._keys, wanted) - 1
        key = self._keys[at] if at >= 0 else self._times[0]
        is_ahead = self._next_time is not None and key <= self._next_time <= wanted
        self._next_time = None
        with _explained(f"{self._name}: frame {number}"):
            frame = self._forward_to(wanted) if is_ahead else self._seek(wanted, at)
        if frame is None:
            raise DataError(f"{self._name}: frame {number} cannot be decoded: damaged")
        self._next_time = self._times[number + 1] if number + 1 < len(self) else None
        return self._convert(frame)

    def close(self) -> None:
        """Close the file, unless it was given open."""
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seek(self, wanted: int, at: int) -> av.VideoFrame | None:
        """Decode from a key frame before a time; from an earlier one where that one fails."""
        for key in (*reversed(self._keys[max(at - 1, 0) : at + 1]), min(self._times[0], 0)):
            self._container.seek(key, stream=self._stream, backward=True, any_frame=False)
            self._coming = self._container.decode(self._stream)
            frame = self._forward_to(wanted)
            if frame is not None:
                return frame
        return None

    def _forward_to(self, wanted: int) -> av.VideoFrame | None:
        """Decode on up to a time; None if no frame has it."""
        for frame in self._coming:
            if frame.pts is not None and frame.pts >= wanted:
                return frame if frame.pts == wanted else None
        return None


class _Converter:
    """Turn decoded frames into RGB arrays of one size."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        size = (frame.width, frame.height)
        if self._size not in (None, size):
            raise DataError(f"{self._name}: its size changes from {self._size} to {size}")
        self._size = size
        matrix = SWSCALE_MATRICES[_matrix(frame)]
        is_full = _is_full_range(frame)
        rgb = self._reformatter.reformat(
            frame,
            format="rgb48le" if _bits(frame) > 8 else "rgb24",
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=ColorRange.JPEG if is_full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=SCALING,
        )
        turned = np.rot90(rgb.to_ndarray(), _rotation(frame) // 90)
        return np.ascontiguousarray(turned)


@contextmanager
def _opened(source: Source) -> Iterator[tuple[InputContainer, str]]:
    """Open a source for a while; errors of FFmpeg within the block become DataErrors."""
    container, name = open_video(source)
    with container, _explained(name):
        yield container, name


def open_video(source: Source) -> tuple[InputContainer, str]:
    """Return the open file and what errors call it."""
    if not isinstance(source, str | os.PathLike):
        name = str(getattr(source, "name", "the video"))
        source.seek(0)
        with _explained(name):
            return av.open(source, "r"), name
    if not Path(source).is_file():
        raise DataError(f"{source}: no such file")
    with _explained(str(source)):
        return av.open(str(source), "r"), str(source)


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn errors of FFmpeg into DataErrors."""
    try:
        yield
    except av.FFmpegError as err:
        raise DataError(f"{name}: not a video, damaged or truncated: {err.strerror}") from None


def _video_stream(container: InputContainer, name: str) -> Any:
    """Return the first stream of moving pictures (a cover picture is none)."""
    for stream in container.streams.video:
        if stream.codec_context is not None and not _is_cover(stream):
            return stream
    kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
    raise DataError(f"{name}: holds no video stream (found: {kinds})")


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def start_of(container: InputContainer) -> Fraction:
    """Return the time at which a file starts, in its own count of seconds."""
    return Fraction(container.start_time or 0, av.time_base)


def _time(frame: av.VideoFrame, origin: Fraction) -> Fraction | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return frame.pts * Fraction(frame.time_base) - origin


def _info(container: InputContainer, stream: Any, frame: av.VideoFrame, name: str) -> VideoInfo:
    codec = stream.codec_context
    rotation = _rotation(frame)
    width, height = frame.width, frame.height
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if rotation % 180:
        width, height, aspect = height, width, 1 / aspect
    fps = stream.average_rate or stream.guessed_rate
    if not fps:
        raise DataError(f"{name}: tells no frame rate")
    duration = None
    if stream.duration is not None:
        duration = stream.duration * Fraction(stream.time_base)
    elif container.duration is not None:
        duration = Fraction(container.duration, av.time_base)
    frames = stream.frames or round((duration or 0) * fps)
    return VideoInfo(
        width=width,
        height=height,
        frames=max(frames, 1),
        frames_exact=stream.frames > 0,
        fps=Fraction(fps),
        duration=duration,
        rotation=rotation,
        codec=codec.name,
        pixel_format=frame.format.name,
        bits=_bits(frame),
        colour=Colour(_matrix(frame), int(codec.color_primaries), int(codec.color_trc)),
        is_full_range=_is_full_range(frame),
        aspect=aspect,
        time_base=Fraction(stream.time_base),
        audio=tuple(audio.codec_context.name for audio in container.streams.audio),
    )


def _bits(frame: av.VideoFrame) -> int:
    return max(component.bits for component in frame.format.components)


def _rotation(frame: av.VideoFrame) -> int:
    return round(frame.rotation / 90) % 4 * 90


def _is_full_range(frame: av.VideoFrame) -> bool:
    if frame.format.is_rgb or frame.format.name.startswith("yuvj"):
        return True
    return frame.color_range == ColorRange.JPEG.value


def _matrix(frame: av.VideoFrame) -> int:
    """Return a frame's matrix, or the one that players guess where the file names none."""
    matrix = int(frame.colorspace)
    return matrix if matrix in SWSCALE_MATRICES else usual_matrix(frame.width, frame.height)


def usual_matrix(width: int, height: int) -> int:
    """Return the matrix of a video of that size that names none."""
    return BT709 if width >= 1280 or height > 576 else BT601


def _index(container: InputContainer, stream: Any, name: str) -> tuple[list[int], list[int]]:
    """Return the times of all frames and those of the key frames, in ticks and in order."""
    packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
    times = [packet.pts for packet in packets if packet.pts is not None]
    keys = sorted(p.pts for p in packets if p.is_keyframe and p.pts is not None)
    # VP8 keeps frames that are never shown in packets of their own.
    if len(set(times)) != len(packets) or stream.codec_context.name == "vp8":
        container.seek(0)
        times = [frame.pts for frame in container.decode(stream) if frame.pts is not None]
        if not times or len(set(times)) != len(times):
            raise DataError(
                f"{name}: its frames have no time stamps of their own; write it anew as .mkv"
            )
        keys = [key for key in keys if key in set(times)]
    if not times:
        raise DataError(f"{name}: holds no frame")
    return sorted(times), keys
