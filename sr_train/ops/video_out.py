"""Write video files frame by frame; what `video_io` reads comes out alike.

A file appears under its name when it is complete, or not at all. Its matrix and range are tagged,
and frames are converted by them: those of the video the frames come from, else BT.709 above 576
lines or from 1280 columns and BT.601 below, studio range. Size, times of the frames, shape of the
pixels and audio tracks are kept; audio is copied as it is. Subtitles are not.
"""

import logging
import math
import os
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.container import OutputContainer
from av.filter import Graph
from av.video.reformatter import ColorRange

from sr_train.ops.audio_copy import AudioCopy
from sr_train.ops.errors import ConfigError, DataError, did_you_mean
from sr_train.ops.files import TemporaryFile
from sr_train.ops.video_io import (
    BT709,
    Colour,
    Source,
    VideoInfo,
    usual_matrix,
)

log = logging.getLogger(__name__)

_CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
SUFFIXES = frozenset(_CONTAINERS)
"""Lower-case file name suffixes that can be written."""
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_SCALING = "bicubic+full_chroma_int+full_chroma_inp+accurate_rnd"
_FINEST = 1_000_000
"""Ticks per second above which the rate and the clock of the input are not both kept exactly."""


@dataclass(frozen=True)
class _Codec:
    encoder: str
    """FFmpeg's name for it."""
    quality: int | None
    """CRF if nothing is said; None: lossless."""
    worst: int
    formats: tuple[str, ...]
    """8 bit; 8 bit for odd sizes; the same two for more bits."""
    min_size: int = 1


_CODECS = {
    "h264": _Codec("libx264", 17, 51, ("yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le"), 2),
    # libx265 4.1 writes beyond its memory below the size of a block.
    "hevc": _Codec("libx265", 19, 51, ("yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le"), 64),
    "av1": _Codec("libsvtav1", 20, 63, ("yuv420p", "yuv420p", "yuv420p10le", "yuv420p10le"), 64),
    "ffv1": _Codec("ffv1", None, 0, ("bgr0", "bgr0", "gbrp16le", "gbrp16le")),
}
CODECS = tuple(_CODECS)
"""What can be asked for: h264, hevc and av1 lose a little, ffv1 nothing."""


def encoding_problems(
    path: Path, codec: str, quality: int | None = None, pixel_format: str | None = None
) -> list[str]:
    """Return what is wrong with the wish for a file, before anything is written."""
    kind = _CONTAINERS.get(path.suffix.lower())
    problems = []
    if kind is None:
        problems.append(f"{path}: cannot write {path.suffix!r}; known: {', '.join(_CONTAINERS)}")
    if codec not in _CODECS:
        problems.append(f"codec {codec!r} is unknown{did_you_mean(codec, _CODECS)}")
        return problems
    wanted = _CODECS[codec]
    if wanted.encoder not in av.codecs_available:
        others = [name for name, c in _CODECS.items() if c.encoder in av.codecs_available]
        problems.append(
            f"codec {codec}: this build of PyAV lacks {wanted.encoder}; it has {', '.join(others)}"
        )
    elif pixel_format is not None:
        known = [form.name for form in av.Codec(wanted.encoder, "w").video_formats or []]
        if pixel_format not in known:
            hint = did_you_mean(pixel_format, known)
            problems.append(f"pixel format {pixel_format!r} is none of {codec}'s{hint}")
    if wanted.quality is None and quality is not None:
        problems.append(f"quality={quality}: {codec} is lossless; leave it out")
    elif quality is not None and not 0 <= quality <= wanted.worst:
        problems.append(f"quality={quality}: expected 0 (best) to {wanted.worst} for {codec}")
    if kind == "webm" and codec != "av1":
        problems.append(f"{path}: .webm cannot hold {codec}; use codec av1, or .mkv or .mp4")
    if kind == "mov" and codec == "ffv1":
        problems.append(f"{path}: .mov cannot hold {codec}; use .mkv")
    return problems


