"""A checksum over tensors and plain values, for a file to carry inside."""

import hashlib
import struct
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sr_train.ops.weight_files import is_dense

_ALGORITHM = "sha256"
"""Of those that nobody can forge by chance, the one that processors have instructions for."""


def checksum(content: Any) -> str:
    """Return a checksum over nested dicts, lists, tuples, plain values and tensors.

    It depends on every key, value, dtype, shape and element, and neither on the order of a dict
    nor on how a tensor lies in memory. Tensors are read in place, one after the other.
    """
    digest = hashlib.new(_ALGORITHM)
    _add(digest, content)
    return f"{_ALGORITHM}:{digest.hexdigest()}"


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        _add_tensor(digest, value)
    elif isinstance(value, Mapping):
        _add_bytes(digest, f"dict {len(value)}".encode())
        rows = [(_plain(key), item) for key, item in value.items()]
        for key, item in sorted(rows, key=lambda row: row[0]):
            _add_bytes(digest, key)
            _add(digest, item)
    elif isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        _add_bytes(digest, f"{kind} {len(value)}".encode())
        for item in value:
            _add(digest, item)
    else:
        _add_bytes(digest, _plain(value))


def _add_tensor(digest: Any, value: Tensor) -> None:
    if not is_dense(value):  # nothing that we write
        _add_bytes(digest, b"tensor without elements of its own")
        return
    shape = ",".join(map(str, value.shape))
    _add_bytes(digest, f"tensor {value.dtype} {shape}".encode())
    flat = value.detach().cpu().contiguous().reshape(-1)
    # Seen as bytes: NumPy lacks bfloat16.
    digest.update(flat.view(torch.uint8).numpy() if flat.numel() else b"")


def _add_bytes(digest: Any, data: bytes) -> None:
    digest.update(struct.pack("<Q", len(data)))
    digest.update(data)


def _plain(value: Any) -> bytes:
    """Return bytes that tell a plain value and its type; of any other object, the type alone."""
    name = type(value).__name__
    if isinstance(value, bytes | bytearray):
        return name.encode() + bytes(value)
    if isinstance(value, float):  # its bits: NaN is a value too
        return name.encode() + struct.pack("<d", value)
    if isinstance(value, int):
        return f"{name} {value:x}".encode()
    if value is None or isinstance(value, str | complex | torch.dtype | torch.device):
        return f"{name} {value}".encode(errors="surrogatepass")
    return name.encode()
