"""Read and write picture files: 8 and 16 bit, grey and colour, with and without alpha.

Conventions: arrays are (H, W, C) in RGB order as stored (no colour management), uint8 or uint16,
C is 1 or 3; alpha is kept apart and never multiplied in. The EXIF orientation is applied, as
viewers do. Of animations and multi-page files the first frame counts. A grey picture with a
transparent grey value (a colour key) counts as opaque.
"""

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from sr_train.ops.errors import DataError
from sr_train.ops.files import write_atomically

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"})
"""Lower-case file name suffixes that are taken for pictures."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_WRITES_16_BIT = frozenset({".png", ".tif", ".tiff"})
_WRITES_ALPHA = frozenset({".png", ".tif", ".tiff", ".webp"})
_ORIENTATION_TAG = 0x0112
_TIFF_BITS_TAG = 258

# The decoder's own limit, so that both libraries agree about what is too large.
Image.MAX_IMAGE_PIXELS = 2**30
# OpenCV prints its own lines about damaged files; those files end in a DataError here.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True)
class PictureHeader:
    """What a file says about its picture before anything is decoded."""

    height: int
    """Pixels, after the EXIF orientation."""
    width: int
    """Pixels, after the EXIF orientation."""
    channels: int
    """Colour channels, 1 or 3; alpha not counted."""
    has_alpha: bool
    dtype: Literal["uint8", "uint16"]


@dataclass(frozen=True)
class Picture:
    """A decoded picture."""

    pixels: np.ndarray
    """(H, W, 1 or 3), uint8 or uint16, RGB order, contiguous."""
    alpha: np.ndarray | None
    """(H, W) of the same dtype; the dtype's maximum is opaque."""


def read_header(path: str | os.PathLike[str]) -> PictureHeader:
    """Return size, channels and depth as `read_picture` will give them, without decoding.

    Damage behind the header goes unseen.

    Raises:
        DataError: no such file, no picture, or a kind of picture that is not supported.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _parse_header(path, file)[0]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Decode a picture file.

    Raises:
        DataError: no such file, no picture, damaged or truncated, or not supported; the message
            starts with the path.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return decode_picture(data, path)


def decode_picture(data: bytes, path: str | os.PathLike[str]) -> Picture:
    """Decode the bytes of a picture file.

    Args:
        data: the whole file.
        path: for messages.

    Raises:
        DataError: no picture, damaged or truncated, or not supported; starts with the path.
    """
    path = Path(path)
    header, kind, orientation = _parse_header(path, io.BytesIO(data))
    whole: bytes | None = data
    if kind == "PNG":
        whole = _whole_png(data)
    elif kind == "JPEG" and not _jpeg_is_complete(data):
        whole = None
    if whole is None:
        raise DataError(f"{path}: the file is truncated ({len(data)} bytes)")
    if kind == "TIFF" and header.dtype == "uint8":
        decoded = _decode_by_pillow(path, data, header)
    else:
        if kind == "TIFF" and orientation != 1:
            raise DataError(f"{path}: 16-bit TIFF with a rotation tag is not supported")
        decoded = _oriented(_decode_by_cv2(path, whole), orientation)
    pixels, alpha = _split(decoded, header)
    if pixels.shape != (header.height, header.width, header.channels) or (
        pixels.dtype != header.dtype
    ):
        raise DataError(
            f"{path}: decoded to {pixels.shape} {pixels.dtype}, but its header says {header}"
        )
    return Picture(pixels, alpha)


def write_picture(
    path: str | os.PathLike[str], pixels: np.ndarray, alpha: np.ndarray | None = None
) -> None:
    """Write a picture in the format of its suffix; the file appears complete or not at all.

    PNG and TIFF keep 16 bit; PNG, TIFF and WebP (lossless) keep alpha; JPEG has quality 95. Grey
    with alpha is stored as RGBA.

    Args:
        path: its folder must exist.
        pixels: (H, W), (H, W, 1) or (H, W, 3), uint8 or uint16, RGB order.
        alpha: (H, W) of the same dtype.

    Raises:
        DataError: unknown suffix, a depth or alpha that the format cannot hold, or a folder that
            is missing, full or not writable.
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
    try:
        done, encoded = cv2.imencode(path.suffix.lower(), stored)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be encoded: {error}") from None
    if not done:
        raise DataError(f"{path}: {path.suffix} cannot hold a picture of {pixels.shape}")
    try:
        write_atomically(path, encoded.data, sync=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return (H, W, 3): grey, (H, W) or (H, W, 1), is repeated, colour is passed through."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)


def _check_writable(path: Path, pixels: np.ndarray, alpha: np.ndarray | None) -> None:
    """Raise before encoding where format and picture do not go together."""
    suffix = path.suffix.lower()
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"pixels must be (H, W, 1 or 3), got {pixels.shape}")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"pixels must be uint8 or uint16, got {pixels.dtype}")
    if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
        raise ValueError(
            f"alpha must be {pixels.shape[:2]} {pixels.dtype}, got {alpha.shape} {alpha.dtype}"
        )
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: unknown suffix {suffix!r}; known: {', '.join(sorted(SUFFIXES))}")
    if pixels.dtype == np.uint16 and suffix not in _WRITES_16_BIT:
        raise DataError(f"{path}: {suffix} cannot hold 16 bit; use .png or .tif")
    if alpha is not None and suffix not in _WRITES_ALPHA:
        raise DataError(f"{path}: {suffix} cannot hold alpha; use .png, .tif or .webp")


