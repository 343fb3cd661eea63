"""What a run writes about itself beside TensorBoard: metrics.csv and manifest.json."""

import csv
import io
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sr_train.io.files import set_aside, write_atomically

_COLUMNS = ("step", "name", "value")
_PACKAGES = ("sr_train", "torch", "numpy", "opencv-python", "hydra-core", "safetensors")


class MetricsFile:
    """Rows of (step, name, value) in a CSV file, appended and flushed at once.

    Args:
        path: the file; one that is no such table is set aside.
        first_step: rows of this step and later, left by a run that was cut off, are dropped.
        drop: rows of the step before it are dropped, too, whose name begins like this; empty: none.
    """

    def __init__(self, path: Path, first_step: int = 0, drop: str = "") -> None:
        kept = []
        for row in _rows(path):
            step = int(row[0])
            again = bool(drop) and step == first_step - 1 and row[1].startswith(drop)
            if step < first_step and not again:
                kept.append(row)
        table = io.StringIO(newline="")
        csv.writer(table).writerows([_COLUMNS, *kept])
        write_atomically(path, table.getvalue().encode(), sync=False)
        self._path = path

    def append(self, values: Mapping[str, float], step: int) -> None:
        """Add rows.

        Raises:
            OSError: naming the file.
        """
        with _named(self._path), self._path.open("a", newline="") as file:
            csv.writer(file).writerows((step, name, repr(v)) for name, v in values.items())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let errors of the system name the file, as those of a write do not."""
    try:
        yield
    except OSError as err:
        raise OSError(err.errno, err.strerror or str(err), str(path)) from err


def _rows(path: Path) -> list[list[str]]:
    """Return the whole rows of a table that was written before."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = csv.reader(io.StringIO(text.replace("\0", ""), newline=""))
    try:
        head, *rows = [row for row in lines if len(row) == len(_COLUMNS)]
    except (ValueError, csv.Error):
        head, rows = [], []
    if text.strip() and tuple(head) != _COLUMNS:
        set_aside(path, "no table of step, name and value")
        return []
    return [row for row in rows if row[0].isdecimal() and len(row[0]) < 19 and _is_number(row[2])]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def versions() -> dict[str, str]:
    """Return the versions that decide what a run computes."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_manifest(path: Path, facts: Mapping[str, object]) -> None:
    """Append one launch to manifest.json: when, how it was called, versions, and `facts`."""
    launches = _launches(path)
    launches.append(
        {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command_line": sys.argv,
            "versions": versions(),
            **facts,
        }
    )
    with _named(path):
        _write_launches(path, launches)


def close_manifest(path: Path, facts: Mapping[str, object]) -> None:
    """Add to the last launch in manifest.json when it ended, and `facts`."""
    launches = _launches(path) or [{}]
    launches[-1] |= {"ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts}
    with _named(path):
        _write_launches(path, launches)


def last_launch(path: Path) -> Mapping[str, Any]:
    """Return what manifest.json says of the last launch; nothing where it says none."""
    try:
        launches = _read_launches(path)
    except OSError:
        launches = None
    return launches[-1] if launches else {}


def _launches(path: Path) -> list[dict[str, object]]:
    """Return the launches so far; a file that holds none is set aside."""
    if not path.is_file():
        return []
    launches = _read_launches(path)
    if launches is None:
        set_aside(path, "no list of launches")
        return []
    return launches


def _read_launches(path: Path) -> list[dict[str, object]] | None:
    """Return the launches in a file; None where it is no list of such."""
    try:
        launches = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    is_list = isinstance(launches, list) and all(isinstance(each, dict) for each in launches)
    return launches if is_list else None


def _write_launches(path: Path, launches: list[dict[str, object]]) -> None:
    write_atomically(path, (json.dumps(launches, indent=2) + "\n").encode(), sync=False)
