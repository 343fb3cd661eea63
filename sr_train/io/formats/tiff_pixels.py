"""The pixels of a TIFF: strips and tiles are unpacked to bytes, and the bytes read by the tags.

Stored and deflated parts are unpacked here; libtiff, as OpenCV has it, gets the others as grey
images of bytes, so that what the bytes mean is decided in one place. JPEG goes to
libjpeg-turbo as in JPEG files. Beside file and image, memory holds some of the parts.
"""

import io
import lzma
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import BinaryIO

import cv2
import numpy as np

from sr_train.io.formats import ifd, jpeg, tiff
from sr_train.io.formats.ifd import Directory
from sr_train.io.formats.layout import MAX_SIDE, Planes, UnusableError, unpacked
from sr_train.io.formats.tiff import TiffLayout

_GROUP_BYTES = 16 << 20
_CACHED_ROWS = 16
_MOST_OF_LIBTIFF = 1 << 30
_MOST_LZMA = 512 << 20
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


@dataclass(frozen=True)
class _Part:
    """A strip or tile."""

    data: bytes
    top: int
    left: int
    rows: int
    """That it holds, also beyond the image's edge."""
    plane: int | None
    """The one sample that it holds; None: all."""


def decode(file: BinaryIO, layout: TiffLayout) -> Planes:
    """Return colours and alpha of the first page, not oriented; of others nothing is read.

    Raises:
        UnusableError: damaged or truncated.
    """
    page = tiff.first_page(file)
    colours = _palette(page, layout)
    planes = layout.empty()
    for run in _runs(_parts(file, page, layout), layout):
        samples = _samples(run, page, layout)
        # Strips lie below each other, as their samples do.
        first = 0
        for part in run if layout.is_tiled else [replace(run[0], rows=len(samples))]:
            rows = min(part.rows, layout.height - part.top)
            columns = min(layout.tile[1], layout.width - part.left)
            where = slice(part.top, part.top + rows), slice(part.left, part.left + columns)
            stored = samples[first : first + rows, :columns]
            _place(stored, part.plane, layout, colours, planes, where)
            first += part.rows
    if layout.is_premultiplied and planes[1] is not None:
        _divide(planes[0], planes[1])
    return planes


def _runs(parts: Iterable[_Part], layout: TiffLayout) -> Iterator[list[_Part]]:
    """Yield parts of one plane that follow each other, all as high as the first but the last."""
    run: list[_Part] = []
    for part in parts:
        at_once = 1 if layout.compression == tiff.JPEG else _GROUP_BYTES // _row_bytes(layout)
        fits = run and part.plane == run[0].plane and part.rows <= run[0].rows == run[-1].rows
        if run and not (fits and len(run) * part.rows < at_once):
            yield run
            run = []
        run.append(part)
    yield run


def _parts(file: BinaryIO, page: Directory, layout: TiffLayout) -> Iterator[_Part]:
    tile_rows, tile_columns = layout.tile
    tops = range(0, layout.height, tile_rows)
    lefts = range(0, layout.width, tile_columns)
    planes: Sequence[int | None] = range(layout.samples) if layout.is_planar else (None,)
    count = len(planes) * len(tops) * len(lefts)
    every = tiff.places(page, layout.is_tiled, count, tile_rows * _row_bytes(layout))
    spots = ((plane, top, left) for plane in planes for top in tops for left in lefts)
    size = file.seek(0, io.SEEK_END)
    for (plane, top, left), (start, length) in zip(spots, every, strict=True):
        rows = tile_rows if layout.is_tiled else min(tile_rows, layout.height - top)
        if layout.compression == tiff.NONE:
            length = min(length, rows * _row_bytes(layout))
        if start + length > size:
            raise UnusableError(f"the file is truncated ({size} bytes)")
        file.seek(start)
        found = file.read(length)
        if layout.reverses_bits:
            found = found.translate(_REVERSED)
        yield _Part(found, top, left, rows, plane)


