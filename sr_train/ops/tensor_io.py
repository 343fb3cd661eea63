"""Read files that hold one tensor: `.npy` and `.pt`, without running code that lies in them."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Literal
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from sr_train.ops.errors import DataError

SUFFIXES = frozenset({".npy", ".pt", ".pth"})
"""Lower-case file name suffixes that are taken for tensors."""


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
        # Of .pt files, only the zipped ones can be mapped.
        if mapped and (path.suffix.lower() == ".npy" or zipfile.is_zipfile(path)):
            return _decoded(path, path)
        return _decoded(io.BytesIO(path.read_bytes()), path)
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror or err}") from None


def decode_tensor(data: bytes, path: str | os.PathLike[str]) -> np.ndarray:
    """Return what `read_tensor` would, from the bytes of a file.

    Args:
        data: the whole file.
        path: tells the kind, by its suffix; for messages.

    Raises:
        DataError: as `read_tensor`.
    """
    _check_suffix(Path(path))
    return _decoded(io.BytesIO(data), Path(path))


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path}: not a tensor; expected a name in {', '.join(sorted(SUFFIXES))}")


def _decoded(source: io.BytesIO | Path, path: Path) -> np.ndarray:
    is_npy = path.suffix.lower() == ".npy"
    array = _read_npy(source, path) if is_npy else _read_pt(source, path)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: holds {array.dtype}, not numbers")
    return array


def _read_npy(source: io.BytesIO | Path, path: Path) -> np.ndarray:
    mode: Literal["r"] | None = "r" if isinstance(source, Path) else None
    try:
        array = np.load(source, mmap_mode=mode, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile) as err:
        if "allow_pickle" in str(err):
            raise DataError(
                f"{path}: holds Python objects or is no .npy file; expected an array of numbers"
            ) from None
        raise DataError(f"{path}: damaged or no .npy file: {err}") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: an archive of several arrays; expected a single one")
    return array


def _read_pt(source: io.BytesIO | Path, path: Path) -> np.ndarray:
    is_mapped = isinstance(source, Path)
    try:
        held = torch.load(source, map_location="cpu", weights_only=True, mmap=is_mapped)
    except pickle.UnpicklingError as err:
        if "GLOBAL" in str(err):
            raise DataError(
                f"{path}: holds more than tensors, which could run code; save the tensor alone "
                "with torch.save(tensor, path)"
            ) from None
        raise DataError(f"{path}: damaged, or not written by torch.save(tensor, path)") from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError) as err:
        reason = str(err).split("\n")[0]
        raise DataError(f"{path}: damaged or no .pt file: {reason}") from None
    if not isinstance(held, Tensor):
        raise DataError(f"{path}: holds {type(held).__name__}; expected one tensor")
    if held.layout != torch.strided or held.is_quantized:
        raise DataError(f"{path}: holds a sparse or quantized tensor; expected a dense one")
    held = held.detach()
    return (held.float() if held.dtype == torch.bfloat16 else held).numpy()
