"""Scalars, images and text for TensorBoard."""

import math
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from sr_train.api.logger import Logger
from sr_train.monitoring.event_files import drop, files, put_in_order

_HPARAMS = ".hparams"
"""End of the names of event files that hold what a run was given and what came of it."""


def tensorboard_folder(run_dir: Path) -> Path:
    """Return where a run's event files lie."""
    return run_dir / "tensorboard"


def write_hparams(
    run_dir: Path,
    chosen: Mapping[str, bool | int | float | str],
    results: Mapping[str, float],
) -> None:
    """Add a run to TensorBoard's HParams tab, which compares runs; what was there is replaced.

    Args:
        run_dir: the run's folder.
        chosen: what was set for this run, by config path.
        results: what came of it, by metric; those that are not finite are left out.
    """
    finite = {f"best/{name}": value for name, value in results.items() if math.isfinite(value)}
    folder = tensorboard_folder(run_dir)
    _remove_hparams(folder)
    writer = SummaryWriter(str(folder), filename_suffix=_HPARAMS)
    try:
        assert writer.file_writer is not None
        for summary in hparams(dict(chosen), finite):
            writer.file_writer.add_summary(summary)
        for name, value in finite.items():
            writer.add_scalar(name, value)
    finally:
        writer.close()


def _remove_hparams(folder: Path) -> None:
    for path in folder.glob(f"*{_HPARAMS}"):
        path.unlink()


def _let_writer_tell_by_itself() -> None:
    """Print no traceback of the thread that writes events; the next call raises the error again."""
    before = threading.excepthook
    if getattr(before, "is_quiet", False):
        return

    def hook(told: threading.ExceptHookArgs) -> None:
        if type(told.thread).__name__ != "_AsyncWriterThread":
            before(told)

    hook.is_quiet = True  # type: ignore[attr-defined]
    threading.excepthook = hook


class TensorBoardLogger(Logger):
    """Write event files under the run's folder.

    Args:
        run_dir: the run's folder; events go to `tensorboard` in it.
        first_step: events of this step and later, left by a run that was cut off, are dropped.
    """

    def __init__(self, run_dir: Path, first_step: int = 0) -> None:
        self.folder = tensorboard_folder(run_dir)
        self._first_step = first_step
        _remove_hparams(self.folder)  # written at the end of each launch, and read once
        put_in_order(self.folder, first_step)
        earlier = files(self.folder)
        _let_writer_tell_by_itself()
        with self._named():
            self._writer = SummaryWriter(str(self.folder))
        self._own = next((path for path in files(self.folder) if path not in earlier), None)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write finite scalars; the non-finite monitor reports the others.

        Raises:
            OSError: naming the folder.
        """
        self._drop_earlier(values, step)
        with self._named():
            for name, value in values.items():
                if math.isfinite(value):
                    self._writer.add_scalar(name, value, step)

    def config(self, config: Mapping[str, Any]) -> None:
        """Write the config as YAML."""
        self.text("config", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Write an image, uint8 HWC."""
        self._drop_earlier([name], step)
        with self._named():
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        """Write how finite numbers are distributed; at least one of them."""
        self._drop_earlier([name], step)
        with self._named():
            self._writer.add_histogram(name, values, step)

    def text(self, name: str, text: str) -> None:
        """Write a text, shown as it is."""
        shown = "    " + text.replace("\n", "\n    ")
        with self._named():
            self._writer.add_text(name, shown, max(0, self._first_step - 1))

    def _drop_earlier(self, names: Collection[str], step: int) -> None:
        """Drop what a launch wrote before that was cut off within a validation."""
        if step < self._first_step:
            drop(self.folder, names, step, self._own)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise OSError(err.errno, err.strerror or str(err), str(self.folder)) from err

    def close(self) -> None:
        self._writer.close()