def _parse_header(path: Path, file: BinaryIO) -> tuple[PictureHeader, str, int]:
    """Return the header, the format's name and the EXIF orientation (1..8) still to be applied."""
    head = file.read(32)
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    file.seek(0)
    try:
        with Image.open(file, formats=_FORMATS) as image:
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            width, height = image.size
            if kind == "PNG":
                # getexif() of a PNG would decode it.
                exif = Image.Exif()
                exif.load(image.info.get("exif", b""))
                layout = _png_layout(head, "transparency" in image.info)
            else:
                exif = image.getexif()
                layout = _other_layout(path, image)
    except UnidentifiedImageError:
        raise DataError(
            f"{path}: not a picture, or damaged at its start (it begins with {head[:12]!r}; "
            f"known: {', '.join(_FORMATS)})"
        ) from None
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: damaged or not supported: {error}") from None
    orientation = exif.get(_ORIENTATION_TAG, 1)
    if orientation not in range(1, 9):
        orientation = 1
    # Pillow has already turned the size of a TIFF.
    if orientation >= 5 and kind != "TIFF":
        height, width = width, height
    channels, has_alpha, dtype = layout
    return PictureHeader(height, width, channels, has_alpha, dtype), kind, orientation


def _png_layout(
    head: bytes, has_transparency: bool
) -> tuple[int, bool, Literal["uint8", "uint16"]]:
    """Return channels, alpha and dtype from IHDR; Pillow hides the depth of 16-bit RGB."""
    bits, colour_type = head[24], head[25]
    is_colour = colour_type in (2, 3, 6)
    has_alpha = colour_type in (4, 6) or (is_colour and has_transparency)
    return 3 if is_colour else 1, has_alpha, "uint16" if bits == 16 else "uint8"


def _other_layout(path: Path, image: Image.Image) -> tuple[int, bool, Literal["uint8", "uint16"]]:
    """Return channels, alpha and dtype of a JPEG, WebP, TIFF or BMP."""
    mode = image.mode
    if mode.startswith("I;16"):
        return 1, False, "uint16"
    if mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX"):
        raise DataError(
            f"{path}: pixels of kind {mode!r} are not supported; convert to 8 or 16 bit grey or RGB"
        )
    bits = image.tag_v2.get(_TIFF_BITS_TAG, (8,)) if image.format == "TIFF" else (8,)  # type: ignore[attr-defined]
    dtype: Literal["uint8", "uint16"] = "uint16" if max(bits) == 16 else "uint8"
    has_alpha = mode in ("LA", "RGBA") or (mode == "P" and "transparency" in image.info)
    return 1 if mode in ("1", "L", "LA") else 3, has_alpha, dtype


def _whole_png(data: bytes) -> bytes | None:
    """Return a PNG without its colour profile, or None if its chunks do not reach IEND.

    Some decoders fill what is missing with grey; libpng prints warnings about odd profiles, which
    are not used here.
    """
    position = 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if kind == b"IEND":
            return data
        if kind == b"iCCP":
            data = data[:position] + data[end:]
        else:
            position = end
    return None


def _jpeg_is_complete(data: bytes) -> bool:
    """Return whether an end marker follows the start of the scan; decoders only warn.

    Segments before the scan are stepped over, since a thumbnail in them has its own end marker.
    """
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker == 0xDA:
            return data.find(b"\xff\xd9", position) >= 0
        if marker == 0xFF:
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return False


def _decode_by_cv2(path: Path, data: bytes) -> np.ndarray:
    """Return (H, W, 1, 3 or 4) in RGB(A) order, not oriented."""
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from None
    if decoded is None:
        raise DataError(f"{path}: cannot be decoded: damaged or truncated ({len(data)} bytes)")
    if decoded.ndim == 2:
        return decoded[..., None]
    code = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(decoded, code, dst=decoded)


def _decode_by_pillow(path: Path, data: bytes, header: PictureHeader) -> np.ndarray:
    """Return (H, W, 1, 3 or 4), oriented; used where OpenCV misreads tags (8-bit TIFF)."""
    mode = ("RGBA" if header.has_alpha else "RGB") if header.channels == 3 else "L"
    if header.channels == 1 and header.has_alpha:
        mode = "RGBA"
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            decoded = np.array(image.convert(mode))
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise DataError(f"{path}: cannot be decoded: {error}") from None
    return decoded if decoded.ndim == 3 else decoded[..., None]


def _oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation (1..8) of an (H, W, C) array."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # After the transpose of 5..8: which axes are still mirrored.
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _split(decoded: np.ndarray, header: PictureHeader) -> tuple[np.ndarray, np.ndarray | None]:
    """Return colour channels and alpha as the header announces them."""
    alpha = None
    if header.has_alpha and decoded.shape[2] == 4:
        alpha = np.ascontiguousarray(decoded[..., 3])
    pixels = decoded[..., : header.channels]
    if header.channels == 3:
        pixels = to_rgb(pixels)
    return np.ascontiguousarray(pixels), alpha
