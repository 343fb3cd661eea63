"""PNG: its chunks, checked; what they say about image and colours."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from sr_train.io.formats import exif
from sr_train.io.formats.layout import Layout, UnusableError
from sr_train.io.formats.metadata import RawMetadata

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_KEYS = {0: 2, 2: 6}
"""Bytes of the one colour that is transparent, by colour type."""
_COLOUR_CHUNKS = (b"cICP", b"sRGB", b"gAMA", b"cHRM")
_OTHER_CHUNKS = {
    b"tEXt": "text",
    b"zTXt": "text",
    b"iTXt": "text",
    b"bKGD": "background colour",
    b"mDCV": "mastering display",
    b"cLLI": "light levels",
    b"acTL": "further frames",
}
_MOST_METADATA = 8 << 20


@dataclass(frozen=True, kw_only=True)
class PngLayout(Layout):
    """What stands in front of a PNG's pixels."""

    bits: int
    """Of a sample as stored."""
    colour_type: int
    is_interlaced: bool
    palette: bytes = b""
    transparency: bytes = b""

    @property
    def samples(self) -> int:
        """Samples of a pixel as stored."""
        return _SAMPLES[self.colour_type]


def parse(file: BinaryIO) -> PngLayout:
    """Return the layout from the chunks in front of the pixels.

    Raises:
        UnusableError: damaged, or of an unknown kind.
    """
    file.seek(len(SIGNATURE))
    found: dict[bytes, bytes] = {}
    while True:
        head = file.read(8)
        if len(head) < 8:
            raise UnusableError("truncated before its pixels")
        size, kind = struct.unpack(">I4s", head)
        if not found and kind != b"IHDR":
            raise UnusableError(_unknown_start(kind))
        if kind in (b"IDAT", b"IEND"):
            break
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"eXIf") and kind not in found:
            found[kind] = _content(file, size, kind)
        elif not kind[0] & 32 and kind != b"PLTE":
            raise UnusableError(f"its chunk {kind!r} is not supported")
        else:
            file.seek(size + 4, 1)
    return _layout(found)


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield (kind, content) up to IEND; pixels and what decides about them are checked.

    Raises:
        UnusableError: truncated, or a checksum does not hold.
    """
    view = memoryview(data)
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + size
        if end + 4 > len(data):
            break
        content = view[position + 8 : end]
        if not kind[0] & 32 and kind not in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
            raise UnusableError(f"its chunk {kind!r} is not supported")
        if not kind[0] & 32 or kind in (b"tRNS", b"eXIf"):
            stored = int.from_bytes(view[end : end + 4], "big")
            if kind != b"IEND" and zlib.crc32(content, zlib.crc32(kind)) != stored:
                raise UnusableError(f"damaged: the checksum of its chunk {kind!r} does not hold")
        if kind == b"IEND":
            return
        yield kind, content
        position = end + 4
    raise UnusableError(f"the file is truncated ({len(data)} bytes)")


def pixel_chunks(data: bytes, layout: PngLayout) -> list[memoryview]:
    """Return the compressed pixels, a part for each chunk; the whole file is walked through.

    Raises:
        UnusableError: damaged or truncated.
    """
    parts: list[memoryview] = []
    has_ended = False
    for kind, content in chunks(data):
        if kind == b"IDAT" and not has_ended:
            parts.append(content)
        elif parts:
            has_ended = True
            if kind == b"eXIf" and layout.orientation == 1 and exif.orientation(content) != 1:
                raise UnusableError(
                    "an EXIF rotation that stands after its pixels is not supported"
                )
    return parts


def metadata(data: bytes) -> RawMetadata:
    """Return what a checked PNG says beside its pixels."""
    found: dict[bytes, bytes] = {}
    others: list[str] = []
    view = memoryview(data)
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        content = view[position + 8 : position + 8 + size]
        position += 12 + size
        name = _OTHER_CHUNKS.get(kind)
        if name == "text" and bytes(content[:17]) == b"XML:com.adobe.xmp":
            name = "XMP"
        if name is not None:
            others.append(name)
        elif kind in (b"iCCP", b"eXIf", b"pHYs", *_COLOUR_CHUNKS) and kind not in found:
            stored = int.from_bytes(view[position - 4 : position], "big")
            if size > _MOST_METADATA or zlib.crc32(content, zlib.crc32(kind)) != stored:
                others.append(f"damaged or oversized {kind.decode()}")
            else:
                found[kind] = bytes(content)
    profile = found.get(b"iCCP")
    return RawMetadata(
        # Behind its name and the number of the compression method.
        icc=None if profile is None else profile.partition(b"\0")[2][1:],
        icc_is_compressed=True,
        exif=found.get(b"eXIf"),
        density=_density(found.get(b"pHYs", b"")),
        png_colour=tuple((kind, found[kind]) for kind in _COLOUR_CHUNKS if kind in found),
        left_out=tuple(dict.fromkeys(others)),
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return the bytes of a chunk."""
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def with_chunks(data: bytes | memoryview, more: list[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG with chunks put after its header."""
    start = len(SIGNATURE) + 25
    return b"".join([data[:start], *(chunk(*each) for each in more), data[start:]])


def _content(file: BinaryIO, size: int, kind: bytes) -> bytes:
    content = file.read(min(size, _MOST_METADATA))
    if len(content) < size:
        raise UnusableError(f"truncated, or its chunk {kind!r} is too long")
    if zlib.crc32(content, zlib.crc32(kind)) != int.from_bytes(file.read(4), "big"):
        raise UnusableError(f"damaged: the checksum of its chunk {kind!r} does not hold")
    return content


def _unknown_start(kind: bytes) -> str:
    if kind == b"CgBI":
        return "a PNG in Apple's own variant (CgBI) is not supported"
    return f"damaged: it starts with the chunk {kind!r}, expected b'IHDR'"


def _layout(found: dict[bytes, bytes]) -> PngLayout:
    header = found.get(b"IHDR", b"")
    if len(header) != 13:
        raise UnusableError("damaged: no header")
    width, height, bits, colour_type, packing, filters, interlace = struct.unpack(
        ">IIBBBBB", header
    )
    if bits not in _DEPTHS.get(colour_type, ()) or packing or filters or interlace > 1:
        raise UnusableError(
            f"damaged or not supported: bit depth {bits}, colour type {colour_type}, compression "
            f"{packing}, filter {filters}, interlacing {interlace}"
        )
    palette, transparency = found.get(b"PLTE", b""), found.get(b"tRNS", b"")
    if colour_type == 3 and (not palette or len(palette) % 3):
        raise UnusableError("damaged: it has no palette")
    if colour_type in (4, 6) or len(transparency) != _KEYS.get(colour_type, len(transparency)):
        transparency = b""
    has_alpha = colour_type in (4, 6) or bool(transparency)
    block = found.get(b"eXIf")
    return PngLayout(
        height=height,
        width=width,
        channels=3 if colour_type in (2, 3, 6) else 1,
        has_alpha=has_alpha,
        dtype="uint16" if bits == 16 else "uint8",
        orientation=1 if block is None else exif.orientation(block),
        bits=bits,
        colour_type=colour_type,
        is_interlaced=bool(interlace),
        palette=palette,
        transparency=transparency,
    )


def _density(content: bytes) -> tuple[float, float, bool] | None:
    if len(content) != 9:
        return None
    across, down, unit = struct.unpack(">IIB", content)
    if not across or not down:
        return None
    return (across * 0.0254, down * 0.0254, True) if unit == 1 else (across, down, False)