def _row_bytes(layout: TiffLayout) -> int:
    samples = 1 if layout.is_planar else layout.samples
    return -(-layout.tile[1] * samples * layout.bits // 8)


def _samples(run: list[_Part], page: Directory, layout: TiffLayout) -> np.ndarray:
    """Return (rows, columns, samples), uint8 or uint16, of parts below each other."""
    if layout.compression == tiff.JPEG:
        return _jpeg(run[0], page, layout)
    unpack = _of_libtiff if layout.compression in _BY_LIBTIFF else _by_hand
    rows = unpack(run, page, layout)
    if layout.bits < 8:
        return unpacked(rows, layout.bits, layout.tile[1])[..., None]
    numbers = rows if layout.bits == 8 else rows.view(f"{layout.order}u2")
    numbers = numbers.reshape(len(rows), layout.tile[1], 1 if layout.is_planar else layout.samples)
    return _summed(numbers.astype(layout.dtype)) if layout.predictor == 2 else numbers


def _summed(numbers: np.ndarray) -> np.ndarray:
    """Sum (rows, columns, samples) up along the columns, in place, modulo the dtype.

    By doubling distances, which is twice as fast as NumPy's own running sum.
    """
    rows, columns, samples = numbers.shape
    flat = numbers.reshape(rows, columns * samples)
    for first in range(0, rows, _CACHED_ROWS):
        band = flat[first : first + _CACHED_ROWS]
        distance = samples
        while distance < band.shape[1]:
            band[:, distance:] = band[:, distance:] + band[:, :-distance]
            distance *= 2
    return numbers


def _by_hand(run: list[_Part], page: Directory, layout: TiffLayout) -> np.ndarray:
    """Return (rows, row bytes) of stored or deflated parts."""
    row_bytes = _row_bytes(layout)
    pieces: list[bytes] = []
    for part in run:
        size = part.rows * row_bytes
        if layout.compression == tiff.NONE:
            pieces.append(part.data[:size])
        else:
            pieces.append(_inflated(part.data, size, layout.compression == tiff.LZMA))
        if len(pieces[-1]) < size:
            raise UnusableError(f"truncated: a part has {len(pieces[-1])} bytes, expected {size}")
    found = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    return np.frombuffer(found, np.uint8).reshape(-1, row_bytes)


def _inflated(data: bytes, size: int, is_lzma: bool) -> bytes:
    """Return the first `size` bytes; checksums are held against them where they are all."""
    stream = lzma.LZMADecompressor(memlimit=_MOST_LZMA) if is_lzma else zlib.decompressobj()
    try:
        found = stream.decompress(data, size)
        if len(found) == size and not stream.eof:
            rest = b"" if is_lzma else stream.unconsumed_tail  # type: ignore[union-attr]
            stream.decompress(rest, 1 << 20)
    except (zlib.error, lzma.LZMAError) as error:
        raise UnusableError(f"damaged: a part cannot be unpacked: {error}") from None
    return found


_BY_LIBTIFF = {tiff.LZW, tiff.PACKBITS, *tiff.FAX}


def _of_libtiff(parts: list[_Part], page: Directory, layout: TiffLayout) -> np.ndarray:
    """Return (rows, row bytes) of parts below each other."""
    is_fax = layout.compression in tiff.FAX
    rows, row_bytes = sum(part.rows for part in parts), _row_bytes(layout)
    if row_bytes > MAX_SIDE or rows * row_bytes > _MOST_OF_LIBTIFF:
        raise UnusableError(
            f"TIFF with Compression={layout.compression} in rows of {row_bytes} bytes, {rows} in a "
            "part, is not supported; save it in smaller strips or tiles"
        )
    order = "<"
    tags = {
        256: ifd.long(order, layout.tile[1] if is_fax else row_bytes),
        257: ifd.long(order, rows),
        258: ifd.short(order, 1 if is_fax else 8),
        259: ifd.short(order, layout.compression),
        262: ifd.short(order, 1),
        277: ifd.short(order, 1),
        278: ifd.long(order, parts[0].rows),
    }
    if is_fax:
        tags |= {tag: ifd.long(order, page.integer(tag, 0)) for tag in (292, 293) if tag in page}
    lengths = [len(part.data) for part in parts]
    *offsets, behind = accumulate(lengths, initial=8)
    tags[273] = ifd.longs(order, offsets)
    tags[279] = ifd.longs(order, lengths)
    end = behind + behind % 2
    pieces = [b"II*\0", struct.pack("<I", end)]
    pieces += [*(part.data for part in parts), bytes(end - behind)]
    stack = b"".join([*pieces, ifd.written(tags, order, end, {})])
    try:
        found = cv2.imdecode(np.frombuffer(stack, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise UnusableError(f"damaged: a part cannot be unpacked: {error}") from None
    if found is None or found.ndim != 2:
        raise UnusableError("damaged or truncated: a part cannot be unpacked")
    return np.packbits(found > 0, axis=1) if is_fax else found


def _jpeg(part: _Part, page: Directory, layout: TiffLayout) -> np.ndarray:
    """Return (rows, columns, samples) of a part that is a JPEG stream."""
    samples = 1 if layout.is_planar else layout.samples
    value = page.value(347, 1 << 20)
    tables = b"" if value is None else value.data
    body = part.data
    if tables[:2] == b"\xff\xd8" and tables[-2:] == b"\xff\xd9":
        body = tables[:-2] + body[2:]
    # The tag says what the colours are, not a guess: 1 is YCbCr, 0 is none.
    transform = 1 if layout.photometric == tiff.YCBCR and samples == 3 else 0
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([transform])
    body = body[:2] + adobe + body[2:]
    found = jpeg.parse(io.BytesIO(body))
    rows, columns = found.height - part.rows, found.width - layout.tile[1]
    if found.channels != samples or not (0 <= rows < 64 and 0 <= columns < 64):
        raise UnusableError(
            f"damaged: a part is {found.width}x{found.height} pixels of {found.channels}, expected "
            f"{layout.tile[1]}x{part.rows} of {samples}"
        )
    return jpeg.decode(body, found)[0]


def _place(
    stored: np.ndarray,
    plane: int | None,
    layout: TiffLayout,
    colours: np.ndarray | None,
    planes: Planes,
    where: tuple[slice, slice],
) -> None:
    """Write the samples of a part to where they belong."""
    pixels, alpha = planes
    numbers = range(layout.samples) if plane is None else range(plane, plane + 1)
    if plane is None and colours is None and layout.channels == 3:
        pixels[where] = stored[..., :3]
        numbers = range(3, layout.samples)
    for number in numbers:
        sample = stored[..., number if plane is None else 0]
        if number == layout.alpha_sample and alpha is not None:
            alpha[where] = sample
        elif number == 0 and colours is not None:
            pixels[where] = colours[sample]
        elif number < layout.channels and colours is None:
            pixels[(*where, number)] = _grey(sample, layout) if layout.channels == 1 else sample


def _grey(sample: np.ndarray, layout: TiffLayout) -> np.ndarray:
    """Return grey levels up to the dtype's maximum."""
    if layout.bits < 8:
        sample = sample * np.uint8(255 // ((1 << layout.bits) - 1))
    if layout.photometric == tiff.WHITE_IS_ZERO:
        return np.iinfo(layout.dtype).max - sample
    return sample


def _palette(page: Directory, layout: TiffLayout) -> np.ndarray | None:
    """Return (2**bits, 3) uint8 colours; None where the samples are colours themselves."""
    if layout.photometric != tiff.PALETTE:
        return None
    count = 1 << layout.bits
    found = page.integers(320)
    if len(found) != 3 * count or not 0 <= min(found) <= max(found) < 1 << 16:
        raise UnusableError(
            f"damaged: a ColorMap of {len(found)} values, expected {3 * count} of 16 bits"
        )
    colours = np.array(found, np.uint16).reshape(3, count).T
    # Some writers put 8-bit values there.
    return (colours if colours.max() < 256 else colours >> 8).astype(np.uint8)


def _divide(pixels: np.ndarray, alpha: np.ndarray) -> None:
    """Divide colours by alpha, in place; what is fully transparent is black."""
    top = int(np.iinfo(pixels.dtype).max)
    for row, opacity in zip(pixels, alpha, strict=True):
        wide = opacity.astype(np.uint64)[:, None]
        divided = np.minimum(row.astype(np.uint64) * top // np.maximum(wide, 1), top)
        row[...] = np.where(wide == 0, 0, divided)
