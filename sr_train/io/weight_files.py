"""Files of tensors, whoever wrote them: read as data, never as code, and named when they are none.

What is in a file comes out as plain dicts, lists, tuples, numbers, text and tensors. Nothing else
that a file may hold survives: no attributes on objects, no subclasses.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipInfo

import safetensors
import torch
from torch import Tensor, nn

from sr_train.api.errors import CheckpointError, SRTrainError
from sr_train.api.text import brief
from sr_train.io.file_kinds import is_safetensors, is_torch, told_archive, told_kind
from sr_train.io.torch_files import DamagedFileError, TorchFileError, load_plain
from sr_train.utils.memory import is_out_of_memory

_HEAD = 1024
"""Bytes that show what a file is."""

_DAMAGED = "not a file of weights, or damaged"

_MOST_GROWTH = 10
_ALWAYS_FINE = 2**29
"""What a file may unpack to: this many times its size, and so many bytes in any case."""

_MOST_TENSORS = 100_000
_MOST_DEPTH = 64
_MOST_VALUES = 2_000_000
"""How nested and how many the values of a file may be."""


def read_any(path: Path) -> tuple[Any, dict[str, str] | None]:
    """Read a file of torch.save or a safetensors file, which of both its content shows.

    Returns:
        What it holds; and the metadata of a safetensors file, else None.

    Raises:
        CheckpointError: naming the file, and what it is where that is known.
    """
    head = _head(path)
    if is_safetensors(head):
        return _read_safetensors(path)
    if is_torch(head):
        return _read_torch(path), None
    told = told_kind(head, path)
    if told is None and path.suffix.lower() == ".safetensors":
        told = "not a safetensors file, or damaged"
    raise CheckpointError(f"{path}: {told or _DAMAGED}")


def read_content(path: Path) -> Any:
    """Read what a file holds, see `read_any`; metadata is left unread."""
    return read_any(path)[0]


def is_dense(value: Tensor) -> bool:
    """Tell a tensor of plain numbers from one that is sparse, nested, quantized or empty (meta)."""
    plain = value.layout is torch.strided and not value.is_nested and not value.is_quantized
    return plain and not value.is_meta


def _head(path: Path) -> bytes:
    try:
        if not path.exists():
            raise CheckpointError(f"{path}: no such file")
        if not path.is_file():
            raise CheckpointError(f"{path}: is a folder or a device, expected a file")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError) as err:  # a name that no file can have is a ValueError
        raise CheckpointError(f"{path}: cannot be read ({_reason(err)})") from err
    if not head:
        raise CheckpointError(f"{path}: empty, 0 bytes")
    return head


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with (
        _told(path, "not a safetensors file, or damaged"),
        safetensors.safe_open(path, framework="pt") as file,
    ):
        names = list(file.keys())
        if len(names) > _MOST_TENSORS:
            raise CheckpointError(f"{path}: holds {len(names):,} tensors, more than any network")
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})


def _read_torch(path: Path) -> Any:
    # Of the open file: by a path, torch goes by the suffix.
    with _told(path, _DAMAGED), path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old formats warn about storages
        plain = _Plain()
        content = plain(load_plain(file, _check_entries))
        _check_growth(plain.num_bytes, path.stat().st_size)
        return content


@contextmanager
def _told(path: Path, otherwise: str) -> Iterator[None]:
    """Turn whatever a library says about a file into a CheckpointError that names the file."""
    try:
        yield
    except SRTrainError:
        raise
    except Exception as err:  # a library may raise anything about bytes that nobody vouches for
        if is_out_of_memory(err):
            reason = "does not fit into memory, or is damaged"
        elif isinstance(err, TorchFileError) and not isinstance(err, DamagedFileError):
            reason = str(err)
        elif isinstance(err, OSError) and err.errno is not None:
            reason = f"cannot be read ({_reason(err)})"
        elif isinstance(err, safetensors.SafetensorError):
            reason = f"{otherwise} ({brief(err, 160)})"
        else:
            reason = otherwise
        raise CheckpointError(f"{path}: {reason}") from err


def _reason(err: Exception) -> str:
    return getattr(err, "strerror", None) or str(err)


def _check_entries(entries: Sequence[ZipInfo], size: int) -> None:
    """Refuse an archive of other things, and one that unpacks to far more than it is."""
    told = told_archive([entry.filename for entry in entries])
    if told is not None:
        raise TorchFileError(told)
    _check_growth(sum(entry.file_size for entry in entries), size)


def _check_growth(size: int, packed: int) -> None:
    """Refuse what is far larger than its file: packed, or few bytes seen many times."""
    if size > max(_MOST_GROWTH * packed, _ALWAYS_FINE):
        raise TorchFileError(
            f"would unpack from {packed:,} to {size:,} bytes, which weights do not; it is damaged "
            "or was made to fill the memory"
        )


class _Plain:
    """Copy what a file holds into plain containers; tensors keep their memory."""

    def __init__(self) -> None:
        self.num_bytes = 0
        """Of the tensors and bytes so far, as often as they are seen."""
        self._values = 0

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if not isinstance(value, dict | list | tuple):
            self.num_bytes += len(value) if isinstance(value, bytes | bytearray) else 0
            return value
        self._values += len(value)
        if depth > _MOST_DEPTH or self._values > _MOST_VALUES:
            raise TorchFileError(
                f"nests its values deeper than {_MOST_DEPTH} times, or holds more "
                f"than {_MOST_VALUES:,}; it is no file of weights"
            )
        if isinstance(value, dict):
            return {key: self(item, depth + 1) for key, item in dict.items(value)}
        items = [
            item if type(item) in (int, float, str) else self(item, depth + 1) for item in value
        ]
        return items if isinstance(value, list) else tuple(items)

    def _tensor(self, value: Tensor) -> Tensor:
        if type(value) not in (Tensor, nn.Parameter):
            raise TorchFileError(
                f"holds tensors that are {type(value).__name__}s, such as those split "
                "over processes; save whole ones in the program that wrote it"
            )
        value = Tensor.detach(value)  # without attributes that the file gave it
        if is_dense(value):
            self.num_bytes += value.numel() * value.element_size()
        return value
