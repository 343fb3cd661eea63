"""What is known of a video before it is read to its end."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
from av.container import InputContainer

from sr_train.api.errors import DataError
from sr_train.io.video.colour import (
    Colour,
    Orientation,
    bits_of,
    is_full_range,
    matrix_of,
    orientation_of,
    side_data_of,
)
from sr_train.io.video.decoding import CONSTANT, Decoder, Packets
from sr_train.io.video.source import Source, codec_name, opened, video_stream

FIELDS = range(2, 6)
"""FFmpeg's orders of fields that are those of interlaced video."""

_SIDE_DATA = {
    "MASTERING_DISPLAY_METADATA": "HDR10 data (mastering display, light levels)",
    "CONTENT_LIGHT_LEVEL": "HDR10 data (mastering display, light levels)",
    "DYNAMIC_HDR_PLUS": "HDR10+ data",
    "DYNAMIC_HDR_VIVID": "HDR Vivid data",
    "DOVI_RPU_BUFFER": "Dolby Vision data",
    "DOVI_METADATA": "Dolby Vision data",
    "A53_CC": "closed captions",
    "STEREO3D": "how its two views lie",
    "SPHERICAL": "that it is a panorama",
}
"""Words for what frames carry beside their samples, and results do not."""

Chroma = Literal["rgb", "444", "422", "420", "grey"]


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before it is read to its end."""

    width: int
    """Pixels, as shown."""
    height: int
    """Pixels, as shown."""
    frames: int
    """As many as the file says it has; else duration times rate."""
    frames_exact: bool
    """Whether the file itself counts its frames."""
    fps: Fraction
    """Frames per second; the mean where it varies."""
    duration: Fraction | None
    """Seconds, where the file says so."""
    stored_size: tuple[int, int]
    """(width, height), before it is turned."""
    orientation: Orientation
    """How stored frames are turned and mirrored to be shown."""
    codec: str
    pixel_format: str
    """FFmpeg's name for what is stored."""
    bits: int
    """Per sample; frames are uint16 above 8."""
    chroma: Chroma
    """How finely colours are stored; 4:1:1 and less count as 420."""
    colour: Colour
    is_full_range: bool
    aspect: Fraction
    """Width of a pixel by its height, as shown."""
    time_base: Fraction
    """Seconds of one tick of the file's clock."""
    audio: tuple[str, ...]
    """Codec of each audio track."""
    notes: tuple[str, ...]
    """What of the image is left out or taken as it is."""

    @property
    def dtype(self) -> Literal["uint8", "uint16"]:
        """Return the dtype of its frames."""
        return "uint16" if self.bits > 8 else "uint8"


def probe(source: Source) -> VideoInfo:
    """Return size, rate and kind of a video; its first frame that can be decoded is.

    Raises:
        DataError: no such file, no video in it, or damaged.
    """
    with opened(source) as (container, name):
        stream = video_stream(container, name)
        frame = next(_decodable(container, stream), None)
        if frame is None:
            raise DataError(f"{name}: holds no frame that can be decoded")
        return _info(container, stream, frame, name)


def _decodable(container: InputContainer, stream: Any) -> Iterator[av.VideoFrame]:
    decoder = Decoder(stream, hasty=False)
    for sent, packet in Packets(container, stream):
        yield from (shown.frame for shown in decoder.feed(sent, packet)[0])
    yield from (shown.frame for shown in decoder.flush()[0])


def _info(container: InputContainer, stream: Any, frame: av.VideoFrame, name: str) -> VideoInfo:
    codec = stream.codec_context
    orientation = orientation_of(frame)
    width, height = orientation.size(frame.width, frame.height)
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    fps = rate_of(stream)
    if not fps:
        raise DataError(f"{name}: states no frame rate")
    duration = None
    if stream.duration is not None and stream.duration > 0:
        duration = stream.duration * Fraction(stream.time_base)
    elif container.duration is not None:
        duration = Fraction(container.duration, av.time_base)
    frames = counted_frames(container, stream)
    return VideoInfo(
        width=width,
        height=height,
        frames=max(frames or round((duration or 0) * fps), 1),
        frames_exact=frames > 0,
        fps=fps,
        duration=duration,
        stored_size=(frame.width, frame.height),
        orientation=orientation,
        codec=codec_name(stream),
        pixel_format=frame.format.name,
        bits=bits_of(frame),
        chroma=_chroma(frame.format),
        colour=Colour(matrix_of(frame), int(codec.color_primaries), int(codec.color_trc)),
        is_full_range=is_full_range(frame),
        aspect=1 / aspect if orientation.is_transposed else aspect,
        time_base=Fraction(stream.time_base),
        audio=tuple(codec_name(audio) for audio in container.streams.audio),
        notes=tuple(_notes(stream, frame)),
    )


def rate_of(stream: Any) -> Fraction | None:
    """Return frames per second, the mean where it varies."""
    own = stream.codec_context.framerate if codec_name(stream) in CONSTANT else None
    rate = stream.average_rate or own or stream.guessed_rate
    return Fraction(rate) if rate else None


def counted_frames(container: InputContainer, stream: Any) -> int:
    """Return how many frames a file says are shown; 0 where it does not."""
    if stream.frames <= 0:
        return 0
    entries = stream.index_entries
    if not container.format.name.startswith("mov") or not len(entries):
        return int(stream.frames)
    # An edit list hides frames that the file counts.
    return sum(1 for entry in entries if not entry.is_discard)


def _chroma(stored: av.VideoFormat) -> Chroma:
    if stored.is_rgb or stored.has_palette:
        return "rgb"
    if len([part for part in stored.components if not part.is_alpha]) < 3:
        return "grey"
    across, down = stored.chroma_width(16) < 16, stored.chroma_height(16) < 16
    if not across:
        return "420" if down else "444"
    return "420" if down or stored.chroma_width(16) < 8 else "422"


def _notes(stream: Any, frame: av.VideoFrame) -> list[str]:
    """Return a line for each thing that the frames have and their RGB pixels do not."""
    notes = []
    if frame.interlaced_frame or stream.codec_context.field_order in FIELDS:
        notes.append("interlaced: each frame is taken as it is, both fields in one")
    if _has_alpha(stream, frame):
        notes.append("its transparency (alpha) is left out")
    there = side_data_of(frame) or {}
    lost = dict.fromkeys(name for kind, name in _SIDE_DATA.items() if kind in there)
    if lost:
        notes.append(f"left out: {', '.join(lost)}")
    return notes


def _has_alpha(stream: Any, frame: av.VideoFrame) -> bool:
    # WebM stores alpha beside the image, where the decoder does not look.
    if any(key.lower() == "alpha_mode" and value == "1" for key, value in stream.metadata.items()):
        return True
    if not any(component.is_alpha for component in frame.format.components):
        return False
    # Each GIF has a format with alpha, few are transparent.
    if codec_name(stream) != "gif":
        return True
    alpha: np.ndarray = frame.reformat(format="rgba").to_ndarray()[..., 3]
    return bool(alpha.min() < 255)
