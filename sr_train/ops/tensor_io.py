"""Read files that hold one tensor: `.npy` and `.pt`, without running code that lies in them."""

import os
import pickle
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from sr_train.ops.errors import DataError

SUFFIXES = frozenset({".npy", ".pt", ".pth"})
"""Lower-case file name suffixes that are taken for tensors."""


def read_tensor(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array that a file holds, as stored; bfloat16, which NumPy lacks, as float32.

    Raises:
        DataError: no such file, damaged, of another kind, or holding anything but one array of
            numbers; the message starts with the path.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: not a tensor; expected a name in {', '.join(sorted(SUFFIXES))}")
    try:
        array = _read_npy(path) if suffix == ".npy" else _read_pt(path)
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err.strerror or err}") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{path}: holds {array.dtype}, not numbers")
    return array


def _read_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile) as err:
        if "allow_pickle" in str(err):
            raise DataError(
                f"{path}: holds Python objects or is no .npy file; expected an array of numbers"
            ) from None
        raise DataError(f"{path}: damaged or no .npy file: {err}") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: an archive of several arrays; expected a single one")
    return array


def _read_pt(path: Path) -> np.ndarray:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
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
