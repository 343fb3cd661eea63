"""Write video files frame by frame; what `video_io` reads comes out alike.

A file appears under its name when it is complete. Where writing it ends early, by an error or by
will, what is done appears as `NAME.partial.SUFFIX`: whole frames up to there and their sound, as
playable as any file. Its matrix and range are tagged, and frames are converted by them: those of
the video the frames come from, else BT.709 above 576 lines or from 1280 columns and BT.601 below,
studio range. Size, times of the frames, fineness of colours, shape of the pixels, audio tracks,
subtitles, chapters and tags are kept where the container can hold them; the rest is named.
"""

import logging
import math
import os
from collections import deque
from contextlib import ExitStack
from fractions import Fraction
from itertools import chain, repeat
from operator import methodcaller
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange

from sr_train.api.errors import ConfigError, DataError
from sr_train.io.files import TemporaryFile
from sr_train.io.video.codecs import (
    CODECS,
    CONTAINERS,
    WRITABLE_SUFFIXES,
    conversion_notes,
    encoding_problems,
    pixel_format_for,
    suffix_problem,
)
from sr_train.io.video.colour import BT709, Colour, usual_matrix
from sr_train.io.video.filter import FromRGB
from sr_train.io.video.info import VideoInfo
from sr_train.io.video.source import Source
from sr_train.io.video.stream_copy import StreamCopy

__all__ = ["CODECS", "WRITABLE_SUFFIXES", "VideoWriter", "encoding_problems", "suffix_problem"]

log = logging.getLogger(__name__)

_FINEST = 1_000_000
"""Ticks per second above which the rate and the clock of the input are not both kept exactly."""
_RATES = (Fraction(1, 10_000), Fraction(1_000_000))
_MOST_OF_RATE = 2**31 - 1
"""Of numerator and denominator of a rate, as FFmpeg stores it."""
_TAKE_FIRST = methodcaller("popleft")


