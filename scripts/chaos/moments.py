"""Moments of a run that matter: hooks that act at the n-th one of a kind, inside of the child."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Met = Callable[[], None]
"""Called at each moment of the kind."""

IMAGES = {".png", ".jpg"}


def at(kind: str, number: int, act: Callable[[], None]) -> Callable[[], None]:
    """Return a hook for `children.run` that acts at the n-th moment of a kind."""
    count = 0

    def met() -> None:
        nonlocal count
        count += 1
        if count == number:
            act()

    return lambda: PATCHES[kind](met)


def die() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)


def sending(number: int, times: int = 1) -> Callable[[], None]:
    """Return what sends this process a signal, once or more, 10 ms apart."""

    def send() -> None:
        for each in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.01 if each + 1 < times else 0.0)

    return send


def wrap(owner: Any, name: str, met: Met, *, after: bool = False) -> None:
    """Let a function of a module or class tell before, or after, it is called."""
    inner = getattr(owner, name)

    def told(*args: Any, **kwargs: Any) -> Any:
        if not after:
            met()
        result = inner(*args, **kwargs)
        if after:
            met()
        return result

    setattr(owner, name, told)


def _fsync(met: Met) -> None:
    wrap(os, "fsync", met)


def _renaming(met: Met) -> None:
    wrap(Path, "replace", met)


def _renamed(met: Met) -> None:
    wrap(Path, "replace", met, after=True)


def _removing(met: Met) -> None:
    wrap(Path, "unlink", met)


def _half_written(met: Met, suffixes: set[str] | None = None) -> None:
    """Act when half of a file's bytes are there."""
    from sr_train.io.files import TemporaryFile

    write = TemporaryFile.write

    def halves(self: TemporaryFile, data: bytes | memoryview) -> None:
        middle = len(data) // 2
        write(self, data[:middle])
        if suffixes is None or self.target.suffix in suffixes:
            met()
        write(self, data[middle:])

    TemporaryFile.write = halves  # type: ignore[method-assign]


def _half_image(met: Met) -> None:
    _half_written(met, IMAGES)


def _half_row(met: Met) -> None:
    """Act when half a row of metrics.csv is there."""
    from sr_train.monitoring.run_files import MetricsFile

    append = MetricsFile.append

    def torn(self: MetricsFile, values: Any, step: int) -> None:
        whole = self._path.stat().st_size
        with self._path.open("a") as file:
            file.write(f"{step},{next(iter(values))},0.12")
        met()
        os.truncate(self._path, whole)
        append(self, values, step)

    MetricsFile.append = torn  # type: ignore[method-assign]


def _scoring(met: Met) -> None:
    from sr_train.engine.validator import Validator

    wrap(Validator, "_values", met)


def _saving(met: Met) -> None:
    from sr_train.engine import checkpoint, weights

    wrap(checkpoint, "write_atomically", met)
    weights.write_atomically = checkpoint.write_atomically


def _frame(met: Met) -> None:
    from sr_train.io.video.writer import VideoWriter

    wrap(VideoWriter, "write", met)


def _building(met: Met) -> None:
    from sr_train.factory import models

    wrap(models, "make_model", met)


def _closing(met: Met) -> None:
    from sr_train.commands import train

    wrap(train, "print_summary", met)


def _baseline(met: Met) -> None:
    from sr_train.engine.live_validation import LiveValidation

    wrap(LiveValidation, "baseline", met)


PATCHES: dict[str, Callable[[Met], None]] = {
    "fsync": _fsync,
    "renaming": _renaming,
    "renamed": _renamed,
    "removing": _removing,
    "half a file": _half_written,
    "half an image": _half_image,
    "half a row": _half_row,
    "scoring": _scoring,
    "saving": _saving,
    "frame": _frame,
    "building": _building,
    "closing": _closing,
    "baseline": _baseline,
}

OFTEN = {
    "fsync": 150, "renaming": 60, "renamed": 60, "removing": 25, "half a file": 60,
    "half an image": 6, "half a row": 18, "scoring": 12, "saving": 45, "building": 1, "closing": 1,
    "baseline": 1,
}  # fmt: skip
"""About how many moments of a kind one of the toy runs has."""
