"""Reading files of `torch.save` that nobody vouches for: plain data, and nothing in them is run."""

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from sr_train.api.text import brief
from sr_train.utils.memory import is_out_of_memory

_ZIP_MAGIC = b"PK\x03\x04"
_TUPLES = frozenset({"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_MOST_TUPLES = 100_000
_BYTES = "bytearray"

CheckEntries = Callable[[Sequence[zipfile.ZipInfo], int], None]
"""Raises a `TorchFileError` where the entries of an archive, in a file of so many bytes, are not
what is wanted."""


class TorchFileError(Exception):
    """Such a file cannot be read; says why in words that follow the file's name."""


class DamagedFileError(TorchFileError):
    """Such a file is damaged, or of another kind; which of both cannot be known."""


def is_zip(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is of the newer kind, a zip archive."""
    return head[:4] == _ZIP_MAGIC


def load_plain(source: Path | BinaryIO, check_entries: CheckEntries) -> Any:
    """Return what `torch.save` wrote, on the CPU, if it is only tensors and plain Python.

    Args:
        source: the open file; or the path of a zip archive, whose tensors then stay in the file
            until they are used.
        check_entries: of a zip archive, before any of them is read.

    Raises:
        OSError: it cannot be read.
        TorchFileError: damaged, of another kind, holding more than plain data, or too large to
            be what it seems.
    """
    try:
        _check(source, check_entries)
        is_mapped = isinstance(source, Path)
        return torch.load(source, map_location="cpu", weights_only=True, mmap=is_mapped)
    except TorchFileError:
        raise
    except Exception as err:  # the bytes decide which call inside of torch fails, and how
        if isinstance(err, OSError) and err.errno is not None:
            raise
        raise _explained(err) from err


def _explained(err: Exception) -> TorchFileError:
    if is_out_of_memory(err):
        return TorchFileError("does not fit into memory, or is damaged")
    held = re.search(r"GLOBAL ([\w.]+)", str(err)) if _is_of_pickles(err) else None
    if held:
        return TorchFileError(
            f"holds the Python object {brief(held[1])} beside its tensors, which is not loaded "
            "since it could run code; save only the state dict, or the tensor, in the program "
            "that wrote it"
        )
    words = "damaged, or not written by torch.save"
    # Of pickles, torch speaks of its own settings.
    lines = [] if _is_of_pickles(err) else str(err).splitlines()
    return DamagedFileError(f"{words}: {brief(lines[0], 160)}" if lines else words)


def _is_of_pickles(err: Exception) -> bool:
    return isinstance(err, pickle.UnpicklingError)


def _check(source: Path | BinaryIO, check_entries: CheckEntries) -> None:
    """Raise where reading a file would cost more than its size suggests; leave it at its start."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            _check(file, check_entries)
        return
    if is_zip(source.read(len(_ZIP_MAGIC))):
        _check_archive(source, check_entries)
    else:
        source.seek(0)
        _check_pickles(source)
    source.seek(0)


def _check_archive(file: BinaryIO, check_entries: CheckEntries) -> None:
    if not zipfile.is_zipfile(file):
        raise TorchFileError(
            "damaged zip archive: cut off, its end is missing; copy or download it again"
        )
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            check_entries(entries, file.seek(0, io.SEEK_END))
            for entry in entries:
                if entry.filename.endswith(".pkl"):
                    if entry.CRC == 0:
                        del entry.CRC  # `torch.serialization.set_crc32_options` turns it off
                    _check_archived(archive.read(entry))
    except (TorchFileError, OSError, MemoryError):
        raise
    except Exception as err:  # of unpacking, each method has its own
        raise TorchFileError(f"damaged zip archive: {brief(err, 160)}") from err


def _check_archived(pickled: bytes) -> None:
    # Looking for bytes that may make such things is quick, and mostly enough.
    many = sum(pickled.count(code) for code in b"t\x85\x86\x87") > _MOST_TUPLES
    if many or _BYTES.encode() in pickled:
        _check_pickles(io.BytesIO(pickled))


def _check_pickles(stream: BinaryIO) -> None:
    """Refuse pickles that cost stack or memory by themselves, whatever they hold.

    A tuple of tuples without end overflows the stack when it is hashed; a bytearray may be asked
    for only by its length.
    """
    num_tuples = 0
    for code, argument in _operations(stream):
        num_tuples += code in _TUPLES
        asks = code == "GLOBAL" and _BYTES in str(argument)
        if asks or num_tuples > _MOST_TUPLES:
            raise TorchFileError("holds what no file of weights or tensors does; it is damaged")


def _operations(stream: BinaryIO) -> Iterator[tuple[str, object]]:
    """Yield those of pickles that lie one after the other, up to what is none."""
    while True:
        try:
            for code, argument, _ in pickletools.genops(stream):
                yield code.name, argument
        except Exception:  # what follows the pickles of an old file are its tensors
            return
