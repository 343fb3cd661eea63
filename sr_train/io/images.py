"""Read and write image files: 8 and 16 bit, grey and colour, with and without alpha.

Conventions: arrays are (H, W, C) in RGB order as stored (no colour management), uint8 or uint16,
C is 1 or 3; alpha is kept apart and never multiplied in. The EXIF orientation is applied, as
viewers do. Of animations and multi-page files the first frame counts. A colour or grey value that
is transparent (a colour key) becomes alpha. Levels of less than 8 bits are stretched to 255,
colours of a palette are of 8 bits.

A kind of file that cannot be read with the right values is refused, by the name of what it is.
Damage after the header is an error wherever the format shows it. What a file says beside its
pixels is read when asked for, see `sr_train.io.formats.metadata`.
"""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import cv2
import numpy as np

from sr_train.api.errors import DataError
from sr_train.io.files import write_atomically
from sr_train.io.formats import bmp, jpeg, png, png_pixels, tiff, tiff_pixels, webp
from sr_train.io.formats.embedding import embedded
from sr_train.io.formats.layout import MAX_SIDE, Layout, Planes, UnusableError, oriented
from sr_train.io.formats.limits import check_size
from sr_train.io.formats.metadata import Metadata, RawMetadata, checked
from sr_train.io.suffixes import IMAGE_SUFFIXES