class VideoWriter:
    """Write frames to a video file; use it in a `with`, at whose end the file appears.

    Where the block ends with an error, no file appears.

    Args:
        path: its suffix chooses the container; its folder must exist.
        size: (width, height) of every frame.
        fps: frames per second; frames without a time of their own are spaced evenly.
        codec: one of `CODECS`.
        quality: CRF, 0 is best; None for 17 (h264), 19 (hevc), 20 (av1).
        pixel_format: FFmpeg's name. None: 4:2:0, with odd sides 4:4:4 as 4:2:0 could not keep the
            size, 10 bit for more than 8 bits; RGB for ffv1.
        bits: of the frames, 8 or 16.
        like: the video that the frames come from; its colours, shape of pixels and clock are kept.
        audio_from: a video whose audio tracks are copied.

    Raises:
        ConfigError: an unknown codec, a quality or a pixel format that it lacks.
        DataError: a size the codec cannot encode, audio that the container cannot hold, or a
            folder that cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int],
        fps: Fraction | int,
        codec: str = "h264",
        quality: int | None = None,
        pixel_format: str | None = None,
        *,
        bits: int = 8,
        like: VideoInfo | None = None,
        audio_from: Source | None = None,
    ) -> None:
        self.path = Path(path)
        problems = encoding_problems(self.path, codec, quality, pixel_format)
        if problems:
            raise ConfigError("; ".join(problems))
        self.size = size
        self.fps = Fraction(fps)
        self.pixel_format = _pixel_format(self.path, codec, pixel_format, size, bits)
        self._colour = like.colour if like else Colour(usual_matrix(*size), BT709, BT709)
        self._tolerance = like.time_base if like else Fraction(0)
        self._tick = _tick(self.fps, like)
        self._graph: Graph | None = None
        self._written = 0
        self._first = Fraction(0)
        self._last_tick = -1
        try:
            self._temporary = TemporaryFile(self.path)
        except OSError as err:
            raise DataError(f"{self.path}: cannot be written: {err.strerror}") from None
        with ExitStack() as undo:
            undo.callback(self._temporary.discard)
            self._open(codec, quality, like, audio_from)
            undo.pop_all()

    def _open(
        self, codec: str, quality: int | None, like: VideoInfo | None, audio_from: Source | None
    ) -> None:
        """Open the temporary file with all its streams."""
        wanted = _CODECS[codec]
        chosen = wanted.quality if quality is None else quality
        options = {"chroma_sample_location": "left"}
        if chosen is not None:
            options["crf"] = str(chosen)
        if codec == "hevc":
            options["x265-params"] = "log-level=error"
        # SVT-AV1 prints its settings otherwise.
        os.environ.setdefault("SVT_LOG", "1")
        form = _CONTAINERS[self.path.suffix.lower()]
        try:
            place = str(self._temporary.path)
            self._container: OutputContainer = av.open(place, "w", format=form)
        except (OSError, av.FFmpegError) as err:
            raise DataError(f"{self.path}: cannot be written: {err.strerror}") from None
        with ExitStack() as undo:
            undo.callback(self._container.close)
            self._stream: Any = self._container.add_stream(wanted.encoder, self.fps, options)
            self._set_up(self._stream, like)
            self._audio = (
                None if audio_from is None else AudioCopy(audio_from, self._container, self._mux)
            )
            undo.pop_all()

    def _set_up(self, stream: Any, like: VideoInfo | None) -> None:
        """Tell the encoder what it gets."""
        stream.width, stream.height = self.size
        stream.pix_fmt = self.pixel_format
        context = stream.codec_context
        context.time_base = self._tick
        context.framerate = self.fps
        if like is not None and like.aspect != 1:
            context.sample_aspect_ratio = like.aspect
        self._is_rgb = av.VideoFormat(self.pixel_format).is_rgb
        if not self._is_rgb:
            context.colorspace = self._matrix
            context.color_range = ColorRange.MPEG.value
        context.color_primaries = self._colour.primaries
        context.color_trc = self._colour.transfer
        try:
            context.open()
        except av.FFmpegError as err:
            width, height = self.size
            raise DataError(
                f"{self.path}: {stream.codec_context.name} cannot encode {width}x{height} "
                f"{self.pixel_format}: {err.strerror}"
            ) from None

    @property
    def _matrix(self) -> int:
        # Constant luminance (10) cannot be written; the other BT.2020 can.
        return 9 if self._colour.matrix == 10 else self._colour.matrix

    def write(self, pixels: np.ndarray, time: Fraction | None = None) -> None:
        """Write the next frame.

        Args:
            pixels: (H, W, 3) RGB, uint8 or uint16.
            time: seconds at which it is shown, as `TimedFrame` tells; None: behind the frame
                before by 1 / fps. Times within a tick of the input's clock from an even spacing
                are spaced evenly.

        Raises:
            DataError: if the disk is full.
            ValueError: if the pixels are of another size or kind.
        """
        width, height = self.size
        if pixels.shape != (height, width, 3):
            raise ValueError(f"expected {width}x{height} RGB, got {pixels.shape}")
        name = {"uint8": "rgb24", "uint16": "rgb48le"}[pixels.dtype.name]
        frame = self._converted(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), name))
        even = self._first + self._written / self.fps
        if time is not None:
            if self._written == 0:
                self._first = even = time
            if abs(time - even) > self._tolerance:
                even = time
        frame.pts = self._last_tick = max(round(even / self._tick), self._last_tick + 1)
        frame.time_base = self._tick
        self._written += 1
        self._mux(self._stream.encode(frame))
        if self._audio is not None:
            self._audio.copy_until(even)

    def _converted(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return a frame in the pixel format of the file, tagged."""
        frame.pts, frame.time_base = self._written, self._tick
        if self._graph is None:
            self._graph = self._make_graph(frame)
        self._graph.push(frame)
        converted: Any = self._graph.pull()
        if not self._is_rgb:
            converted.colorspace = self._matrix
            converted.color_range = ColorRange.MPEG.value
        return converted

    def _make_graph(self, frame: av.VideoFrame) -> Graph:
        """Return what converts frames; a filter, as it alone places chroma samples where told.

        Chroma lies to the left of luma, as players take it for H.264 and HEVC.
        """
        settings = [f"flags={_SCALING}"]
        if not self._is_rgb:
            settings += [f"out_color_matrix={_MATRICES[self._matrix]}", "in_range=pc:out_range=tv"]
            if av.VideoFormat(self.pixel_format).chroma_width(2) == 1:
                settings.append("out_chroma_loc=left")
        graph = Graph()
        nodes = [
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format,
                time_base=self._tick,
            ),
            graph.add("scale", ":".join(settings)),
            graph.add("format", self.pixel_format),
            graph.add("buffersink"),
        ]
        for one, following in pairwise(nodes):
            one.link_to(following)
        graph.configure()
        return graph

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except (OSError, av.FFmpegError) as err:
            raise DataError(f"{self.path}: cannot be written: {err.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._audio is not None:
                self._audio.close()
            self._abandon()

    def _finish(self) -> None:
        """Write what is still held back, and give the file its name."""
        if self._written == 0:
            raise DataError(f"{self.path}: no frame to write")
        packets = self._stream.encode(None)
        if self._written <= 2:
            # libx265 leaves these unset where it had nothing to reorder.
            for packet in packets:
                packet.dts = packet.pts
        self._mux(packets)
        if self._audio is not None:
            self._audio.copy_until(None)
        try:
            self._container.close()
            self._temporary.commit(sync=False)
        except (OSError, av.FFmpegError) as err:
            raise DataError(f"{self.path}: cannot be written: {err.strerror}") from None

    def _abandon(self) -> None:
        """Close and remove the temporary file, if it is still there."""
        if self._temporary.path.exists():
            try:
                self._container.close()
            except (OSError, av.FFmpegError) as err:
                log.debug("%s: %s", self._temporary.path, err)
            self._temporary.discard()


def _pixel_format(
    path: Path, codec: str, wish: str | None, size: tuple[int, int], bits: int
) -> str:
    """Return the pixel format to write.

    Raises:
        DataError: if the codec cannot keep the size.
    """
    wanted = _CODECS[codec]
    is_odd = size[0] % 2 == 1 or size[1] % 2 == 1
    shown = f"{size[0]}x{size[1]}"
    if min(size) < wanted.min_size:
        raise DataError(
            f"{path}: {codec} cannot encode {shown}; each side must be at least {wanted.min_size} "
            "pixels; use codec h264 or ffv1"
        )
    if wish is not None:
        if is_odd and codec in {"h264", "hevc"} and av.VideoFormat(wish).chroma_width(2) == 1:
            raise DataError(f"{path}: {codec} cannot keep {shown} in {wish}; use yuv444p")
        return wish
    chosen = wanted.formats[(2 if bits > 8 else 0) + (1 if is_odd else 0)]
    if is_odd and codec in {"h264", "hevc"}:
        log.info("%s: %s is odd, so written as %s, which few players show", path, shown, chosen)
    return chosen


def _tick(fps: Fraction, like: VideoInfo | None) -> Fraction:
    """Return the clock of a file: even frames and the input's times both fall on it."""
    if like is None:
        return 1 / fps
    ticks = math.lcm(fps.numerator, (1 / like.time_base).numerator)
    return Fraction(1, ticks) if ticks <= _FINEST else like.time_base
