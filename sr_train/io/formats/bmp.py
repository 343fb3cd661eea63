"""BMP: uncompressed kinds read here, run lengths by Pillow.

OpenCV makes 248 of the white of 16-bit files, and garbage of those with an OS/2 header.
"""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from sr_train.io.formats.layout import Layout, Planes, UnusableError, unpacked
from sr_train.io.formats.metadata import RawMetadata

_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}
_PLAIN, _RUN_LENGTHS, _MASKS, _ALPHA_MASKS = 0, (1, 2), 3, 6
_DEFAULT_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
_EMBEDDED, _LINKED = b"DEBM", b"KNIL"
_DENSITY_AT = 38
_MOST_RUN_LENGTHS = 16 << 20
"""Bytes; Pillow takes a second for a few millions."""


@dataclass(frozen=True, kw_only=True)
class BmpLayout(Layout):
    """What a BMP's header says."""

    bits: int
    """Of a pixel as stored."""
    compression: int
    is_top_down: bool
    start: int
    """Offset of the pixels."""
    palette: bytes
    """RGB of each colour."""
    masks: tuple[int, int, int, int]
    """Red, green, blue, alpha; zeros where they say nothing."""


def parse(file: BinaryIO) -> BmpLayout:
    """Return the layout.

    Raises:
        UnusableError: damaged, or of a kind that is not supported.
    """
    file.seek(0)
    head = file.read(14 + 124)
    if len(head) < 26:
        raise UnusableError("truncated before its pixels")
    start, size = struct.unpack_from("<II", head, 10)
    if size not in _HEADERS or len(head) < 14 + size:
        raise UnusableError(f"damaged or not supported: a header of {size} bytes")
    if size == 12:
        width, height, planes, bits = struct.unpack_from("<HHHH", head, 18)
        compression, used = _PLAIN, 0
    else:
        width, height, planes, bits = struct.unpack_from("<iiHH", head, 18)
        compression, used = struct.unpack_from("<I12xI", head.ljust(54, b"\0"), 30)
    _check_kind(planes, bits, compression, size)
    masks, behind = _masks(head, size, bits, compression)
    file.seek(behind)
    palette = _palette(file, bits, used, 3 if size == 12 else 4) if bits <= 8 else b""
    return BmpLayout(
        height=abs(height),
        width=width,
        channels=1 if bits <= 8 and _is_grey(palette) else 3,
        has_alpha=bool(masks[3]),
        dtype="uint8",
        bits=bits,
        compression=compression,
        is_top_down=height < 0,
        start=start,
        palette=palette,
        masks=masks,
    )


