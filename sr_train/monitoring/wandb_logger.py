"""Weights & Biases: `logger=wandb`."""

import logging
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import wandb

from sr_train.api.logger import Logger
from sr_train.monitoring.run_record import RunRecord

log = logging.getLogger(__name__)


class WandbLogger(Logger):
    """Log to a run of Weights & Biases, which a resumed run continues.

    Steps are the x axis of all charts, as `step`; a row of the history is one call.

    Args:
        run_dir: the run's folder; the files of wandb go to `wandb` in it.
        first_step: of this launch.
        dry_run: log nothing.
        project: None: that of WANDB_PROJECT, else `sr_train`.
        entity: None: that of WANDB_ENTITY, else the user's own.
        name: None: that of WANDB_NAME, else of the run's folder.
        mode: None: that of WANDB_MODE, else online where wandb knows an API key and offline where
            not; what was logged offline is sent by `wandb sync`.
    """

    def __init__(
        self,
        run_dir: Path,
        first_step: int = 1,
        dry_run: bool = False,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        project = project or os.environ.get("WANDB_PROJECT") or "sr_train"
        self._record = RunRecord(run_dir, "wandb", f"{entity}/{project}", first_step, dry_run)
        self._record.keep(self._record.run_id or secrets.token_hex(4))
        self._run = wandb.init(
            project=project,
            entity=entity,
            name=name or os.environ.get("WANDB_NAME") or self._record.name,
            id=self._record.run_id,
            resume="allow",
            dir=run_dir,
            mode="disabled" if dry_run else mode or _usual_mode(),
            reinit="create_new",
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if new := self._record.unwritten(values, step):
            self._log(new, step)

    def config(self, config: Mapping[str, Any]) -> None:
        self._run.config.update(dict(config), allow_val_change=True)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        if self._record.is_new(name, step):
            self._log({name: wandb.Image(pixels)}, step)

    def text(self, name: str, text: str) -> None:
        self._run.summary[name] = text

    def histogram(self, name: str, values: np.ndarray, step: int) -> None:
        if self._record.is_new(name, step):
            histogram = wandb.Histogram(np_histogram=np.histogram(values, bins=64))
            self._log({name: histogram}, step)

    def close(self) -> None:
        self._run.finish(exit_code=int(sys.exception() is not None))

    def _log(self, values: Mapping[str, Any], step: int) -> None:
        """Log a row; wandb counts rows, and refuses one whose number it has."""
        self._run.log({**values, "step": step}, step=self._record.num_rows, commit=True)


def _usual_mode() -> Literal["online", "offline"] | None:
    if os.environ.get("WANDB_MODE") or wandb.setup().settings.mode != "online":
        return None  # chosen already; wandb reads it
    if wandb.login(prompt=False, verify=False):
        return "online"
    log.info("wandb has no API key (`wandb login` stores one), so that this launch logs offline")
    return "offline"
