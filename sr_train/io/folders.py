"""How folders are searched: one walk, and one order, for training, validation and use."""

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sr_train.api.text import one_line


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


def file_status(path: str | os.PathLike[str]) -> os.stat_result | str:
    """Return the status of a file in a folder, or why it is none that can be read.

    Reading a pipe would wait for a writer.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        return "broken link" if os.path.islink(path) else error.strerror or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "is a pipe, a socket or a device; expected a file"
    return status


def kinds_in_words(counts: Mapping[str, int], most: int = 5) -> str:
    """Return how many files there are of each suffix, the most frequent first.

    Args:
        counts: suffix -> files.
        most: suffixes to name.
    """
    ordered = Counter(counts).most_common()
    kinds = [f"{count} {one_line(suffix or '(no suffix)')}" for suffix, count in ordered]
    more = f", ... {len(kinds) - most} more kinds" if len(kinds) > most else ""
    return ", ".join(kinds[:most]) + more
