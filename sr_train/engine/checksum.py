"""A checksum over tensors and plain values, for a file to carry inside."""

import hashlib
import os
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from sr_train.io.weight_files import is_dense

_ALGORITHM = "sha256"
"""Of those that nobody can forge by chance, the one that processors have instructions for."""

_MOST_THREADS = 4
_MANY_BYTES = 2**22
"""From so many on, threads pay."""


def checksum(content: Any) -> str:
    """Return a checksum over nested dicts, lists, tuples, plain values and tensors.

    It depends on every key, value, dtype, shape and element, and neither on the order of a dict
    nor on how a tensor lies in memory. Tensors are read in place, by a few threads.
    """
    digest, tensors = hashlib.new(_ALGORITHM), list(_tensors_in(content))
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    if sum(tensor.nbytes for tensor in tensors if is_dense(tensor)) < _MANY_BYTES:
        _add(digest, content, map(_of_tensor, tensors))
    else:
        with ThreadPoolExecutor(threads) as pool:
            _add(digest, content, pool.map(_of_tensor, tensors))
    return f"{_ALGORITHM}:{digest.hexdigest()}"


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in the order in which `_add` meets them."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for _, item in _rows(value):
            yield from _tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, Tensor | Mapping | list | tuple):
                yield from _tensors_in(item)


def _add(digest: Any, value: Any, of_tensors: Iterator[bytes]) -> None:
    if isinstance(value, Tensor):
        _add_bytes(digest, next(of_tensors))
    elif isinstance(value, Mapping):
        _add_bytes(digest, f"dict {len(value)}".encode())
        for key, item in _rows(value):
            _add_bytes(digest, key)
            _add(digest, item, of_tensors)
    elif isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        _add_bytes(digest, f"{kind} {len(value)}".encode())
        for item in value:
            _add(digest, item, of_tensors)
    else:
        _add_bytes(digest, _plain(value))


def _rows(value: Mapping[Any, Any]) -> list[tuple[bytes, Any]]:
    rows = [(_plain(key), item) for key, item in value.items()]
    return sorted(rows, key=lambda row: row[0])


def _of_tensor(value: Tensor) -> bytes:
    """Return dtype, shape and a digest of the elements."""
    if not is_dense(value):  # nothing that we write
        return b"tensor without elements of its own"
    flat = value.detach().cpu().contiguous().reshape(-1)
    # Seen as bytes: NumPy lacks bfloat16.
    elements = flat.view(torch.uint8).numpy().data if flat.numel() else b""
    shape = ",".join(map(str, value.shape))
    head = f"tensor {value.dtype} {shape} ".encode()
    return head + hashlib.new(_ALGORITHM, elements).digest()


def _add_bytes(digest: Any, data: bytes) -> None:
    digest.update(struct.pack("<Q", len(data)))
    digest.update(data)


def _plain(value: Any) -> bytes:
    """Return bytes that identify a plain value and its type; of any other object, only the type."""
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
