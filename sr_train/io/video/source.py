"""Open video files, and refuse what only looks like one.

Sources are paths or open binary files that can seek. Nothing but the file itself is read: lists of
other files and addresses (playlists) are no videos, whatever they are called.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer

from sr_train.api.errors import DataError
from sr_train.io.formats.layout import UnusableError
from sr_train.io.formats.limits import check_size, max_megapixels

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpegtsraw,mpeg,mpegvideo,asf,asf_o,flv,"
    "live_flv,ogg,mxf,nut,dv,rm,gif,yuv4mpegpipe,ivf,av1,obu,h261,h263,h264,hevc,vvc,m4v,mjpeg,"
    "vc1,dirac,cavsvideo,gxf,wtv,nsv,apng"
)
"""Demuxers that read one file and no other."""

Source = str | os.PathLike[str] | BinaryIO


def open_video(source: Source) -> tuple[InputContainer, str]:
    """Return the open file and what errors call it.

    Raises:
        DataError: no such file, or none that can be read as a video.
    """
    options = {"format_whitelist": _FORMATS, "max_pixels": _most_pixels()}
    if not isinstance(source, str | os.PathLike):
        name = str(getattr(source, "name", "the video"))
        source.seek(0)
        with explained(name):
            return _open(source, options), name
    if not Path(source).is_file():
        raise DataError(f"{source}: no such file")
    # An absolute path: FFmpeg takes what stands before a colon for a protocol.
    with explained(str(source)):
        return _open(os.path.abspath(source), options), str(source)


def _open(file: str | BinaryIO, options: dict[str, str]) -> InputContainer:
    return av.open(file, "r", options=options, metadata_errors="surrogateescape")


@contextmanager
def opened(source: Source) -> Iterator[tuple[InputContainer, str]]:
    """Open a source for a while; errors of FFmpeg within the block become DataErrors."""
    container, name = open_video(source)
    with container, explained(name):
        yield container, name


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn errors of FFmpeg into DataErrors."""
    try:
        yield
    except av.FFmpegError as err:
        raise DataError(f"{name}: not a video, damaged or truncated: {err.strerror}") from None


def video_stream(container: InputContainer, name: str) -> Any:
    """Return the first stream of moving images (a cover image is none).

    Raises:
        DataError: if there is none, its codec is unknown, or it claims to be huge.
    """
    streams = [stream for stream in container.streams.video if not is_cover(stream)]
    known = next((stream for stream in streams if stream.codec_context is not None), None)
    if known is None:
        kinds = ", ".join(stream.type for stream in container.streams) or "nothing"
        what = "its video is of an unknown codec" if streams else "holds no video stream"
        raise DataError(f"{name}: {what} (found: {kinds})")
    try:
        check_size(known.codec_context.height, known.codec_context.width)
    except UnusableError as err:
        raise DataError(f"{name}: {err}") from None
    known.codec_context.options = {"max_pixels": _most_pixels()}
    return known


def _most_pixels() -> str:
    """Return the limit for what only the decoder finds, after the header.

    It is a quarter and a megapixel higher, since FFmpeg counts the margins of frames in memory.
    """
    return str(min(round(max_megapixels() * 1.25e6) + 1_000_000, 2**31 - 1))


def is_cover(stream: Any) -> bool:
    """Return whether a stream is a cover image."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def codec_name(stream: Any) -> str:
    """Return FFmpeg's name of the codec, not of its decoder; `unknown` where it has none."""
    context = stream.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)


def start_of(container: InputContainer) -> Fraction:
    """Return the time at which a file starts, in its own count of seconds."""
    return Fraction(container.start_time or 0, av.time_base)


def bytes_at(source: Source, position: int, count: int) -> bytes:
    """Return bytes of a file, fewer at its end."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            file.seek(position)
            return file.read(count)
    source.seek(position)
    return source.read(count)
