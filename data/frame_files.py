"""Files that hold one frame each: pictures, and tensors for further inputs of a network.

A tensor file is `.npy`, or `.pt` with nothing but one tensor in it; it holds (S, H, W), S channels
such as the time bins of a spike camera's voxel grid. Its values and its dtype are kept as they are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sr_train.ops.errors import DataError
from sr_train.ops.image_io import SUFFIXES, decode_picture, read_header, to_rgb
from sr_train.ops.tensor_io import SUFFIXES as TENSOR_SUFFIXES
from sr_train.ops.tensor_io import decode_tensor, read_tensor

FRAME_SUFFIXES = SUFFIXES | TENSOR_SUFFIXES
"""Lower-case file name suffixes that are taken for frames."""

TENSOR_DTYPES = ("float16", "float32", "int8", "int16", "int32", "uint8")
"""What a tensor file may hold."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What a file says about its frame."""

    height: int
    width: int
    channels: int
    """3 for pictures, which become RGB; S for tensors."""
    dtype: str
    is_tensor: bool
    has_alpha: bool = False

    def __str__(self) -> str:
        if self.is_tensor:
            return f"({self.channels}, {self.height}, {self.width}) {self.dtype}"
        return f"{self.width}x{self.height} {self.dtype}"


def is_tensor_file(path: str) -> bool:
    """Return whether a name is that of a tensor file."""
    return Path(path).suffix.lower() in TENSOR_SUFFIXES


def read_frame_header(path: str) -> FrameHeader:
    """Return what `read_frame` will give, without reading more than that takes.

    Raises:
        DataError: the file cannot be used; the message starts with the path.
    """
    if is_tensor_file(path):
        tensor = _checked(path, read_tensor(path, mapped=True))
        channels, height, width = tensor.shape
        return FrameHeader(height, width, channels, str(tensor.dtype), is_tensor=True)
    header = read_header(path)
    return FrameHeader(
        header.height, header.width, 3, header.dtype, is_tensor=False, has_alpha=header.has_alpha
    )


def read_frame(path: str) -> np.ndarray:
    """Return a picture as (H, W, 3), uint8 or uint16, or a tensor as (S, H, W); maybe read-only.

    Raises:
        DataError: the file cannot be read, is damaged or holds something else.
    """
    if is_tensor_file(path):
        return _checked(path, read_tensor(path, mapped=True))
    return decode_frame(read_bytes(path), path)


def decode_frame(data: bytes, path: str) -> np.ndarray:
    """Return what `read_frame` would, from the bytes of the file."""
    if is_tensor_file(path):
        return _checked(path, decode_tensor(data, path))
    return to_rgb(decode_picture(data, path).pixels)


def read_bytes(path: str) -> bytes:
    """Return the bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _checked(path: str, array: np.ndarray) -> np.ndarray:
    if str(array.dtype) not in TENSOR_DTYPES:
        raise DataError(f"{path}: holds {array.dtype}, expected {', '.join(TENSOR_DTYPES)}")
    if array.ndim != 3 or 0 in array.shape:
        raise DataError(f"{path}: has the shape {array.shape}, expected (S, H, W)")
    return array
