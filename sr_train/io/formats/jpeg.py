"""JPEG: its segments, and its pixels by libjpeg-turbo, whose warnings count as damage."""

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import simplejpeg

from sr_train.io.formats import exif
from sr_train.io.formats.layout import Layout, Planes, UnusableError
from sr_train.io.formats.metadata import Density, RawMetadata

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SUPPORTED_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA}
"""Sequential, progressive and lossless; Huffman or arithmetic coding."""
_SEQUENTIAL = {0xC0, 0xC1, 0xC9}
_PROGRESSIVE = {0xC2, 0xCA}
_LOSSLESS = 0xC3
_SCAN, _FILL = 0xDA, 0xFF
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_XMP_MORE, _IPTC, _MPF = b"http://ns.adobe.com/xmp/extension/\0", b"Photoshop 3.0\0", b"MPF\0"
_MOST_SEGMENT = 0xFFFF - 2
_MOST_SCANS, _MOST_SCANNED = 100, 20_000
"""Scans, and scans times megapixels, of one image."""
_HARMLESS = re.compile(
    r"unknown JFIF revision|Invalid SOS parameters|extraneous bytes before marker 0xd9"
)
_SAMPLING = {(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4)}


@dataclass(frozen=True, kw_only=True)
class JpegLayout(Layout):
    """What the segments in front of a JPEG's first scan say."""

    frame: int
    """Kind of its frame: the second byte of the marker."""
    components: bytes
    """Their numbers."""
    scan: int
    """Offset of the first scan's marker."""


def parse(file: BinaryIO) -> JpegLayout:
    """Return the layout from the segments in front of the first scan.

    Raises:
        UnusableError: damaged, or of a kind that is not supported.
    """
    position = 2
    turn: int | None = None
    frame: tuple[int, bytes] | None = None
    while (marker := _marker(file, position)) != _SCAN:
        if marker == _FILL:
            position += 1
            continue
        size = int.from_bytes(file.read(2), "big")
        if marker in _START_OF_FRAME:
            frame = marker, _segment(file, size)
        elif marker == 0xE1 and turn is None:
            content = _segment(file, size)
            if content.startswith(_EXIF):
                turn = exif.orientation(content[len(_EXIF) :])
        position += 2 + size
    if frame is None:
        raise UnusableError("damaged: its pixels begin before their size is given")
    return _layout(*frame, turn or 1, position)


def decode(data: bytes, layout: JpegLayout) -> Planes:
    """Return the colours of a JPEG, not oriented; it has no alpha.

    Raises:
        UnusableError: damaged or truncated, by what libjpeg-turbo warns of or by lacking scans.
    """
    several = layout.frame in _PROGRESSIVE or not _holds_all(data, layout.scan, layout.components)
    if several and layout.frame != _LOSSLESS:
        _check_scans(data, layout)
    return _decoded(data, layout), None


def _decoded(data: bytes, layout: JpegLayout) -> np.ndarray:
    """Return (H, W, channels); what libjpeg-turbo warns of is an error, but what is harmless."""
    colours = "RGB" if layout.channels == 3 else "GRAY"
    try:
        return simplejpeg.decode_jpeg(data, colours)
    except ValueError as error:
        words = str(error)
    if _HARMLESS.search(words):
        try:
            return simplejpeg.decode_jpeg(_fixed(data, layout), colours)
        except ValueError as error:
            words = str(error)
    if "Premature end of JPEG file" in words:
        raise UnusableError(f"the file is truncated ({len(data)} bytes)")
    raise UnusableError(f"damaged or truncated ({len(data)} bytes); libjpeg says: {words}")


def metadata(data: bytes) -> RawMetadata:
    """Return what the segments in front of the first scan say beside the pixels."""
    block: bytes | None = None
    density: Density | None = None
    profile: dict[int, bytes] = {}
    others: list[str] = []
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD9:
            position += 1 if marker == 0xFF else 2
            continue
        content = data[position + 4 : position + 2 + size]
        position += 2 + size
        if marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 12:
            density = _density(content)
        elif marker == 0xE1 and content.startswith(_EXIF) and block is None:
            block = content[len(_EXIF) :]
        elif marker == 0xE2 and content.startswith(_ICC) and len(content) > 14:
            profile[content[12]] = content[14:]
        else:
            others += _named(marker, content)
    parts = [profile[number] for number in sorted(profile)]
    return RawMetadata(
        icc=b"".join(parts) if parts else None,
        exif=block,
        density=density,
        left_out=tuple(dict.fromkeys(others)),
    )


