"""Files that hold one frame each: images, and tensors for further inputs of a network.

A tensor file is `.npy`, or `.pt` with nothing but one tensor in it; it holds (S, H, W), S channels
such as the time bins of a spike camera's voxel grid. Its values are kept as they are, and its dtype
too, but that what is wider than networks need is narrowed: float64 to float32, and whole numbers of
64 bit, or unsigned ones of 32, to int32 where all of a file fit. Truth values become uint8.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sr_train.api.errors import DataError
from sr_train.io.images import decode_image, read_header, read_image, to_rgb
from sr_train.io.suffixes import IMAGE_SUFFIXES, TENSOR_SUFFIXES, is_tensor_file
from sr_train.io.tensors import decode_tensor, read_tensor

FRAME_SUFFIXES = IMAGE_SUFFIXES | TENSOR_SUFFIXES
"""Lower-case file name suffixes that are taken for frames."""

_KEPT = frozenset(("float16", "float32", "int8", "int16", "int32", "uint8", "uint16"))
_NARROWED = {
    "float64": "float32",
    "int64": "int32",
    "uint32": "int32",
    "uint64": "int32",
    "bool": "uint8",
}


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What a file says about its frame."""

    height: int
    width: int
    channels: int
    """3 for images, which become RGB; S for tensors."""
    dtype: str
    """Of the array that is read."""
    is_tensor: bool
    has_alpha: bool = False
    stored: str | None = None
    """What the file holds, where that is another dtype."""

    def __str__(self) -> str:
        if self.is_tensor:
            return f"({self.channels}, {self.height}, {self.width}) {self.dtype}"
        return f"{self.width}x{self.height} {self.dtype}"


def read_frame_header(path: str) -> FrameHeader:
    """Return what `read_frame` will give, without reading more than that takes.

    Raises:
        DataError: the file cannot be used; the message starts with the path.
    """
    if is_tensor_file(path):
        tensor = read_tensor(path, mapped=True)
        dtype = _dtype(path, tensor)
        channels, height, width = tensor.shape
        stored = tensor.dtype.name if tensor.dtype.name != dtype else None
        return FrameHeader(height, width, channels, dtype, is_tensor=True, stored=stored)
    header = read_header(path)
    return FrameHeader(
        header.height, header.width, 3, header.dtype, is_tensor=False, has_alpha=header.has_alpha
    )


def read_frame(path: str) -> np.ndarray:
    """Return an image as (H, W, 3), uint8 or uint16, or a tensor as (S, H, W); maybe read-only.

    Raises:
        DataError: the file cannot be read, is damaged or holds something else.
    """
    if is_tensor_file(path):
        return _narrowed(path, read_tensor(path, mapped=True))
    return to_rgb(read_image(path).pixels)


def decode_frame(data: bytes, path: str) -> np.ndarray:
    """Return what `read_frame` would, from the bytes of the file."""
    if is_tensor_file(path):
        return _narrowed(path, decode_tensor(data, path))
    return to_rgb(decode_image(data, path).pixels)


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _dtype(path: str, array: np.ndarray) -> str:
    """Return the dtype that an array is read as.

    Raises:
        DataError: it is no (S, H, W), or of numbers that networks do not take.
    """
    name = array.dtype.name
    if name not in _KEPT and name not in _NARROWED:
        raise DataError(f"{path}: holds {name}, expected {', '.join(sorted(_KEPT))}")
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"{path}: has the shape {array.shape}, expected (S, H, W)")
    return _NARROWED.get(name, name)


def _narrowed(path: str, array: np.ndarray) -> np.ndarray:
    """Return an array as it is handed out, in the byte order of this machine.

    Raises:
        DataError: as `_dtype`; or a value that does not fit, or is no number.
    """
    dtype = np.dtype(_dtype(path, array))
    if dtype.kind == "i" and array.dtype.itemsize >= dtype.itemsize:
        limits, low, high = np.iinfo(dtype), array.min(), array.max()
        if low < limits.min or high > limits.max:
            raise DataError(f"{path}: holds {array.dtype} from {low} to {high}, beyond {dtype}")
    with np.errstate(over="ignore"):
        narrowed = array.astype(dtype, copy=False)
    if dtype.kind == "f" and not np.isfinite(narrowed).all():
        raise DataError(f"{path}: holds values that are no finite numbers of {dtype}")
    return narrowed
