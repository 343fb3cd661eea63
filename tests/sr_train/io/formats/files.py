"""Makes small image files byte by byte, of kinds that no library writes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from sr_train.io.formats import ifd

ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def noise(height, width, channels, dtype=np.uint8, seed=5):
    top = np.iinfo(dtype).max + 1
    return np.random.default_rng(seed).integers(0, top, (height, width, channels), dtype)


def smooth(height, width):
    """Return (H, W, 3) uint8 that JPEG packs well, with some structure."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 3 + y, 255 - x * 2, 128 + 90 * np.sin(x / 9) * np.cos(y / 7)]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def saved(pixels, kind, **options):
    """Return the bytes of a file that Pillow writes."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def packed(values, bits):
    """Return (H, bytes) of (H, W) values of so many bits, the first in the highest bits."""
    spread = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(len(values), -1).astype(np.uint8), axis=1)


def png_chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(header, stream, before=(), behind=()):
    """Return a PNG.

    Args:
        header: width, height, bit depth, colour type, interlacing.
        stream: compressed rows; a list: of each IDAT.
        before: chunks in front of the pixels.
        behind: chunks behind them.
    """
    width, height, bits, colour, interlace = header
    ihdr = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    parts = [stream] if isinstance(stream, bytes) else stream
    chunks = [(b"IHDR", ihdr), *before, *((b"IDAT", part) for part in parts), *behind]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in [*chunks, (b"IEND", b"")])


def filtered(rows, pixel_bytes, filters):
    """Return rows of bytes behind the number of their filter, as PNG has them."""
    out = []
    above = np.zeros_like(rows[0])
    for number, row in enumerate(rows):
        kind = filters[number % len(filters)]
        left, corner = (
            np.concatenate([np.zeros(pixel_bytes, np.uint8), each])[: len(row)].astype(int)
            for each in (row, above)
        )
        up = above.astype(int)
        guess = left + up - corner
        distances = [abs(guess - each) for each in (left, up, corner)]
        nearest = np.select(
            [
                (distances[0] <= distances[1]) & (distances[0] <= distances[2]),
                distances[1] <= distances[2],
            ],
            [left, up],
            corner,
        )
        prediction = [0, left, up, (left + up) // 2, nearest][kind]
        out.append(bytes([kind]) + (row - prediction).astype(np.uint8).tobytes())
        above = row
    return b"".join(out)


def tiff(samples, tags=(), order="<", big=False):
    """Return an uncompressed TIFF of one strip.

    Args:
        samples: bytes as they are to be stored.
        tags: value or values by tag; None: without that tag; a `Value`: as it is.
        order: `<` or `>`.
        big: a BigTIFF.
    """
    start = 16 if big else 8
    values = {259: 1, 273: start, 277: 1, 279: len(samples), **dict(tags)}
    given = {tag: value for tag, value in values.items() if value is not None}
    entries = {tag: _value(value, order) for tag, value in given.items()}
    end = start + len(samples) + len(samples) % 2
    pad = bytes(len(samples) % 2)
    if not big:
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", end)
        return head + samples + pad + ifd.written(entries, order, end, {})
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, end)
    directory = struct.pack(f"{order}Q", len(entries))
    behind, tail = end + 8 + 20 * len(entries) + 8, b""
    for tag, value in sorted(entries.items()):
        data = value.data
        if len(data) > 8:
            data, tail = struct.pack(f"{order}Q", behind + len(tail)), tail + data
        directory += struct.pack(f"{order}HHQ", tag, value.type, value.count) + data.ljust(8, b"\0")
    return head + samples + pad + directory + bytes(8) + tail


def _value(value, order):
    if isinstance(value, ifd.Value):
        return value
    numbers = [value] if isinstance(value, int) else list(value)
    make = ifd.longs if max(numbers) > 0xFFFF or isinstance(value, int) else ifd.short
    return make(order, numbers) if make is ifd.longs else make(order, *numbers)


def bmp(bits, width, height, data, compression=0, size=40, behind=b"", top_down=False, used=0):
    """Return a BMP; `behind` stands between header and pixels (masks beyond it, palette)."""
    if size == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        sides = (width, -height if top_down else height)
        header = struct.pack("<IiiHHIIiiII", size, *sides, 1, bits, compression, 0, 0, 0, used, 0)
    header = (header + (behind if size > 40 else b"")).ljust(size, b"\0")
    header += behind if size <= 40 else b""
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + data