def with_segments(data: bytes | memoryview, segments: list[bytes], density: bytes | None) -> bytes:
    """Return a JPEG that begins with a JFIF segment, with another density and more segments.

    Args:
        data: the file.
        segments: markers with their contents, to go after the JFIF segment.
        density: the five bytes of unit and numbers; None: as they are.
    """
    end = 4 + int.from_bytes(data[4:6], "big")
    head = bytes(data[:end])
    if density is not None and head[6:11] == b"JFIF\0":
        head = head[:13] + density + head[18:]
    return b"".join([head, *segments, data[end:]])


def exif_segment(block: bytes) -> bytes | None:
    """Return the segment of an EXIF block; None where it is too long."""
    return _written(0xE1, _EXIF + block)


def icc_segments(profile: bytes) -> list[bytes] | None:
    """Return the segments of a colour profile; None where it is too long."""
    step = _MOST_SEGMENT - 14
    parts = [profile[start : start + step] for start in range(0, len(profile), step)]
    if len(parts) > 255:
        return None
    heads = (_ICC + bytes([number, len(parts)]) for number in range(1, len(parts) + 1))
    segments = [_written(0xE2, head + part) for head, part in zip(heads, parts, strict=True)]
    return [each for each in segments if each is not None]


def _written(marker: int, content: bytes) -> bytes | None:
    if len(content) > _MOST_SEGMENT:
        return None
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _marker(file: BinaryIO, position: int) -> int:
    """Return the marker at a place before the pixels; the file stands after it then.

    Raises:
        UnusableError: there is none, or one that has no place there.
    """
    file.seek(position)
    head = file.read(2)
    if len(head) < 2:
        raise UnusableError("the file is truncated before its pixels")
    if head[0] != 0xFF:
        raise UnusableError(f"damaged: found {head!r} at byte {position}, expected a marker")
    if head[1] <= 0x01 or 0xD0 <= head[1] <= 0xD9:
        raise UnusableError(f"damaged: found the marker {head!r} in front of its pixels")
    return head[1]


def _segment(file: BinaryIO, size: int) -> bytes:
    """Return what follows a segment's length.

    Raises:
        UnusableError: there is less.
    """
    content = file.read(max(0, size - 2))
    if size < 2 or len(content) < size - 2:
        raise UnusableError("the file is truncated before its pixels")
    return content


def _layout(frame: int, content: bytes, turn: int, scan: int) -> JpegLayout:
    if frame not in _SUPPORTED_FRAMES:
        raise UnusableError(f"JPEG frames of kind 0x{frame:02x} are not supported")
    if len(content) < 6 or len(content) < 6 + 3 * content[5]:
        raise UnusableError("damaged: its size is not given in full")
    bits, height, width, count = struct.unpack_from(">BHHB", content)
    parts = [content[6 + 3 * number : 9 + 3 * number] for number in range(count)]
    if bits != 8:
        raise UnusableError(f"JPEG of {bits} bits is not supported; convert to 8 bit")
    if count == 4:
        raise UnusableError("pixels of kind 'CMYK' are not supported; convert to grey or RGB")
    if count not in (1, 3):
        raise UnusableError(f"JPEG of {count} components is not supported; convert to grey or RGB")
    if height == 0:
        raise UnusableError("a JPEG whose height stands after its pixels (DNL) is not supported")
    factors = [(part[1] >> 4, part[1] & 15) for part in parts]
    if count == 3 and not _is_known_sampling(factors):
        shown = ",".join(f"{across}x{down}" for across, down in factors)
        raise UnusableError(f"chroma subsampling of {shown} is not supported; save it as 4:2:0")
    return JpegLayout(
        height=height,
        width=width,
        channels=count,
        has_alpha=False,
        dtype="uint8",
        orientation=turn,
        frame=frame,
        components=bytes(part[0] for part in parts),
        scan=scan,
    )


