"""How folders are searched: one walk, and one order, for training, validation and use."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts `a2` before `a10`."""
    parts: list[str | int] = list(re.split(r"([0-9]+)", text))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, text


def walk(
    root: Path, on_bad: Callable[[str, str], None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below a root, itself first, with the names of the files in it.

    Links are followed, and every folder is entered once, however links may loop. Names that begin
    with `.` are left out.

    Args:
        root: absolute or relative; so are the folders that are yielded.
        on_bad: called with (path, why) for a folder that cannot be entered.
    """
    entered: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        if on_bad is not None:
            on_bad(str(error.filename), f"cannot be entered: {error.strerror}")

    for folder, folders, names in os.walk(root, onerror=failed, followlinks=True):
        try:
            status = os.stat(folder)
        except OSError as error:
            failed(error)
            continue
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield folder, [name for name in names if not name.startswith(".")]
