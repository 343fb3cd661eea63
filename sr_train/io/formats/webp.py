"""WebP: its chunks, and its pixels by libwebp as OpenCV has it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np

from sr_train.io.formats import exif
from sr_train.io.formats.layout import Layout, Planes, UnusableError
from sr_train.io.formats.metadata import RawMetadata

_ALPHA, _EXIF, _XMP, _ICC = 0x10, 0x08, 0x04, 0x20
_MOST_METADATA = 8 << 20
_MOST_CHUNKS = 10_000


@dataclass(frozen=True, kw_only=True)
class WebpLayout(Layout):
    """What the chunks of a WebP say."""


def parse(file: BinaryIO) -> WebpLayout:
    """Return the layout from the first chunk, and the orientation from the EXIF chunk.

    Raises:
        UnusableError: damaged or truncated.
    """
    places = list(_places(file))
    if not places:
        raise UnusableError("truncated before its pixels")
    kind, offset, size = places[0]
    file.seek(offset)
    head = file.read(min(size, 10))
    if len(head) < (5 if kind == b"VP8L" else 10):
        raise UnusableError("truncated before its pixels")
    turn = 1
    if kind == b"VP8X":
        has_alpha = bool(head[0] & _ALPHA)
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (4, 7))
        block = _content(file, places, b"EXIF")
        turn = 1 if block is None else exif.orientation(block.removeprefix(b"Exif\0\0"))
    elif kind == b"VP8L" and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        has_alpha = bool(bits >> 28 & 1)
    elif kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        width, height = (each & 0x3FFF for each in struct.unpack_from("<HH", head, 6))
        has_alpha = False
    else:
        raise UnusableError(f"damaged: it begins with a chunk {kind!r} of {head!r}")
    return WebpLayout(
        height=height,
        width=width,
        channels=3,
        has_alpha=has_alpha,
        dtype="uint8",
        orientation=turn,
    )


def decode(data: bytes, layout: WebpLayout) -> Planes:
    """Return colours and alpha of a WebP, of an animation those of the first frame; not oriented.

    Raises:
        UnusableError: damaged or truncated.
    """
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnusableError(f"cannot be decoded: {error}") from None
    if found is None:
        raise UnusableError(f"damaged or truncated ({len(data)} bytes)")
    if found.shape[2] == 3:
        return cv2.cvtColor(found, cv2.COLOR_BGR2RGB, dst=found), None
    alpha = np.ascontiguousarray(found[..., 3]) if layout.has_alpha else None
    return cv2.cvtColor(found, cv2.COLOR_BGRA2RGB), alpha


def metadata(file: BinaryIO) -> RawMetadata:
    """Return what the chunks say beside the pixels."""
    places = list(_places(file))
    kinds = {kind for kind, _, _ in places}
    others = [
        name for kind, name in ((b"XMP ", "XMP"), (b"ANIM", "further frames")) if kind in kinds
    ]
    return RawMetadata(
        icc=_content(file, places, b"ICCP"),
        exif=_content(file, places, b"EXIF"),
        left_out=tuple(others),
    )


def with_chunks(
    data: bytes | memoryview, height: int, width: int, icc: bytes | None, exif: bytes | None
) -> bytes:
    """Return a simple WebP file as an extended one, with a profile and an EXIF block.

    Args:
        data: a file of one chunk of pixels, VP8 or VP8L.
        height: of the image, pixels.
        width: of the image, pixels.
        icc: a colour profile.
        exif: an EXIF block, from its byte order mark on.
    """
    kind = bytes(data[12:16])
    has_alpha = kind == b"VP8L" and bool(data[24] & 0x10)
    flags = _ALPHA * has_alpha | _ICC * (icc is not None) | _EXIF * (exif is not None)
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    parts = [
        _chunk(b"VP8X", bytes([flags, 0, 0, 0]) + sides),
        b"" if icc is None else _chunk(b"ICCP", icc),
        data[12:],
        b"" if exif is None else _chunk(b"EXIF", exif),
    ]
    size = 4 + sum(map(len, parts))
    return b"".join([b"RIFF", struct.pack("<I", size), b"WEBP", *parts])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _places(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, offset of the content, its length) of each chunk."""
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "little")
    position = 12
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or position + 8 > end:
            return
        kind, size = struct.unpack("<4sI", head)
        yield kind, position + 8, size
        position += 8 + size + size % 2


def _content(file: BinaryIO, places: list[tuple[bytes, int, int]], wanted: bytes) -> bytes | None:
    """Return the first chunk of a kind after a VP8X chunk; None where there is none."""
    if places[0][0] != b"VP8X":
        return None
    for kind, offset, size in places:
        if kind == wanted and size <= _MOST_METADATA:
            file.seek(offset)
            return file.read(size)
    return None
