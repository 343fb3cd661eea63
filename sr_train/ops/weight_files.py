"""Files of tensors, whoever wrote them: read as data, never as code, and told when they are none.

What is in a file comes out as plain dicts, lists, tuples, numbers, text and tensors. Nothing else
that a file may hold survives: no attributes on objects, no subclasses.
"""

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch
from torch import Tensor, nn

from sr_train.ops.errors import CheckpointError, SRTrainError
from sr_train.ops.file_kinds import is_safetensors, is_torch, told_archive, told_kind
from sr_train.ops.memory import is_out_of_memory
from sr_train.ops.text import brief

_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_BYTES = "bytearray"

_HEAD = 1024
"""Bytes that tell what a file is."""

_DAMAGED = "not a file of weights, or damaged"

_MOST_GROWTH = 10
_ALWAYS_FINE = 2**29
"""What a file may unpack to: this many times its size, and so many bytes in any case."""

_MOST_TENSORS = 100_000
_MOST_TUPLES = 100_000
_MOST_DEPTH = 64
_MOST_VALUES = 2_000_000
"""How nested and how many the values of a file may be."""


def read_any(path: Path) -> tuple[Any, dict[str, str] | None]:
    """Read a file of torch.save or a safetensors file, which of both its content tells.

    Returns:
        What it holds; and the metadata of a safetensors file, else None.

    Raises:
        CheckpointError: naming the file, and what it is where that can be told.
    """
    head = _head(path)
    if is_safetensors(head):
        return _read_safetensors(path)
    if is_torch(head):
        return _read_torch(path, head), None
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


def _read_torch(path: Path, head: bytes) -> Any:
    with _told(path, _DAMAGED), path.open("rb") as file:
        if not head.startswith(b"PK"):
            _check_pickles(path, file)
        elif zipfile.is_zipfile(file):
            _check_archive(path, file)
        else:
            raise CheckpointError(f"{path}: cut off, its end is missing; copy or download it again")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats warn about storages
            # Of the open file: by a path, torch goes by the suffix.
            content = torch.load(file, map_location="cpu", weights_only=True)
        plain = _Plain(path)
        content = plain(content)
        plain.check_bytes()
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
        elif isinstance(err, pickle.UnpicklingError):
            reason = _refused(str(err)) or otherwise
        elif isinstance(err, OSError) and err.errno is not None:
            reason = f"cannot be read ({_reason(err)})"
        elif isinstance(err, safetensors.SafetensorError):
            reason = f"{otherwise} ({brief(err, 160)})"
        else:
            reason = otherwise
        raise CheckpointError(f"{path}: {reason}") from err


def _refused(message: str) -> str | None:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if not found:
        return None
    return (
        f"holds the Python object {brief(found[1])} beside its weights, which is not loaded since "
        "it could run code; save the state dict alone in the program that wrote it"
    )


def _reason(err: Exception) -> str:
    return getattr(err, "strerror", None) or str(err)


def _check_archive(path: Path, file: BinaryIO) -> None:
    """Refuse an archive of other things, and one that unpacks to far more than it is."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        told = told_archive([entry.filename for entry in entries])
        if told is not None:
            raise CheckpointError(f"{path}: {told}")
        _check_growth(path, sum(entry.file_size for entry in entries))
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                data = archive.read(entry)
                # Looking for bytes that may make such things is quick, and mostly enough.
                many = sum(data.count(code) for code in b"t\x85\x86\x87") > _MOST_TUPLES
                if many or _BYTES.encode() in data:
                    _check_pickles(path, io.BytesIO(data))


def _check_growth(path: Path, size: int) -> None:
    packed = path.stat().st_size
    if size > max(_MOST_GROWTH * packed, _ALWAYS_FINE):
        raise CheckpointError(
            f"{path}: would unpack from {packed:,} to {size:,} bytes, which weights do not; it is "
            "damaged or was made to fill the memory"
        )


def _check_pickles(path: Path, stream: BinaryIO) -> None:
    """Refuse pickles that cost stack or memory by themselves, whatever they hold.

    A tuple of tuples without end overflows the stack when it is hashed; a bytearray may be asked
    for by its length alone.
    """
    num_tuples = 0
    for code, argument in _operations(stream):
        num_tuples += code in _TUPLES
        asks = code == "GLOBAL" and _BYTES in str(argument)
        if asks or num_tuples > _MOST_TUPLES:
            raise CheckpointError(f"{path}: holds what no file of weights does; it is damaged")


def _operations(stream: BinaryIO) -> Iterator[tuple[str, object]]:
    """Yield those of pickles that lie one behind the other, up to what is none."""
    while True:
        try:
            for code, argument, _ in pickletools.genops(stream):
                yield code.name, argument
        except Exception:  # what follows the pickles of an old file are its tensors
            return


class _Plain:
    """Copy what a file holds into plain containers; tensors keep their memory.

    Args:
        path: for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = 0
        self._bytes = 0

    def __call__(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if not isinstance(value, dict | list | tuple):
            self._bytes += len(value) if isinstance(value, bytes | bytearray) else 0
            return value
        self._values += len(value)
        if depth > _MOST_DEPTH or self._values > _MOST_VALUES:
            raise CheckpointError(
                f"{self.path}: nests its values deeper than {_MOST_DEPTH} times, or holds more "
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
            raise CheckpointError(
                f"{self.path}: holds tensors that are {type(value).__name__}s, such as those split "
                "over processes; save whole ones in the program that wrote it"
            )
        value = Tensor.detach(value)  # without attributes that the file gave it
        if is_dense(value):
            self._bytes += value.numel() * value.element_size()
        return value

    def check_bytes(self) -> None:
        """Refuse tensors that are far larger than the file: few bytes seen many times."""
        _check_growth(self.path, self._bytes)
