"""Reading files of `torch.save` that nobody vouches for: plain data, and nothing in them is run."""

import pickle
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

_ZIP_MAGIC = b"PK\x03\x04"


class TorchFileError(Exception):
    """Such a file cannot be read; says why in words that follow the file's name."""


def is_zip(head: bytes) -> bool:
    """Return whether a file that begins with these bytes is of the newer kind, a zip archive."""
    return head[:4] == _ZIP_MAGIC


def load_plain(source: Path | BinaryIO, mapped: bool = False) -> Any:
    """Return what `torch.save` wrote, on the CPU, if it is tensors and plain Python alone.

    Args:
        source: of the whole file.
        mapped: leave tensors in the file until they are used; for paths of zip archives.

    Raises:
        OSError: it cannot be opened.
        TorchFileError: damaged, of another kind, holding more than plain data, or too large to
            be what it seems.
    """
    _refuse_packed(source)
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as err:
        if "GLOBAL" in str(err):
            raise TorchFileError(
                "holds more than tensors, which could run code; save the tensors alone with "
                "torch.save"
            ) from None
        raise TorchFileError("damaged, or not written by torch.save") from None
    except OSError:
        raise
    except Exception as err:
        # The bytes decide which call inside of torch fails, and how.
        lines = str(err).splitlines() or [type(err).__name__]
        raise TorchFileError(f"damaged, or not written by torch.save: {lines[0]}") from None


def _refuse_packed(source: Path | BinaryIO) -> None:
    """Raise where a zip archive would unpack to more than the file's own size.

    `torch.save` never packs, so that an honest archive holds its entries as they are.
    """
    if isinstance(source, Path):
        with source.open("rb") as file:
            _refuse_packed(file)
        return
    head = source.read(4)
    if is_zip(head):
        source.seek(0, 2)
        size = source.tell()
        try:
            with zipfile.ZipFile(source) as archive:
                entries = archive.infolist()
        except Exception as err:
            raise TorchFileError(f"damaged zip archive: {err}") from None
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > size:
            raise TorchFileError("a packed zip archive; torch.save writes none")
    source.seek(0)
