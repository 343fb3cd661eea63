"""The pixels of a PNG, in bands of rows: inflated and checked here, unfiltered by FFmpeg.

Of a stream that is damaged, libpng writes to standard error, and FFmpeg takes what there
is. So the stream is inflated here, which checks its length and checksum; the rows go to FFmpeg
as a PNG of bytes, stored, so that what they mean (depth, palette, colour key) is decided here.
Beside file and image, memory holds one band.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence

import av
import cv2
import numpy as np

from sr_train.io.formats.layout import Planes, UnusableError, unpacked
from sr_train.io.formats.png import SIGNATURE, PngLayout, chunk, pixel_chunks

_BAND_BYTES = 1 << 21
_PIECE_BYTES = 262144
_MOST_EXPANSION = 1032
"""Bytes that deflate can make of one."""
_MOST_SUPERFLUOUS = 64 << 20
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""First column, first row, columns and rows between pixels of each pass."""
_BYTES_AS = {1: (8, 0), 2: (8, 4), 3: (8, 2), 4: (8, 6), 6: (16, 2), 8: (16, 6)}
"""Bit depth and colour type that give pixels of so many bytes."""


def decode(data: bytes, layout: PngLayout) -> Planes:
    """Return colours and alpha of a PNG, as stored: not oriented.

    Raises:
        UnusableError: damaged or truncated.
    """
    parts = pixel_chunks(data, layout)
    passes = _passes(layout)
    need = sum(rows * (1 + _row_bytes(layout, columns)) for _, columns, rows in passes)
    if need > _MOST_EXPANSION * sum(map(len, parts)) + 64:
        raise UnusableError(
            f"truncated: holds too little for its {layout.width}x{layout.height} pixels"
        )
    stream = _Inflater(parts)
    planes = layout.empty()
    for (left, top, across, down), columns, rows in passes:
        views = [None if each is None else each[top::down, left::across] for each in planes]
        row = 0
        for band in _bands(stream, layout, columns, rows):
            where = slice(row, row + len(band))
            _place(band, layout, *(None if each is None else each[where] for each in views))
            row += len(band)
    stream.finish()
    return planes


