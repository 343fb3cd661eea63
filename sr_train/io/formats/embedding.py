"""Puts metadata into encoded images, as far as their format holds it."""

import io
import struct
import zlib

from sr_train.io.formats import exif, ifd, jpeg, png, tiff, webp
from sr_train.io.formats.bmp import with_density
from sr_train.io.formats.exif import Tree
from sr_train.io.formats.metadata import Density, Metadata

_PROFILE, _EXIF, _RESOLUTION = "the colour profile", "EXIF", "the resolution (dpi)"
_SRGB_GAMMA = 45455


def embedded(
    suffix: str,
    encoded: bytes | memoryview,
    metadata: Metadata,
    height: int,
    width: int,
    channels: int,
) -> tuple[bytes | memoryview, list[str]]:
    """Return an encoded image with metadata in it, and what its format could not hold, by name.

    Args:
        suffix: of the file, lower case: it says the format.
        encoded: the file without metadata.
        metadata: what to put in.
        height: of the image, pixels.
        width: of the image, pixels.
        channels: colours as encoded, 1 or 3.
    """
    icc, lost = metadata.icc, []
    if icc is not None and metadata.icc_channels != channels:
        kind = "RGB" if metadata.icc_channels == 3 else "grey"
        lost.append(f"{_PROFILE} (for {kind} images)")
        icc = None
    block = None if metadata.exif is None else metadata.exif.block(height, width)
    if suffix == ".png":
        result, more = _png(encoded, metadata, icc, block)
        return result, lost + more
    if metadata.png_colour and not _is_plain(metadata.png_colour):
        kinds = ", ".join(kind.decode() for kind, _ in metadata.png_colour)
        lost.append(f"what a PNG says about its colours ({kinds})")
    if suffix in (".jpg", ".jpeg"):
        result, more = _jpeg(encoded, icc, block, metadata.density)
    elif suffix in (".tif", ".tiff"):
        result = _tiff(encoded, icc, metadata.exif, metadata.density, height, width)
        more = []
    elif suffix == ".webp":
        result = encoded
        if icc is not None or block is not None:
            result = webp.with_chunks(encoded, height, width, icc, block)
        is_told = metadata.exif is not None and metadata.exif.tells_resolution
        more = [_RESOLUTION] if metadata.density is not None and not is_told else []
    else:
        result, more = _bmp(encoded, icc, block, metadata.density)
    return result, lost + more


def _png(
    encoded: bytes | memoryview, metadata: Metadata, icc: bytes | None, block: bytes | None
) -> tuple[bytes | memoryview, list[str]]:
    more, lost = list(metadata.png_colour), []
    if icc is not None:
        more.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    if metadata.density is not None:
        across, down, per_inch = metadata.density
        scale = 1 / 0.0254 if per_inch else 1.0
        sides = (round(across * scale), round(down * scale))
        if all(sides):
            more.append((b"pHYs", struct.pack(">IIB", *sides, per_inch)))
        else:
            lost.append(_RESOLUTION)
    if block is not None:
        more.append((b"eXIf", block))
    return png.with_chunks(encoded, more) if more else encoded, lost


def _jpeg(
    encoded: bytes | memoryview, icc: bytes | None, block: bytes | None, density: Density | None
) -> tuple[bytes | memoryview, list[str]]:
    segments: list[bytes] = []
    lost = []
    if block is not None:
        segment = jpeg.exif_segment(block)
        if segment is None:
            lost.append(f"{_EXIF} (longer than a JPEG can hold)")
        else:
            segments.append(segment)
    if icc is not None:
        profile = jpeg.icc_segments(icc)
        if profile is None:
            lost.append(f"{_PROFILE} (longer than a JPEG can hold)")
        else:
            segments += profile
    numbers = None
    if density is not None:
        across, down, per_inch = density
        sides = (round(across), round(down))
        if all(0 < side < 1 << 16 for side in sides):
            numbers = struct.pack(">BHH", per_inch, *sides)
        else:
            lost.append(_RESOLUTION)
    if not segments and numbers is None:
        return encoded, lost
    return jpeg.with_segments(encoded, segments, numbers), lost


def _bmp(
    encoded: bytes | memoryview, icc: bytes | None, block: bytes | None, density: Density | None
) -> tuple[bytes | memoryview, list[str]]:
    lost = [name for name, found in ((_PROFILE, icc), (_EXIF, block)) if found is not None]
    if density is None:
        return encoded, lost
    across, down, per_inch = density
    if not per_inch:
        return encoded, [*lost, _RESOLUTION]
    return with_density(encoded, round(across / 0.0254), round(down / 0.0254)), lost


def _tiff(
    encoded: bytes | memoryview,
    icc: bytes | None,
    tree: Tree | None,
    density: Density | None,
    height: int,
    width: int,
) -> bytes | memoryview:
    """Return a TIFF with another directory, at its end, in place of its own."""
    file = io.BytesIO(encoded)
    page = tiff.first_page(file)
    order = page.order
    more = {}
    for tag in page.tags():
        value = page.value(tag, len(encoded))
        if value is not None:
            more[tag] = value
    if icc is not None:
        more[34675] = ifd.Value(ifd.UNDEFINED, len(icc), icc)
    if density is not None:
        across, down, per_inch = density
        more[282], more[283] = ifd.rational(order, across), ifd.rational(order, down)
        more[296] = ifd.short(order, 2 if per_inch else 1)
    if icc is None and tree is None and density is None:
        return encoded
    at = len(encoded) + len(encoded) % 2
    if tree is None:
        directory = ifd.written(more, order, at, {})
    else:
        directory = exif.written(tree.in_order(order), height, width, at, more)
    start = bytes(encoded[:4]) + struct.pack(f"{order}I", at)
    return b"".join([start, encoded[8:], bytes(at - len(encoded)), directory])


def _is_plain(chunks: tuple[tuple[bytes, bytes], ...]) -> bool:
    """Return whether they only say what is assumed without them: sRGB."""
    for kind, content in chunks:
        if kind == b"sRGB":
            return True
        if kind == b"cICP" and content[:2] != b"\x01\x0d":
            return False
        if kind == b"gAMA" and abs(int.from_bytes(content, "big") - _SRGB_GAMMA) > 50:
            return False
        if kind == b"cHRM":
            white_and_red = struct.unpack(">4I", content[:16])
            expected = (31270, 32900, 64000, 33000)
            if any(abs(a - b) > 100 for a, b in zip(white_and_red, expected, strict=True)):
                return False
    return True