def decode(data: bytes, layout: BmpLayout) -> Planes:
    """Return colours and alpha of a BMP.

    Raises:
        UnusableError: truncated.
    """
    if layout.compression in _RUN_LENGTHS:
        return _run_lengths(data, layout), None
    row_bytes = -(-layout.width * layout.bits // 32) * 4
    size = row_bytes * layout.height
    if layout.start + size > len(data):
        raise UnusableError(f"the file is truncated ({len(data)} bytes)")
    stored = np.frombuffer(data, np.uint8, size, layout.start).reshape(layout.height, row_bytes)
    rows = stored if layout.is_top_down else stored[::-1]
    if layout.bits <= 8:
        indices = rows[:, : layout.width]
        if layout.bits < 8:
            indices = unpacked(np.ascontiguousarray(rows), layout.bits, layout.width)
        return _coloured(indices, layout), None
    planes = layout.empty()
    pixels, alpha = planes
    if layout.bits == 24 or layout.masks == _DEFAULT_MASKS[32]:
        size = layout.bits // 8
        used = np.ascontiguousarray(rows[:, : layout.width * size])
        code = cv2.COLOR_BGR2RGB if size == 3 else cv2.COLOR_BGRA2RGB
        cv2.cvtColor(used.reshape(layout.height, layout.width, size), code, dst=pixels)
        return planes
    numbers = rows.view(f"<u{layout.bits // 8}")[:, : layout.width]
    for plane, mask in zip(np.moveaxis(pixels, -1, 0), layout.masks[:3], strict=True):
        plane[...] = _masked(numbers, mask)
    if alpha is not None:
        alpha[...] = _masked(numbers, layout.masks[3])
    return planes


def metadata(data: bytes) -> RawMetadata:
    """Return what the header says beside the pixels."""
    (size,) = struct.unpack_from("<I", data, 14)
    if size < 40:
        return RawMetadata()
    across, down = struct.unpack_from("<ii", data, _DENSITY_AT)
    density = (across * 0.0254, down * 0.0254, True) if across > 0 and down > 0 else None
    profile, others = None, []
    if size >= 108:
        space = data[70:74]
        if space == _EMBEDDED and size >= 124:
            start, length = struct.unpack_from("<II", data, 126)
            profile = data[14 + start : 14 + start + length]
        elif space == _LINKED:
            others.append("a linked colour profile")
        elif space == bytes(4) and any(data[74:122]):
            others.append("colour calibration")
    return RawMetadata(icc=profile, density=density, left_out=tuple(others))


def with_density(data: bytes | memoryview, across: int, down: int) -> bytes:
    """Return a BMP that states its pixels per metre."""
    at = _DENSITY_AT
    return b"".join([data[:at], struct.pack("<ii", across, down), data[at + 8 :]])


def _check_kind(planes: int, bits: int, compression: int, size: int) -> None:
    kinds = {
        _PLAIN: (1, 2, 4, 8, 16, 24, 32),
        1: (8,),
        2: (4,),
        _MASKS: (16, 32) if size not in (16, 64) else (),
        _ALPHA_MASKS: (16, 32),
    }
    if planes != 1 or bits not in kinds.get(compression, ()):
        raise UnusableError(
            f"damaged or not supported: {planes} planes, {bits} bits, compression {compression}"
        )


def _masks(
    head: bytes, size: int, bits: int, compression: int
) -> tuple[tuple[int, int, int, int], int]:
    """Return the masks of red, green, blue and alpha, and the offset after the header."""
    behind = 14 + size
    if bits not in _DEFAULT_MASKS:
        return (0, 0, 0, 0), behind
    if compression == _PLAIN:
        return _DEFAULT_MASKS[bits], behind
    red, green, blue, alpha = struct.unpack_from("<IIII", head.ljust(70, b"\0"), 54)
    if size == 40:
        behind += 12 if compression == _MASKS else 16
    if size < 56 and compression == _MASKS:
        alpha = 0
    masks = red, green, blue, alpha
    if 0 in masks[:3] or not all(_is_run(mask, bits) for mask in masks) or _overlap(masks):
        shown = " ".join(f"{mask:#x}" for mask in masks)
        raise UnusableError(f"damaged or not supported: colour masks {shown}")
    return masks, behind


def _is_run(mask: int, bits: int) -> bool:
    """Return whether the bits of a mask stand side by side, at most 16, in pixels of so many."""
    run = mask >> max(0, (mask & -mask).bit_length() - 1)
    return not mask >> bits and not run & (run + 1) and run < 1 << 16


def _overlap(masks: tuple[int, int, int, int]) -> bool:
    red, green, blue, alpha = masks
    return (red | green | blue | alpha) != red + green + blue + alpha


def _palette(file: BinaryIO, bits: int, used: int, entry: int) -> bytes:
    """Return RGB of each colour of a palette of (B, G, R) or (B, G, R, 0)."""
    count = min(used or 1 << bits, 1 << bits)
    stored = np.frombuffer(file.read(count * entry), np.uint8)
    if len(stored) < count * entry:
        raise UnusableError("truncated in its palette")
    return stored.reshape(count, entry)[:, 2::-1].tobytes()


def _is_grey(palette: bytes) -> bool:
    """Return whether a palette only says that indices are grey levels, or black and white."""
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    levels = np.array([0, 255]) if len(colours) == 2 else np.arange(len(colours))
    return bool((colours == levels[:, None]).all())


def _coloured(indices: np.ndarray, layout: BmpLayout) -> np.ndarray:
    """Return the colours of indices, black where the palette has none."""
    colours = np.zeros((256, 3), np.uint8)
    palette = np.frombuffer(layout.palette, np.uint8).reshape(-1, 3)
    colours[: len(palette)] = palette
    return np.ascontiguousarray(colours[:, : layout.channels][indices])


def _masked(numbers: np.ndarray, mask: int) -> np.ndarray:
    """Return the values of a mask, stretched so that the largest becomes 255."""
    shift = (mask & -mask).bit_length() - 1
    top = mask >> shift
    values = (numbers & numbers.dtype.type(mask)) >> numbers.dtype.type(shift)
    if top == 255:
        return values
    levels = (np.arange(top + 1) * 510 + top) // (2 * top)
    return levels.astype(np.uint8)[values]


def _run_lengths(data: bytes, layout: BmpLayout) -> np.ndarray:
    if layout.is_top_down:
        raise UnusableError("run lengths from top to bottom are not supported")
    if len(data) > _MOST_RUN_LENGTHS:
        raise UnusableError(f"{len(data)} bytes of run lengths are not supported; save it again")
    try:
        with Image.open(io.BytesIO(data), formats=("BMP",)) as image:
            indices = np.array(image)
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UnusableError(f"cannot be decoded: {error}") from None
    if indices.shape != (layout.height, layout.width):
        raise UnusableError(f"decoded to {indices.shape}, expected {layout.height, layout.width}")
    return _coloured(indices, layout)