class VideoWriter:
    """Write frames to a video file; use it in a `with`, at whose end the file appears.

    Where the block ends with an error, or `finish_early` is called, what was written appears under
    another name (see `partial_path`); a whole file that was there before stays.

    Args:
        path: its suffix chooses the container; its folder must exist.
        size: (width, height) of every frame.
        fps: frames per second; frames without a time of their own are spaced evenly.
        codec: one of `CODECS`.
        quality: CRF, 0 is best; None for 17 (h264), 19 (hevc), 20 (av1).
        pixel_format: FFmpeg's name. None: 4:2:0, or 4:2:2 or 4:4:4 as of `like`; with odd sides
            4:4:4 where 4:2:0 could not keep the size; 10 bit for more than 8 bits; RGB for ffv1.
        bits: of the frames, 8 or 16.
        like: the video that the frames come from; its colours, shape of pixels and clock are kept.
        copy_from: a video whose other tracks, chapters and tags are copied.
        audio: copy its sound, too.

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
        copy_from: Source | None = None,
        audio: bool = True,
    ) -> None:
        self.path = Path(path)
        problems = encoding_problems(self.path, codec, quality, pixel_format)
        if problems:
            raise ConfigError("; ".join(problems))
        self.size = size
        self.fps = _storable(Fraction(fps))
        chroma = like.chroma if like else "420"
        self.pixel_format = pixel_format_for(self.path, codec, pixel_format, size, bits, chroma)
        self.notes = list(conversion_notes(codec, self.pixel_format, like))
        """What of the input is left out or changed, a line each; complete at the end."""
        self.partial: Path | None = None
        """Where the frames are, if writing ended early."""
        self._colour = like.colour if like else Colour(usual_matrix(*size), BT709, BT709)
        self._tolerance = like.time_base if like else Fraction(0)
        self._tick = _tick(self.fps, like)
        self._convert = FromRGB(self.pixel_format, self._matrix)
        self._first = self._time = Fraction(0)
        self._last_tick = -1
        self._pending: deque[av.Packet] = deque()
        """Encoded, but not in the file yet."""
        self._is_open = True
        self.written = 0
        """Frames so far."""
        try:
            self._temporary = TemporaryFile(self.path)
        except OSError as err:
            raise self._unwritable(err) from None
        with ExitStack() as undo:
            undo.callback(self._temporary.discard)
            self._open(codec, quality, like)
            undo.callback(self._container.close)
            self._copy = None
            if copy_from is not None:
                self._copy = StreamCopy(
                    copy_from, self._container, self._stream, self._mux, audio=audio
                )
                undo.callback(self._copy.close)
                self.notes += self._copy.notes
            self._begin()
            undo.pop_all()

    def _open(self, codec: str, quality: int | None, like: VideoInfo | None) -> None:
        """Open the temporary file and the encoder."""
        wanted = CODECS[codec]
        chosen = wanted.quality if quality is None else quality
        options = {"chroma_sample_location": "left"}
        if chosen is not None:
            options["crf"] = str(chosen)
        if codec == "hevc":
            options["x265-params"] = "log-level=none"
        # SVT-AV1 prints its settings otherwise.
        os.environ.setdefault("SVT_LOG", "0")
        try:
            # An absolute path: FFmpeg takes what stands before a colon for a protocol.
            self._container: OutputContainer = av.open(
                os.path.abspath(self._temporary.path),
                "w",
                format=CONTAINERS[self.path.suffix.lower()],
                metadata_errors="surrogateescape",
            )
        except (OSError, av.FFmpegError) as err:
            raise self._unwritable(err) from None
        with ExitStack() as undo:
            undo.callback(self._container.close)
            self._stream: Any = self._container.add_stream(wanted.encoder, self.fps, options)
            self._set_up(self._stream, like)
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
        if not self._convert.is_rgb:
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

    def _begin(self) -> None:
        """Write the header, so that what cannot be is said before any work."""
        try:
            self._container.start_encoding()
        except (OSError, av.FFmpegError, ValueError) as err:
            tracks = ", ".join(f"{stream.type} {stream.name}" for stream in self._container.streams)
            reason = getattr(err, "strerror", None) or err
            raise DataError(
                f"{self.path}: {self.path.suffix} cannot hold these tracks together ({tracks}): "
                f"{reason}; .mkv may"
            ) from None

    @property
    def _matrix(self) -> int:
        # Constant luminance (10) cannot be written; the other BT.2020 can.
        return 9 if self._colour.matrix == 10 else self._colour.matrix

    @property
    def partial_path(self) -> Path:
        """Return the name that what is done gets, where writing ends early."""
        return self.path.with_name(f"{self.path.stem}.partial{self.path.suffix}")

    def write(self, pixels: np.ndarray, time: Fraction | None = None) -> None:
        """Write the next frame.

        Args:
            pixels: (H, W, 3) RGB, uint8 or uint16.
            time: seconds at which it is shown, as `TimedFrame` says; None: after the frame
                before by 1 / fps. Times within a tick of the input's clock from an even spacing,
                also one with frames missing in between, are spaced evenly.

        Raises:
            DataError: if the disk is full.
            ValueError: if the pixels are of another size or kind.
        """
        width, height = self.size
        if pixels.shape != (height, width, 3):
            raise ValueError(f"expected {width}x{height} RGB, got {pixels.shape}")
        name = {"uint8": "rgb24", "uint16": "rgb48le"}[pixels.dtype.name]
        frame = self._convert(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), name))
        self._time = self._even(time)
        frame.pts = self._last_tick = max(round(self._time / self._tick), self._last_tick + 1)
        frame.time_base = self._tick
        self.written += 1
        self._encode(frame)
        if self._copy is not None:
            self._copy.copy_until(self._time)

    def _even(self, time: Fraction | None) -> Fraction:
        """Return when the next frame is shown."""
        if time is None:
            return self._time + 1 / self.fps if self.written else self._time
        if self.written == 0:
            self._first = time
        nearest = self._first + round((time - self._first) * self.fps) / self.fps
        return nearest if abs(nearest - time) <= self._tolerance else time

    def _encode(self, frame: av.VideoFrame | None) -> None:
        # One call each, into which no signal comes: no packet is lost or written twice.
        self._pending.extend(chain.from_iterable(map(self._stream.encode, (frame,))))
        if frame is None and self.written <= 2:
            # libx265 leaves these unset where it had nothing to reorder.
            for packet in self._pending:
                packet.dts = packet.pts
        try:
            taken = map(_TAKE_FIRST, repeat(self._pending, len(self._pending)))
            deque(map(self._container.mux_one, taken), maxlen=0)
        except (OSError, av.FFmpegError) as err:
            raise self._unwritable(err) from None

    def _mux(self, packets: Any) -> None:
        try:
            self._container.mux(packets)
        except (OSError, av.FFmpegError) as err:
            raise self._unwritable(err) from None

    def _unwritable(self, err: OSError | av.FFmpegError) -> DataError:
        return DataError(f"{self.path}: cannot be written: {err.strerror}")

    def finish_early(self) -> Path | None:
        """Finish with the frames written so far, under `partial_path`.

        Returns:
            Where they are; None if there are none.

        Raises:
            DataError: if the disk is full.
        """
        if self._is_open and self.written > 0:
            self._temporary.target = self.partial_path
            self._finish(self._time + 1 / self.fps)
            self.partial = self.partial_path
            log.warning(
                "%s: stopped early; what is done (%d frames) is in %s",
                self.path,
                self.written,
                self.partial,
            )
        self._close()
        return self.partial

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                if self._is_open:
                    self._finish(None)
            else:
                self._rescue()
        finally:
            self._close()

    def _rescue(self) -> None:
        """Keep what is done, if that can be; the error that ended the block is raised."""
        try:
            self.finish_early()
        except DataError as err:
            log.debug("%s", err)

    def _finish(self, end: Fraction | None) -> None:
        """Write what is still held back, sound up to a time, and give the file its name."""
        if self.written == 0:
            raise DataError(f"{self.path}: no frame to write")
        self._encode(None)
        if self._copy is not None:
            self._copy.copy_until(end)
        try:
            self._container.close()
            self._temporary.commit(sync=False)
        except (OSError, av.FFmpegError) as err:
            raise self._unwritable(err) from None
        self._is_open = False
        if self._copy is not None:
            self._note_losses(self._copy)

    def _note_losses(self, copied: StreamCopy) -> None:
        self.notes += [note for note in copied.notes if note not in self.notes]
        place = os.path.abspath(self._temporary.target)
        with av.open(place, metadata_errors="surrogateescape") as container:
            self.notes += copied.losses(container)

    def _close(self) -> None:
        """Close all that is open, and remove the temporary file, if it is still there."""
        if self._copy is not None:
            self._copy.close()
        if self._is_open:
            self._is_open = False
            try:
                self._container.close()
            except (OSError, av.FFmpegError) as err:
                log.debug("%s: %s", self._temporary.path, err)
            self._temporary.discard()


def _storable(fps: Fraction) -> Fraction:
    """Return the nearest rate that FFmpeg can store.

    Raises:
        ConfigError: if it is no rate of a video.
    """
    if not _RATES[0] <= fps <= _RATES[1]:
        shown = [f"{float(rate):.7g}" for rate in (fps, *_RATES)]
        raise ConfigError(f"{shown[0]} frames per second; expected {shown[1]} to {shown[2]}")
    if max(fps.numerator, fps.denominator) <= _MOST_OF_RATE:
        return fps
    return fps.limit_denominator(int(_MOST_OF_RATE / (fps + 1)))


def _tick(fps: Fraction, like: VideoInfo | None) -> Fraction:
    """Return the clock of a file: even frames and the input's times both fall on it."""
    if like is None:
        return 1 / fps
    ticks = math.lcm(fps.numerator, (1 / like.time_base).numerator)
    return Fraction(1, ticks) if ticks <= _FINEST else like.time_base
