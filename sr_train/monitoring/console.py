"""What a person sees while a command runs: log lines above one progress bar."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from sr_train.api.text import printable

log = logging.getLogger(__name__)

LINE_EVERY_SEC = 30.0
"""Seconds between two lines of progress where there is no terminal."""


class _PlainConsole(Console):
    """Shows text as it is, but for what would steer the terminal: names of files are in it."""

    def print(self, *objects: Any, **settings: Any) -> None:
        shown = (printable(each) if isinstance(each, str) else each for each in objects)
        try:
            super().print(*shown, **settings)
        except OSError:  # a terminal that is gone, a full disk behind a pipe: the run continues
            self.quiet = True

    def on_broken_pipe(self) -> None:
        """Go on without anybody who reads; rich would end the program."""
        self.quiet = True


console = _PlainConsole(highlight=False, soft_wrap=True, markup=False)


class _EscapingFormatter(logging.Formatter):
    """Writes out control characters, which names of files may hold."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _LogFile(logging.FileHandler):
    """A log file whose disk may fail: that is said once, and the run continues without it."""

    def handleError(self, record: logging.LogRecord) -> None:
        why = sys.exc_info()[1]
        logging.getLogger().removeHandler(self)
        log.warning(
            "warning: %s: cannot be written, continuing without it: %s", self.baseFilename, why
        )


class ConsoleHandler(logging.Handler):
    """Print log records through the shared console, so that they stay clear of the bar.

    Where there is no terminal, as in a job's log, no bar shows the time: each record has it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_EscapingFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        style = "yellow" if record.levelno >= logging.WARNING else None
        text = self.format(record)
        if not console.is_terminal:
            text = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {text}"
        console.print(Text(text, style=style or ""))


def start_logging(file: Path | None = None, rank: int = 0) -> None:
    """Send log records to the console and, with time stamps, to a file.

    A rank above 0 shows nothing but warnings, on stderr under its number, and writes no file.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    console.quiet = rank > 0
    if rank > 0:
        to_stderr = logging.StreamHandler()
        to_stderr.setFormatter(_EscapingFormatter(f"rank {rank}: %(message)s"))
        root.setLevel(logging.WARNING)
        root.addHandler(to_stderr)
        return
    root.setLevel(logging.INFO)
    root.addHandler(ConsoleHandler())
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        to_file = _LogFile(file, encoding="utf-8", errors="backslashreplace")
        to_file.setFormatter(_EscapingFormatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(to_file)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f}/s" if speed else "-/s")


class Bar:
    """One progress bar with free text after it."""

    def __init__(self, progress: Progress, task: int) -> None:
        self._progress = progress
        self._task = task

    def advance(self, note: str | None = None) -> None:
        """Move by one; a note replaces the text after the bar."""
        if note is None:
            self._progress.advance(self._task)  # type: ignore[arg-type]
        else:
            self._progress.update(self._task, advance=1, note=note)  # type: ignore[arg-type]

    def show(self, done: int, total: int, note: str) -> None:
        """Move to `done` of `total`."""
        self._progress.update(self._task, completed=done, total=total, note=note)  # type: ignore[arg-type]


class LineBar(Bar):
    """Log lines in place of a bar, for where there is no terminal: sparse, and one at the end.

    Args:
        label: said at the start of each line.
        total: of what is counted; it may change by `show`.
        done: of it before the start.
    """

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self._label = label
        self._total = total
        self._first = self._done = done
        self._note = ""
        self._started = self._said_at = time.monotonic()
        self._is_said = True

    def advance(self, note: str | None = None) -> None:
        self.show(self._done + 1, self._total, self._note if note is None else note)

    def show(self, done: int, total: int, note: str) -> None:
        if done < self._done:  # something else is counted now
            self._first, self._started = done, time.monotonic()
        self._is_said = self._is_said and done == self._done
        self._done, self._total, self._note = done, total, note
        if time.monotonic() - self._said_at >= LINE_EVERY_SEC:
            self.say()

    def say(self) -> None:
        """Log how far it is, unless nothing happened since that was logged."""
        if self._is_said:
            return
        self._is_said, self._said_at = True, time.monotonic()
        passed = self._said_at - self._started
        pace = (self._done - self._first) / passed if passed > 0 else 0.0
        left = (self._total - self._done) / pace if pace else 0.0
        ahead = f", left {_clock(left)}" if left else f" in {_clock(passed)}"
        note = f" ({self._note})" if self._note and left else ""
        log.info("%s: %d of %d%s%s", self._label, self._done, self._total, ahead, note)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def progress_bar(label: str, total: int, done: int = 0, *, lines: bool = False) -> Iterator[Bar]:
    """Show a bar while the block runs.

    Args:
        label: before the bar.
        total: of what is counted.
        done: of it before the start.
        lines: where there is no terminal, log a line now and then, see `LineBar`; False: nothing.
    """
    if lines and not console.is_terminal:
        bar_of_lines = LineBar(label, total, done)
        try:
            yield bar_of_lines
        finally:
            bar_of_lines.say()
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        refresh_per_second=2,
        disable=console.quiet or not console.is_terminal,
    ) as bar:
        yield Bar(bar, bar.add_task(label, total=total, completed=done, note=""))
