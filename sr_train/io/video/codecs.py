"""What videos are written with: containers, encoders and pixel formats, and which go together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from sr_train.api.errors import ConfigError, DataError, did_you_mean
from sr_train.io.suffixes import VIDEO_SUFFIXES
from sr_train.io.video.info import Chroma, VideoInfo

CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
"""FFmpeg's name of the muxer for each suffix that can be written."""
WRITABLE_SUFFIXES = frozenset(CONTAINERS)
"""Lower case; all of them can be read, too."""


@dataclass(frozen=True)
class Codec:
    """How a codec is written."""

    encoder: str
    """FFmpeg's name for it."""
    quality: int | None
    """CRF if nothing is said; None: lossless."""
    worst: int
    chromas: tuple[Chroma, ...]
    """What it can store, 4:2:0 first."""
    holders: tuple[str, ...]
    """Muxers of containers that hold it."""
    min_size: int = 1
    keeps_odd: bool = False
    """Whether 4:2:0 has room for odd sides."""


CODECS = {
    "h264": Codec("libx264", 17, 51, ("420", "422", "444"), ("mp4", "mov", "matroska"), 2),
    # libx265 4.1 writes beyond its memory below the size of a block.
    "hevc": Codec("libx265", 19, 51, ("420", "422", "444"), ("mp4", "mov", "matroska"), 64),
    "av1": Codec("libsvtav1", 20, 63, ("420",), ("mp4", "matroska", "webm"), 64, keeps_odd=True),
    "ffv1": Codec("ffv1", None, 0, ("rgb",), ("mp4", "matroska"), keeps_odd=True),
}
"""What can be asked for: h264, hevc and av1 lose a little, ffv1 nothing."""
_WORDS = {
    "avc": "h264",
    "h265": "hevc",
    "x264": "h264",
    "x265": "hevc",
    **{codec.encoder: name for name, codec in CODECS.items()},
}


def parse_codec(text: str) -> str:
    """Return one of `CODECS`; h265, x265 and libx265 are other words for one of them.

    Raises:
        ConfigError: none of them.
    """
    word = text.lower().replace(".", "")
    word = _WORDS.get(word, word)
    if word not in CODECS:
        hint = did_you_mean(word, [*CODECS, *_WORDS])
        hint = hint if "did you mean" in hint else ""
        raise ConfigError(f"video.codec={text}: expected one of {', '.join(CODECS)}{hint}")
    return word


def suffix_problem(path: Path) -> str | None:
    """Return why a name cannot be that of a video to write; None if it can."""
    suffix = path.suffix.lower()
    if suffix in WRITABLE_SUFFIXES:
        return None
    known = ", ".join(CONTAINERS)
    if suffix in VIDEO_SUFFIXES:
        return f"{path}: cannot write {suffix!r}; known: {known}; {path.stem}.mp4 plays everywhere"
    return f"{path}: cannot write {suffix!r}; known: {known}{_nearest(suffix)}"


def _nearest(suffix: str) -> str:
    hint = did_you_mean(suffix, WRITABLE_SUFFIXES) if suffix else ""
    return hint if "did you mean" in hint else ""


def encoding_problems(
    path: Path, codec: str, quality: int | None = None, pixel_format: str | None = None
) -> list[str]:
    """Return what is wrong with the wish for a file, before anything is written."""
    unwritable = suffix_problem(path)
    problems = [] if unwritable is None else [unwritable]
    if codec not in CODECS:
        problems.append(f"codec {codec!r} is unknown{did_you_mean(codec, CODECS)}")
        return problems
    wanted = CODECS[codec]
    if wanted.encoder not in av.codecs_available:
        others = [name for name, c in CODECS.items() if c.encoder in av.codecs_available]
        problems.append(
            f"codec {codec}: this build of PyAV lacks {wanted.encoder}; it has {', '.join(others)}"
        )
    elif pixel_format is not None:
        known = [form.name for form in av.Codec(wanted.encoder, "w").video_formats or []]
        if pixel_format not in known:
            hint = did_you_mean(pixel_format, known)
            problems.append(f"video.pixel_format={pixel_format}: none of {codec}'s{hint}")
    if wanted.quality is None and quality is not None:
        problems.append(f"video.quality={quality}: {codec} is lossless; leave it out")
    elif quality is not None and not 0 <= quality <= wanted.worst:
        problems.append(f"video.quality={quality}: expected 0 (best) to {wanted.worst} for {codec}")
    container = CONTAINERS.get(path.suffix.lower())
    if container is not None and container not in wanted.holders:
        problems.append(_pair_problem(path, codec, container))
    return problems


def _pair_problem(path: Path, codec: str, container: str) -> str:
    others = [suffix for suffix, kind in CONTAINERS.items() if kind in CODECS[codec].holders]
    held = [name for name, other in CODECS.items() if container in other.holders]
    return (
        f"{path}: {path.suffix} cannot hold {codec}; use {' or '.join(others)}, or codec "
        f"{' or '.join(held)}"
    )


def pixel_format_for(
    path: Path, codec: str, wish: str | None, size: tuple[int, int], bits: int, chroma: Chroma
) -> str:
    """Return the pixel format to write.

    Args:
        path: what errors name.
        codec: one of `CODECS`.
        wish: FFmpeg's name for one; None: as finely as the colours came, but RGB as 4:2:0.
        size: (width, height).
        bits: of the frames, 8 or 16.
        chroma: how finely colours came.

    Raises:
        DataError: if the codec cannot keep the size.
    """
    wanted = CODECS[codec]
    shown = f"{size[0]}x{size[1]}"
    if min(size) < wanted.min_size:
        raise DataError(
            f"{path}: {codec} cannot encode {shown}; each side must be at least {wanted.min_size} "
            "pixels; use codec h264 or ffv1"
        )
    if wish is not None:
        if not wanted.keeps_odd and not _has_room(av.VideoFormat(wish), size):
            raise DataError(f"{path}: {codec} cannot keep {shown} in {wish}; use yuv444p")
        return wish
    if wanted.quality is None:
        return "gbrp16le" if bits > 8 else "bgr0"
    depth = "10le" if bits > 8 else ""
    chosen = chroma if chroma in wanted.chromas else "420"
    if not wanted.keeps_odd and not _has_room(av.VideoFormat(f"yuv{chosen}p"), size):
        chosen = "444"
    return f"yuv{chosen}p{depth}"


def _has_room(wanted: av.VideoFormat, size: tuple[int, int]) -> bool:
    """Return whether chroma samples cover all pixels of a frame."""
    across, down = wanted.chroma_width(16) < 16, wanted.chroma_height(16) < 16
    return not (across and size[0] % 2) and not (down and size[1] % 2)


def conversion_notes(codec: str, pixel_format: str, like: VideoInfo | None) -> Sequence[str]:
    """Return a line for each thing that a pixel format cannot keep of a video."""
    if like is None:
        return []
    written = av.VideoFormat(pixel_format)
    notes = []
    finer = {"rgb": 3, "444": 3, "422": 2}.get(like.chroma, 1)
    across, down = written.chroma_width(16) < 16, written.chroma_height(16) < 16
    if finer > 3 - across - down:
        name = {"rgb": "RGB", "444": "4:4:4", "422": "4:2:2"}[like.chroma]
        advice = "; video.pixel_format=yuv444p keeps it" if "444" in CODECS[codec].chromas else ""
        notes.append(f"its {name} colours become {pixel_format}{advice}")
    bits = max(component.bits for component in written.components)
    if like.bits > bits:
        notes.append(f"its {like.bits} bits become {bits}")
    return notes
