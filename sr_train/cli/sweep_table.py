"""What the runs of a sweep came to: a row for each, read from their folders."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from yaml import YAMLError, safe_load  # type: ignore[import-untyped]

from sr_train.api.text import csv_cell, one_line
from sr_train.io.files import write_atomically
from sr_train.io.folders import natural_key
from sr_train.monitoring.run_files import last_launch

ERROR_FILE = "error.txt"
"""What ended a run of a sweep, in that run's folder."""

_CSV = "sweep.csv"
_MOST_ROWS = 20
_MOST_LINES = 3


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep."""

    folder: Path
    overrides: tuple[str, ...]
    """In which it differs from some other."""
    metric: str | None
    """Name of `best_metric`; None: it was not validated."""
    higher_is_better: bool
    value: float | None
    """The best of the metric."""
    state: str
    """`done`, `failed`, `stopped by SIGNAL` or `not ended`."""


def swept_runs(sweep_dir: Path) -> list[SweptRun]:
    """Return the runs in the folder of a sweep, best first, those without a value at the end."""
    folders = sorted(sweep_dir.glob("*/.hydra"), key=lambda path: natural_key(path.parent.name))
    words = {path.parent: _overrides(path) for path in folders}
    common = set.intersection(*(set(each) for each in words.values())) if words else set()
    runs = [
        _swept(folder, tuple(word for word in own if word not in common))
        for folder, own in words.items()
    ]
    valued = [(run.value, run) for run in runs if run.value is not None]
    is_rising = any(run.higher_is_better for _, run in valued)
    valued.sort(key=lambda pair: pair[0], reverse=is_rising)
    return [*(run for _, run in valued), *(run for run in runs if run.value is None)]


def _overrides(hydra_folder: Path) -> list[str]:
    """Return the words of a run's last launch."""
    files = sorted(hydra_folder.glob("*/overrides.yaml"))
    try:
        words = safe_load(files[-1].read_text(encoding="utf-8")) if files else []
    except (OSError, ValueError, YAMLError):
        words = []
    return [str(word) for word in words] if isinstance(words, list) else []


def _swept(folder: Path, overrides: tuple[str, ...]) -> SweptRun:
    launch = last_launch(folder / "manifest.json")
    best = launch.get("best")
    if not isinstance(best, dict) or not isinstance(best.get("value"), int | float):
        best = {}
    stopped_by = launch.get("stopped_by")
    state = f"stopped by {stopped_by}" if stopped_by else "done"
    if "ended" not in launch:
        state = "not ended"
    if (folder / ERROR_FILE).exists():
        state = "failed"
    return SweptRun(
        folder,
        overrides,
        best.get("metric"),
        bool(best.get("higher_is_better", True)),
        best.get("value"),
        state,
    )


def sweep_table(runs: Sequence[SweptRun], sweep_dir: Path) -> Table:
    """Return a table of the runs, the first ones where there are many."""
    metric = next((run.metric for run in runs if run.metric), None)
    table = Table(title=f"{len(runs)} runs in {one_line(sweep_dir)}", title_justify="left")
    table.add_column("run", no_wrap=True)
    table.add_column("overrides", overflow="fold")
    if metric is not None:
        table.add_column(f"best {one_line(metric)}", justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for run in runs[:_MOST_ROWS]:
        value = "" if run.value is None else f"{run.value:.4f}"
        cells = [run.folder.name, " ".join(run.overrides), *([value] if metric else []), run.state]
        table.add_row(*map(one_line, cells))
    if len(runs) > _MOST_ROWS:
        table.caption = f"... and {len(runs) - _MOST_ROWS} more, in {_CSV}"
    return table


def write_sweep(runs: Sequence[SweptRun], sweep_dir: Path) -> Path:
    """Write sweep.csv, a row for each run; return its path."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["run", "overrides", "best_metric", "best_value", "state", "folder"])
    for run in runs:
        value = "" if run.value is None else repr(run.value)
        labels = [run.folder.name, " ".join(run.overrides), run.metric or ""]
        row = [*map(csv_cell, labels), value, run.state, csv_cell(run.folder)]
        writer.writerow(row)
    write_atomically(sweep_dir / _CSV, text.getvalue().encode(), sync=False)
    return sweep_dir / _CSV


def failures(sweep_dir: Path) -> dict[str, str]:
    """Return what ended each run that failed, in one line, by the name of its folder."""
    notes = sorted(sweep_dir.glob(f"*/{ERROR_FILE}"), key=lambda path: natural_key(str(path)))
    return {note.parent.name: _problem(note.read_text(errors="replace")) for note in notes}


def _problem(text: str) -> str:
    """Return the lines of an error that say what is wrong: not that there is something."""
    lines = [line.strip() for line in text.strip().splitlines()] or ["no reason given"]
    if lines[0].startswith("Traceback"):
        return lines[-1]
    if lines[0].endswith(("problem:", "problems:")) and len(lines) > 1:
        listed = [line.removeprefix("- ") for line in lines[1:]]
        more = f"; and {len(listed) - _MOST_LINES} more" if len(listed) > _MOST_LINES else ""
        return "; ".join(listed[:_MOST_LINES]) + more
    return lines[0]
