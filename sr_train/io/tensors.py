"""Read files that hold one tensor: `.npy` and `.pt`, without running code that lies in them.

Nothing is believed about a file that its own size does not bear out, so that a header which
claims terabytes costs nothing.
"""

import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_STORED, ZipInfo

import numpy as np
import torch
from torch import Tensor

from sr_train.api.errors import DataError
from sr_train.api.text import printable
from sr_train.io.suffixes import TENSOR_SUFFIXES, is_tensor_file
from sr_train.io.torch_files import TorchFileError, is_zip, load_plain

_NPY_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 1 << 16
_MOST_AXES = 16
_FIELDS = {
    "descr": r"'([^'\\]*)'",
    "fortran_order": r"(True|False)",
    "shape": r"\(([0-9L,\s]*)\)",
}
_NUMBERS = re.compile(r"[<>=|]?[biuf][0-9]{1,2}")
_TORCH_DTYPES = frozenset({torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64})
_TORCH_DTYPES |= {torch.uint8, torch.uint16, torch.uint32, torch.uint64}
_TORCH_DTYPES |= {torch.int8, torch.int16, torch.int32, torch.int64}
"""What NumPy has too, and bfloat16."""


def read_tensor(path: str | os.PathLike[str], mapped: bool = False) -> np.ndarray:
    """Return the array that a file holds, as stored; bfloat16, which NumPy lacks, as float32.

    Args:
        path: of the file.
        mapped: map the file where its kind allows, so that only what is used is read; the array
            may be read-only then, and must not outlive the file.

    Raises:
        DataError: no such file, damaged, of another kind, or holding anything but one array of
            numbers; the message starts with the path.
    """
    path = Path(path)
    _check_suffix(path)
    try:
        if mapped:
            with path.open("rb") as file:
                if path.suffix.lower() == ".npy":
                    return _read_npy(file, path, mapped=True)
                # Of the other files, only the zipped ones with names in UTF-8 can be mapped.
                if is_zip(file.read(4)) and str(path) == printable(str(path)):
                    return _read_pt(path, path)
        return decode_tensor(path.read_bytes(), path)
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror or err}") from err


def decode_tensor(data: bytes, path: str | os.PathLike[str]) -> np.ndarray:
    """Return what `read_tensor` would, from the bytes of a file.

    Args:
        data: the whole file.
        path: says the kind, by its suffix; for messages.

    Raises:
        DataError: as `read_tensor`.
    """
    path = Path(path)
    _check_suffix(path)
    is_npy = path.suffix.lower() == ".npy"
    return _read_npy(io.BytesIO(data), path) if is_npy else _read_pt(io.BytesIO(data), path)


def _check_suffix(path: Path) -> None:
    if not is_tensor_file(path):
        known = ", ".join(sorted(TENSOR_SUFFIXES))
        raise DataError(f"{path}: not a tensor; expected a name in {known}")


def _read_npy(file: BinaryIO, path: Path, mapped: bool = False) -> np.ndarray:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    shape, dtype, is_fortran = _npy_header(file, path)
    start, count = file.tell(), math.prod(shape)
    if size - start < count * dtype.itemsize:
        raise DataError(
            f"{path}: damaged: its header states {shape} {dtype}, {count * dtype.itemsize} "
            f"bytes, and {size - start} follow"
        )
    order = "F" if is_fortran else "C"
    if mapped and count > 0:
        return np.memmap(path, dtype, "r", start, shape, order)  # type: ignore[call-overload]
    values = np.empty(count, dtype)
    file.readinto(values.view(np.uint8).data)  # type: ignore[attr-defined]
    return values.reshape(shape, order=order)  # type: ignore[call-overload]


def _npy_header(file: BinaryIO, path: Path) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Return shape, dtype and whether columns come first; leaves the file where values begin.

    NumPy's own reader evaluates the header as Python, which hostile ones crash.
    """
    head = file.read(8)
    if is_zip(head):
        raise DataError(f"{path}: an archive of several arrays; expected a single one")
    if head[:6] != _NPY_MAGIC or len(head) < 8 or head[6] not in (1, 2, 3):
        raise DataError(f"{path}: damaged, or no .npy file")
    num_bytes = int.from_bytes(file.read(2 if head[6] == 1 else 4), "little")
    text = file.read(min(num_bytes, _MOST_HEADER)).decode("latin-1")
    found = {key: re.search(rf"'{key}'\s*:\s*{value}", text) for key, value in _FIELDS.items()}
    fields = {key: match[1] for key, match in found.items() if match is not None}
    if "O" in fields.get("descr", "") or re.search(r"'descr'\s*:\s*\[", text):
        raise DataError(f"{path}: holds Python objects or records; expected numbers")
    if len(fields) < len(_FIELDS) or not text.rstrip().endswith("}"):
        raise DataError(f"{path}: damaged: its header is not one of an array")
    if not _NUMBERS.fullmatch(fields["descr"]):
        raise DataError(f"{path}: holds {fields['descr']!r}, not numbers")
    shape = tuple(int(length) for length in re.findall(r"\d{1,19}", fields["shape"]))
    if len(shape) > _MOST_AXES or max(shape, default=0) >= 2**62:
        raise DataError(f"{path}: damaged: its header states the shape ({fields['shape'][:60]})")
    try:
        return shape, np.dtype(fields["descr"]), fields["fortran_order"] == "True"
    except TypeError:
        raise DataError(f"{path}: holds {fields['descr']!r}, not numbers") from None


def _read_pt(source: io.BytesIO | Path, path: Path) -> np.ndarray:
    try:
        held = load_plain(source, _refuse_packed)
    except TorchFileError as err:
        raise DataError(f"{path}: {err}") from None
    if not isinstance(held, Tensor):
        raise DataError(f"{path}: holds {type(held).__name__}; expected one tensor")
    why = _unfit(held)
    if why:
        raise DataError(f"{path}: holds a {why}; expected a dense one of real numbers")
    held = held.detach().resolve_neg()
    return (held.float() if held.dtype == torch.bfloat16 else held).numpy()


def _refuse_packed(entries: Sequence[ZipInfo], size: int) -> None:
    """Raise where an archive would unpack to more than the file's own size.

    `torch.save` never packs, so that an honest archive holds its entries as they are.
    """
    is_packed = any(entry.compress_type != ZIP_STORED for entry in entries)
    if is_packed or sum(entry.file_size for entry in entries) > size:
        raise TorchFileError("a packed zip archive; torch.save writes none")


def _unfit(held: Tensor) -> str | None:
    """Return what a tensor is that cannot become an array of NumPy at little cost, or None."""
    if type(held) not in (Tensor, torch.nn.Parameter):
        return f"{type(held).__name__}"
    if held.is_nested or held.layout != torch.strided or held.is_quantized:
        return "sparse, nested or quantized tensor"
    if held.device.type != "cpu":
        return f"tensor without values (device {held.device})"
    if held.dtype not in _TORCH_DTYPES:
        return f"tensor of {str(held.dtype).removeprefix('torch.')}"
    # A stride of 0 repeats values without holding them.
    if held.numel() * held.element_size() > held.untyped_storage().nbytes():
        return f"tensor of shape {tuple(held.shape)} made of fewer values, repeated"
    return None
