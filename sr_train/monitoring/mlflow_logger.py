"""MLflow: `logger=mlflow`."""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient, MlflowException
from mlflow.entities import Metric, Param

from sr_train.api.logger import Logger
from sr_train.monitoring.run_record import RunRecord

_LONGEST_KEY, _LONGEST_VALUE, _MOST = 250, 6000, 100
"""Of a parameter, and parameters in one request."""


class MlflowLogger(Logger):
    """Log to a run of MLflow, which a resumed run continues.

    The values of the first launch are the run's parameters, which MLflow never changes; the
    config of each launch is an artifact, too.

    Args:
        run_dir: the run's folder.
        first_step: of this launch.
        dry_run: log nothing.
        experiment: None: that of MLFLOW_EXPERIMENT_NAME, else `sr_train`.
        name: None: that of the run's folder.
        tracking_uri: None: that of MLFLOW_TRACKING_URI, else MLflow's default, `mlflow.db` in the
            working directory.
    """

    def __init__(
        self,
        run_dir: Path,
        first_step: int = 1,
        dry_run: bool = False,
        experiment: str | None = None,
        name: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        super().__init__(run_dir, first_step, dry_run)
        if dry_run:
            self._record = RunRecord(run_dir, "mlflow", "", first_step, dry_run)
            return
        self._client = MlflowClient(tracking_uri)
        experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "sr_train"
        place = f"{self._client.tracking_uri} {experiment}"
        self._record = RunRecord(run_dir, "mlflow", place, first_step)
        if self._record.run_id is not None and self._exists(self._record.run_id):
            self._client.update_run(self._record.run_id, status="RUNNING")
        else:
            run = self._client.create_run(
                self._experiment_id(experiment), run_name=name or self._record.name
            )
            self._record.keep(run.info.run_id)
        self._run_id = str(self._record.run_id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if new := self._record.unwritten(values, step):
            now = int(1000 * time.time())
            metrics = [Metric(_key(name), value, now, step) for name, value in new.items()]
            self._client.log_batch(self._run_id, metrics=metrics)

    def config(self, config: Mapping[str, Any]) -> None:
        if self.dry_run:
            return
        self._client.log_dict(self._run_id, dict(config), f"config/step_{self.first_step:08d}.yaml")
        there = self._client.get_run(self._run_id).data.params
        params = [Param(key, value) for key, value in _flat(config) if key not in there]
        for start in range(0, len(params), _MOST):
            self._client.log_batch(self._run_id, params=params[start : start + _MOST])

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        if self._record.is_new(name, step):
            self._client.log_image(self._run_id, pixels, key=_key(name), step=step)

    def text(self, name: str, text: str) -> None:
        if not self.dry_run:
            self._client.log_text(self._run_id, text, f"{_key(name)}.txt")

    def close(self) -> None:
        if not self.dry_run:
            self._client.set_terminated(self._run_id, "FAILED" if sys.exception() else "FINISHED")

    def _exists(self, run_id: str) -> bool:
        try:
            return self._client.get_run(run_id).info.lifecycle_stage == "active"
        except MlflowException as err:
            if err.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _experiment_id(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id


def _key(name: str) -> str:
    """Return a name with what MLflow does not allow in one replaced."""
    return re.sub(r"[^\w\-. /]", "_", name)


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (config path, value) of every value in mappings."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{path}.{key}" if path else str(key))
    else:
        yield _key(path)[:_LONGEST_KEY], str(value)[:_LONGEST_VALUE]
