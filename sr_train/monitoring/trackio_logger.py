"""Trackio: `logger=trackio`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import trackio

from sr_train.api.logger import Logger
from sr_train.monitoring.run_record import RunRecord


class TrackioLogger(Logger):
    """Log to a run of Trackio, which a resumed run continues; `trackio show` shows it.

    Args:
        run_dir: the run's folder.
        first_step: of this launch.
        dry_run: log nothing.
        project: of Trackio.
        name: None: that of the run's folder.
        space_id: the Hugging Face Space to log to; None: that of TRACKIO_SPACE_ID, else the
            folder TRACKIO_DIR of this machine.
    """

    def __init__(
        self,
        run_dir: Path,
        first_step: int = 1,
        dry_run: bool = False,
        project: str = "sr_train",
        name: str | None = None,
        space_id: str | None = None,
    ) -> None:
        self._record = RunRecord(run_dir, "trackio", f"{space_id} {project}", first_step, dry_run)
        self._run = (
            None
            if dry_run
            else trackio.init(
                project=project,
                name=name or self._record.name,
                space_id=space_id,
                resume="never" if self._record.run_id is None else "allow",
                embed=False,
            )
        )
        if self._run is not None:
            self._record.keep(self._run.id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._log(self._record.unwritten(values, step), step)

    def config(self, config: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._run.config.update(config)  # it is written with what is logged next

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        if self._record.is_new(name, step):
            self._log({name: trackio.Image(pixels)}, step)

    def text(self, name: str, text: str) -> None:
        self._log({name: trackio.Markdown(text)}, None)

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        if self._record.is_new(name, step):
            self._log({name: trackio.Histogram(values)}, step)

    def close(self) -> None:
        if self._run is not None:
            trackio.finish()  # by the run's own method, it would end once more with the process

    def _log(self, values: Mapping[str, Any], step: int | None) -> None:
        if self._run is not None and values:
            self._run.log(dict(values), step=step)