def _passes(layout: PngLayout) -> list[tuple[tuple[int, int, int, int], int, int]]:
    """Return (place, columns, rows) of each pass that has pixels."""
    places = _ADAM7 if layout.is_interlaced else ((0, 0, 1, 1),)
    sizes = [
        (
            place,
            -(-(layout.width - place[0]) // place[2]),
            -(-(layout.height - place[1]) // place[3]),
        )
        for place in places
    ]
    return [size for size in sizes if size[1] > 0 and size[2] > 0]


def _row_bytes(layout: PngLayout, columns: int) -> int:
    return -(-columns * layout.samples * layout.bits // 8)


class _Inflater:
    """Hands out an exact number of inflated bytes at a time."""

    def __init__(self, parts: list[memoryview]) -> None:
        self._stream = zlib.decompressobj()
        self._pieces = _pieces(parts)
        self._piece: bytes | memoryview = b""

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes.

        Raises:
            UnusableError: there are fewer, or they are damaged.
        """
        got = [self._inflated(size)]
        left = size - len(got[0])
        while left:
            self._refill()
            got.append(self._inflated(left))
            left -= len(got[-1])
        return got[0] if len(got) == 1 else b"".join(got)

    def finish(self) -> None:
        """Go to the stream's end, where its checksum stands; what is superfluous is let go."""
        superfluous = 0
        while True:
            superfluous += len(self._inflated(_BAND_BYTES))
            if self._stream.eof:
                return
            if not self._piece:
                self._refill()
            if superfluous > _MOST_SUPERFLUOUS:
                raise UnusableError("damaged: holds far more than its pixels")

    def _refill(self) -> None:
        if self._stream.eof:
            raise UnusableError("truncated: its pixels end too early")
        if not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                raise UnusableError("truncated: its pixels end too early")
            self._piece = piece

    def _inflated(self, most: int) -> bytes:
        try:
            got = self._stream.decompress(self._piece, most)
        except zlib.error as error:
            raise UnusableError(f"damaged: its pixels cannot be inflated: {error}") from None
        self._piece = self._stream.unconsumed_tail
        return got


def _pieces(parts: list[memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the parts in pieces, cut or put together.

    Not large, as zlib copies what it has not read yet, nor small, as each takes a call.
    """
    small: list[memoryview] = []
    size = 0
    for part in parts:
        if len(part) < _PIECE_BYTES:
            small.append(part)
            size += len(part)
            if size < _PIECE_BYTES:
                continue
        if small:
            yield b"".join(small)
            small, size = [], 0
        if len(part) >= _PIECE_BYTES:
            for start in range(0, len(part), _PIECE_BYTES):
                yield part[start : start + _PIECE_BYTES]
    if small:
        yield b"".join(small)


def _bands(stream: _Inflater, layout: PngLayout, columns: int, rows: int) -> Iterator[np.ndarray]:
    """Yield (n, row bytes) uint8 of unfiltered rows, from top to bottom."""
    row_bytes = _row_bytes(layout, columns)
    pixel_bytes = max(1, layout.samples * layout.bits // 8)
    at_once = max(1, _BAND_BYTES // row_bytes)
    before = b""
    for first in range(0, rows, at_once):
        count = min(at_once, rows - first)
        filtered = stream.take(count * (row_bytes + 1))
        filters = np.frombuffer(filtered, np.uint8)[:: row_bytes + 1]
        most = int(filters.max())
        if most > 4:
            raise UnusableError(f"damaged: row filter {most} in its pixels")
        if most == 0:
            band = np.frombuffer(filtered, np.uint8).reshape(count, row_bytes + 1)[:, 1:]
        else:
            columns_of_bytes = row_bytes // pixel_bytes
            band = _unfiltered([before, filtered], columns_of_bytes, pixel_bytes)[-count:]
        yield band
        before = b"\0" + band[-1].tobytes()


def _unfiltered(filtered: list[bytes], columns: int, pixel_bytes: int) -> np.ndarray:
    """Return (n, row bytes) of n rows, each after the number of its filter."""
    row_bytes = columns * pixel_bytes
    rows = sum(map(len, filtered)) // (row_bytes + 1)
    header = struct.pack(">IIBBBBB", columns, rows, *_BYTES_AS[pixel_bytes], 0, 0, 0)
    # Neither checksum nor end is wanted of what never left this process.
    blocks: list[bytes | memoryview] = [b"\x78\x01"]
    for part in filtered:
        for start in range(0, len(part), 65535):
            block = memoryview(part)[start : start + 65535]
            blocks += [struct.pack("<BHH", 0, len(block), len(block) ^ 0xFFFF), block]
    size = sum(map(len, blocks))
    pieces = [SIGNATURE, chunk(b"IHDR", header), struct.pack(">I4s", size, b"IDAT"), *blocks]
    context = av.CodecContext.create("png", "r")
    context.thread_count = 1
    (frame,) = context.decode(_packet([*pieces, bytes(4), chunk(b"IEND", b"")]))
    plane = frame.planes[0]
    stored = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return stored[:rows, :row_bytes]


def _packet(pieces: Sequence[bytes | memoryview]) -> av.Packet:
    """Return a packet of pieces, which are copied but once."""
    packet = av.Packet(sum(map(len, pieces)))
    memory, position = memoryview(packet), 0
    for piece in pieces:
        memory[position : position + len(piece)] = piece
        position += len(piece)
    return packet


def _place(
    band: np.ndarray, layout: PngLayout, pixels: np.ndarray | None, alpha: np.ndarray | None
) -> None:
    """Write a band's samples to where they belong."""
    assert pixels is not None
    if layout.bits < 8 or layout.colour_type == 3:
        indices = band if layout.bits == 8 else unpacked(band, layout.bits, pixels.shape[1])
        _place_indices(indices, layout, pixels, alpha)
        return
    samples = band if band.flags.c_contiguous else np.ascontiguousarray(band)
    if layout.bits == 16:
        samples = samples.view(">u2")
    samples = samples.reshape(*pixels.shape[:2], layout.samples)
    if alpha is not None and layout.samples == 4 and not layout.is_interlaced:
        # Ten times as fast as NumPy's copies of every three of four.
        native = samples.astype(layout.dtype, copy=False)
        cv2.cvtColor(native, cv2.COLOR_RGBA2RGB, dst=pixels)
        cv2.extractChannel(native, 3, dst=alpha)
        return
    pixels[...] = samples[..., : layout.channels]
    if alpha is None:
        return
    if layout.samples in (2, 4):
        alpha[...] = samples[..., -1]
    else:
        key = np.frombuffer(layout.transparency, ">u2") & np.iinfo(layout.dtype).max
        is_key = (pixels == key.astype(layout.dtype)).all(axis=-1)
        alpha[...] = np.where(is_key, 0, np.iinfo(layout.dtype).max)


def _place_indices(
    indices: np.ndarray, layout: PngLayout, pixels: np.ndarray, alpha: np.ndarray | None
) -> None:
    """Write the colours of a palette, black where it has none, or grey of less than 8 bits."""
    if layout.colour_type == 0:
        top = (1 << layout.bits) - 1
        pixels[..., 0] = indices * np.uint8(255 // top)
        if alpha is not None:
            alpha[...] = np.where(indices == layout.transparency[1] & top, 0, 255)
        return
    colours = np.zeros((256, 3), np.uint8)
    palette = np.frombuffer(layout.palette, np.uint8)[:768].reshape(-1, 3)
    colours[: len(palette)] = palette
    pixels[...] = colours[indices]
    if alpha is not None:
        opacity = np.full(256, 255, np.uint8)
        known = np.frombuffer(layout.transparency, np.uint8)[:256]
        opacity[: len(known)] = known
        alpha[...] = opacity[indices]