def _is_known_sampling(factors: list[tuple[int, int]]) -> bool:
    """Return whether TurboJPEG has a name for these sampling factors, as 4:2:0 is one."""
    luma, first, second = factors
    if first != second:
        return False
    if first == (1, 1):
        return luma in _SAMPLING
    return (luma, first) in {((2, 2), (1, 2)), ((2, 2), (2, 1))} or luma == first


def _density(jfif: bytes) -> Density | None:
    unit, across, down = struct.unpack_from(">BHH", jfif, 7)
    if not across or not down:
        return None
    if unit not in (1, 2):
        # 1:1 says nothing.
        return None if across == down else (float(across), float(down), False)
    per_inch = 1.0 if unit == 1 else 2.54
    return across * per_inch, down * per_inch, True


def _named(marker: int, content: bytes) -> list[str]:
    """Return what a segment is called that is not taken along."""
    if marker == 0xE1 and content.startswith((_XMP, _XMP_MORE)):
        return ["XMP"]
    if marker == 0xED and content.startswith(_IPTC):
        return ["IPTC and Photoshop's resources"]
    if marker == 0xE2 and content.startswith(_MPF):
        return ["further images"]
    if marker == 0xFE:
        return ["comment"]
    known = marker in (0xE0, 0xEE) or not 0xE0 <= marker <= 0xEF
    return [] if known else [f"segment APP{marker - 0xE0}"]


def _holds_all(data: bytes, scan: int, components: bytes) -> bool:
    """Return whether a scan holds every component."""
    return len(data) > scan + 4 and data[scan + 4] == len(components)


def _check_scans(data: bytes, layout: JpegLayout) -> None:
    """Raise where scans are missing, of which libjpeg says nothing, or absurdly many."""
    missing = {number: np.ones(64, bool) for number in layout.components}
    rough = {number: np.zeros(64, np.uint8) for number in layout.components}
    position, scans = layout.scan, 0
    is_progressive = layout.frame in _PROGRESSIVE
    while position + 4 <= len(data):
        marker, size = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xD9:
            break
        if marker == 0xDA:
            scans += 1
            content = data[position + 4 : position + 2 + size]
            count = content[0] if content else 0
            if len(content) < 4 + 2 * count:
                break
            first, last, steps = content[1 + 2 * count : 4 + 2 * count]
            for number in content[1 : 1 + 2 * count : 2]:
                if number in missing:
                    where = slice(first, last + 1) if is_progressive else slice(None)
                    missing[number][where] = False
                    rough[number][where] = steps & 15 if is_progressive else 0
        position = _next_marker(data, position + 2 + size, marker == 0xDA)
    if scans > _MOST_SCANS and scans * layout.height * layout.width > _MOST_SCANNED * 1e6:
        raise UnusableError(f"a JPEG of {scans} scans is not supported; save it again")
    if any(each.any() for each in (*missing.values(), *rough.values())):
        raise UnusableError(f"the file is truncated ({len(data)} bytes): it lacks scans")


def _next_marker(data: bytes, position: int, is_behind_scan: bool) -> int:
    """Return the offset of the next marker; the file's length where there is none."""
    if not is_behind_scan and data[position : position + 1] == b"\xff":
        while data[position + 1 : position + 2] == b"\xff":
            position += 1
        return position
    found = _MARKER.search(data, position)
    return len(data) if found is None else found.start()


def _fixed(data: bytes, layout: JpegLayout) -> bytes:
    """Return a JPEG without what some cameras write and libjpeg warns of, but is no damage.

    Another JFIF version than 1; the parameters of a sequential scan, which say nothing; padding
    in front of the end marker. Bytes there that are no padding show that data was lost.
    """
    fixed = bytearray(data)
    version = data.find(b"JFIF\0", 0, 64)
    if version >= 0:
        fixed[version + 5 : version + 7] = b"\x01\x02"
    if layout.frame in _SEQUENTIAL and layout.scan + 4 < len(data):
        content = layout.scan + 5 + 2 * data[layout.scan + 4]
        if content + 3 <= len(data):
            fixed[content : content + 3] = b"\x00\x3f\x00"
    end = data.find(b"\xff\xd9", layout.scan)
    kept = len(data[:end].rstrip(b"\0"))
    if end > kept > 0:
        # A zero after 0xff belongs to the data.
        kept += data[kept - 1] == 0xFF
        del fixed[kept:end]
    return bytes(fixed)