_FORMATS = ("PNG", "JPEG", "WebP", "TIFF", "BMP")
_WRITES_16_BIT = frozenset({".png", ".tif", ".tiff"})
_WRITES_ALPHA = frozenset({".png", ".tif", ".tiff", ".webp"})
_MOST_PIXELS = {".png": 1_000_000, ".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
"""Of a side, in what is written."""

_MOST_BYTES_PER_PIXEL = 16
_MOST_BESIDE = 256 << 20
"""Bytes of a file for each pixel, and for what stands beside them, that are read at most."""

# OpenCV prints its own lines about damaged files; those files end in a DataError here.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about its image before anything is decoded."""

    height: int
    """Pixels, after the EXIF orientation."""
    width: int
    """Pixels, after the EXIF orientation."""
    channels: int
    """Colour channels, 1 or 3; alpha not counted."""
    has_alpha: bool
    dtype: Literal["uint8", "uint16"]


@dataclass(frozen=True)
class Image:
    """A decoded image."""

    pixels: np.ndarray
    """(H, W, 1 or 3), uint8 or uint16, RGB order, contiguous."""
    alpha: np.ndarray | None
    """(H, W) of the same dtype; the dtype's maximum is opaque."""
    metadata: Metadata | None = None
    """What `write_image` can write with other pixels; None where it was not asked for."""


def read_header(path: str | os.PathLike[str]) -> ImageHeader:
    """Return size, channels and depth as `read_image` will give them, without decoding.

    Damage after the header goes unseen.

    Raises:
        DataError: no such file, no image, a kind of image that is not supported, or one that
            is larger than `io.max_megapixels` allows.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            layout = _parse(path, file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    height, width = layout.height, layout.width
    if layout.orientation >= 5:
        height, width = width, height
    return ImageHeader(height, width, layout.channels, layout.has_alpha, layout.dtype)


def read_image(path: str | os.PathLike[str], with_metadata: bool = False) -> Image:
    """Decode an image file.

    Args:
        path: of the file.
        with_metadata: read colour profile, EXIF and resolution too.

    Raises:
        DataError: no such file, no image, damaged or truncated, not supported, or larger than
            `io.max_megapixels` allows; the message starts with the path.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            layout = _parse(path, file)
            if isinstance(layout, tiff.TiffLayout):
                return _decoded(path, file, layout, with_metadata)
            # What a file of gigabytes has after its image is not read.
            most = _MOST_BYTES_PER_PIXEL * layout.height * layout.width + _MOST_BESIDE
            file.seek(0)
            data = file.read(most)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return _decoded(path, io.BytesIO(data), layout, with_metadata)


def decode_image(data: bytes, path: str | os.PathLike[str], with_metadata: bool = False) -> Image:
    """Decode the bytes of an image file.

    Args:
        data: the whole file.
        path: for messages.
        with_metadata: read colour profile, EXIF and resolution too.

    Raises:
        DataError: no image, damaged or truncated, not supported, or larger than
            `io.max_megapixels` allows; starts with the path.
    """
    path, file = Path(path), io.BytesIO(data)
    return _decoded(path, file, _parse(path, file), with_metadata)


def _decoded(path: Path, file: BinaryIO, layout: Layout, with_metadata: bool) -> Image:
    """Decode a file whose header has been read."""
    try:
        pixels, alpha = _decode(file, layout)
        metadata = checked(_metadata(file, layout)) if with_metadata else None
    except UnusableError as error:
        raise DataError(f"{path}: {error}") from None
    found = _described(pixels.shape, pixels.dtype.name, alpha is not None)
    told = _described(layout.shape, layout.dtype, layout.has_alpha)
    if found != told:
        raise DataError(f"{path}: decoded to {found}, but its header says {told}")
    pixels = oriented(pixels, layout.orientation)
    alpha = None if alpha is None else oriented(alpha, layout.orientation)
    return Image(pixels, alpha, metadata)


def write_image(
    path: str | os.PathLike[str],
    pixels: np.ndarray,
    alpha: np.ndarray | None = None,
    metadata: Metadata | None = None,
) -> list[str]:
    """Write an image in the format of its suffix; the file appears complete or not at all.

    PNG and TIFF keep 16 bit; PNG, TIFF and WebP (lossless) keep alpha; JPEG has quality 95. Grey
    with alpha is stored as RGBA. PNG, JPEG, TIFF and WebP keep a colour profile and EXIF, all but
    WebP the resolution; orientation and size in pixels are set to what is written.

    Args:
        path: its folder must exist.
        pixels: (H, W), (H, W, 1) or (H, W, 3), uint8 or uint16, RGB order.
        alpha: (H, W) of the same dtype.
        metadata: what goes into the file beside the pixels.

    Returns:
        What of the metadata the format cannot hold, by name.

    Raises:
        DataError: unknown suffix, a depth, alpha or size that the format cannot hold, or a folder
            that is missing, full or not writable.
        ValueError: if shape or dtype are none of those above.
    """
    path = Path(path)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    _check_writable(path, pixels, alpha)
    if alpha is not None:
        stored = cv2.cvtColor(np.dstack([to_rgb(pixels), alpha]), cv2.COLOR_RGBA2BGRA)
    elif pixels.shape[2] == 3:
        stored = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    else:
        stored = np.ascontiguousarray(pixels)
    suffix = path.suffix.lower()
    try:
        done, encoded = cv2.imencode(suffix, stored)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be encoded: {error}") from None
    if not done:
        raise DataError(f"{path}: {path.suffix} cannot hold an image of {pixels.shape}")
    result: bytes | memoryview = encoded.data
    lost: list[str] = []
    if metadata is not None:
        height, width = stored.shape[:2]
        # WebP has no grey.
        channels = 3 if stored.shape[2] > 1 or suffix == ".webp" else 1
        result, lost = embedded(suffix, result, metadata, height, width, channels)
    try:
        write_atomically(path, result, sync=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None
    return lost


def unwritable(
    suffix: str, height: int, width: int, dtype: np.dtype[Any], has_alpha: bool
) -> str | None:
    """Return why an image file cannot hold such pixels, or None.

    Args:
        suffix: of the file, lower case.
        height: pixels.
        width: pixels.
        dtype: of the pixels.
        has_alpha: whether there is alpha, too.
    """
    if suffix not in IMAGE_SUFFIXES:
        return f"unknown suffix {suffix!r}; known: {', '.join(sorted(IMAGE_SUFFIXES))}"
    if dtype == np.uint16 and suffix not in _WRITES_16_BIT:
        return f"{suffix} cannot hold 16 bits; use .png or .tif"
    if has_alpha and suffix not in _WRITES_ALPHA:
        return f"{suffix} cannot hold alpha; use .png, .tif or .webp"
    most = _MOST_PIXELS.get(suffix, MAX_SIDE)
    if max(height, width) > most:
        larger = [
            each
            for each in (".png", ".tif")
            if max(height, width) <= _MOST_PIXELS.get(each, MAX_SIDE)
        ]
        what = f"use {' or '.join(larger)}" if larger else "cut it"
        return f"{suffix} cannot hold {width}x{height} pixels, {most} a side at most; {what}"
    return None


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return (H, W, 3): grey, (H, W) or (H, W, 1), is repeated, colour is passed through."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _described(shape: tuple[int, ...], dtype: str, has_alpha: bool) -> str:
    return f"{shape} {dtype}{' with alpha' if has_alpha else ''}"


def _check_writable(path: Path, pixels: np.ndarray, alpha: np.ndarray | None) -> None:
    """Raise before encoding where format and image do not go together."""
    suffix = path.suffix.lower()
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels must be (H, W, 1 or 3), got {pixels.shape}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be uint8 or uint16, got {pixels.dtype}")
    if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
        raise ValueError(
            f"alpha must be {pixels.shape[:2]} {pixels.dtype}, got {alpha.shape} {alpha.dtype}"
        )
    height, width = pixels.shape[:2]
    why = unwritable(suffix, height, width, pixels.dtype, alpha is not None)
    if why is not None:
        raise DataError(f"{path}: {why}")


def _parse(path: Path, file: BinaryIO) -> Layout:
    """Return the layout of an image that is not too large."""
    head = file.read(16)
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    try:
        layout = _parsed(head, file)
        check_size(layout.height, layout.width)
    except UnusableError as error:
        raise DataError(f"{path}: {error}") from None
    return layout


def _parsed(head: bytes, file: BinaryIO) -> Layout:
    """Return the layout by the format that a file's first bytes show, whatever its suffix."""
    if head.startswith(png.SIGNATURE):
        return png.parse(file)
    if head.startswith(b"\xff\xd8\xff"):
        return jpeg.parse(file)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return webp.parse(file)
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return tiff.parse(file)
    if head.startswith(b"BM"):
        return bmp.parse(file)
    raise UnusableError(
        f"not an image, or damaged at its start (it begins with {head[:12]!r}; known: "
        f"{', '.join(_FORMATS)})"
    )


def _decode(file: BinaryIO, layout: Layout) -> Planes:
    if isinstance(layout, tiff.TiffLayout):
        return tiff_pixels.decode(file, layout)
    data = _whole(file)
    if isinstance(layout, png.PngLayout):
        return png_pixels.decode(data, layout)
    if isinstance(layout, jpeg.JpegLayout):
        return jpeg.decode(data, layout)
    if isinstance(layout, webp.WebpLayout):
        return webp.decode(data, layout)
    assert isinstance(layout, bmp.BmpLayout)
    return bmp.decode(data, layout)


def _metadata(file: BinaryIO, layout: Layout) -> RawMetadata:
    if isinstance(layout, tiff.TiffLayout):
        return tiff.metadata(file)
    if isinstance(layout, webp.WebpLayout):
        return webp.metadata(file)
    data = _whole(file)
    if isinstance(layout, png.PngLayout):
        return png.metadata(data)
    return jpeg.metadata(data) if isinstance(layout, jpeg.JpegLayout) else bmp.metadata(data)


def _whole(file: BinaryIO) -> bytes:
    """Return all bytes; of a file in memory without a copy."""
    assert isinstance(file, io.BytesIO)
    return file.getvalue()
