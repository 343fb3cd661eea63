"""What a run writes about itself beside TensorBoard: metrics.csv and manifest.json."""

import csv
import io
import json
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sr_train.ops.files import write_atomically

_COLUMNS = ("step", "name", "value")
_PACKAGES = ("sr_train", "torch", "numpy", "opencv-python", "hydra-core", "safetensors")


class MetricsFile:
    """Rows of (step, name, value) in a CSV file, appended and flushed at once.

    Args:
        path: the file.
        first_step: rows of this step and later, left by a run that was cut off, are dropped.
    """

    def __init__(self, path: Path, first_step: int = 0) -> None:
        kept = []
        if path.is_file():
            with path.open(newline="") as file:
                rows = [row for row in csv.reader(file) if len(row) == len(_COLUMNS)]
            kept = [row for row in rows[1:] if row[0].isdigit() and int(row[0]) < first_step]
        table = io.StringIO(newline="")
        csv.writer(table).writerows([_COLUMNS, *kept])
        write_atomically(path, table.getvalue().encode(), sync=False)
        self._path = path

    def append(self, values: Mapping[str, float], step: int) -> None:
        with self._path.open("a", newline="") as file:
            csv.writer(file).writerows((step, name, repr(v)) for name, v in values.items())


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
    _write_launches(path, launches)


def close_manifest(path: Path, facts: Mapping[str, object]) -> None:
    """Add to the last launch in manifest.json when it ended, and `facts`."""
    launches = _launches(path)
    launches[-1] |= {"ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **facts}
    _write_launches(path, launches)


def _launches(path: Path) -> list[dict[str, object]]:
    return json.loads(path.read_text()) if path.is_file() else []


def _write_launches(path: Path, launches: list[dict[str, object]]) -> None:
    write_atomically(path, (json.dumps(launches, indent=2) + "\n").encode(), sync=False)
