"""Many runs of one command line: Hydra's multirun, a search, jobs of a cluster."""

import functools
import gc
import logging
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from sr_train.api.errors import ConfigError, DataError, Problems, SRTrainError
from sr_train.cli.reporting import USER_ERROR, message_of, report, reported, user_error_of
from sr_train.cli.searching import is_search, prepare_search, sum_up_search
from sr_train.cli.sweep_table import ERROR_FILE, failures, sweep_table, swept_runs, write_sweep
from sr_train.config.words import unquoted
from sr_train.monitoring.console import console, start_logging
from sr_train.utils.launch import Launch, Stopped, adopt_srun

log = logging.getLogger(__name__)

_UNTIL_KILLED_SEC = 600.0


class FailedRunError(SRTrainError):
    """One run of a sweep failed; the others continue.

    Args:
        text: the run and its error.
        sweep_dir: the folder of all runs of the sweep.
        is_defect: whether the program is at fault.
    """

    def __init__(self, text: str, sweep_dir: str, is_defect: bool) -> None:
        super().__init__(text)
        self.sweep_dir = sweep_dir
        self.is_defect = is_defect

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.sweep_dir, self.is_defect)


class SweepWatch(Callback):
    """Look at a sweep before its first run, and sum it up after the last."""

    def __init__(self) -> None:
        self._words: list[str] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        self._words = sys.argv[1:]
        try:
            _prepare(config)
        except SRTrainError as err:
            raise SystemExit(report(err)) from err

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        sweep_dir = Path(config.hydra.sweep.dir)
        _show_runs(sweep_dir)
        if is_search(config):
            sum_up_search(config)
        for name, problem in failures(sweep_dir).items():
            console.print(f"failed       {name}: {problem}")

    def on_job_start(
        self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any
    ) -> None:
        if self._words:
            sys.argv[1:] = self._words  # in a job's own process they are the launcher's


def _show_runs(sweep_dir: Path) -> None:
    """Show the table of a sweep, and write it."""
    runs = swept_runs(sweep_dir)
    if runs:
        console.print()
        console.print(sweep_table(runs, sweep_dir))
        console.print(f"written      {write_sweep(runs, sweep_dir)}")


def _prepare(config: DictConfig) -> None:
    for name, level in (("hydra", logging.WARNING), ("hydra_plugins", logging.ERROR)):
        logging.getLogger(name).setLevel(level)  # what they say is reported here, by run
    if Launch.from_environment().several:
        raise ConfigError("a sweep runs in one process; start torchrun once for each value")
    sweep_dir = Path(config.hydra.sweep.dir)
    sweep_dir.mkdir(parents=True, exist_ok=True)
    if is_search(config):
        prepare_search(config)
    launcher = str(config.hydra.launcher._target_).rsplit(".", 1)[-1]
    if launcher == "SlurmLauncher" and shutil.which("srun") is None:
        raise ConfigError("hydra/launcher: there is no SLURM here (srun is not found)")
    if launcher != "BasicLauncher":
        logs = Path(config.hydra.launcher.submitit_folder).parent
        console.print(f"each run is a job of its own and writes {logs}/JOB/*_log.out")


def one_of_many(job: Callable[[DictConfig], float | None]) -> Callable[[DictConfig], float | None]:
    """Let a job be a run on its own, or one of a sweep whose failure does not affect the others."""
    alone = reported(job)

    @functools.wraps(job)
    def wrapped(cfg: DictConfig) -> float | None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return _one_of_many(job, cfg)
        return alone(cfg)

    return wrapped


def _one_of_many(job: Callable[[DictConfig], float | None], cfg: DictConfig) -> float | None:
    gc.collect()  # the network of the run before is part of circles
    adopt_srun()
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    typed = set(map(unquoted, sys.argv))
    words = [word for word in hydra.overrides.task if not word.startswith("~")]
    own = [word for word in words if unquoted(word) not in typed]
    label = f"{folder.name} ({' '.join(own)})" if own else folder.name
    is_main = Launch.from_environment().rank == 0
    if is_main:
        (folder / ERROR_FILE).unlink(missing_ok=True)
        console.print(f"\n{label}")
    try:
        value = job(cfg)
        if is_main:
            _note_choice(cfg, own, folder, value)
        return value
    except Stopped as stop:
        _hand_back(stop)
        raise
    except Exception as err:
        text, is_defect = _told(err, is_first=hydra.job.num == 0)
    finally:
        start_logging(rank=0 if is_main else 1)  # lets go of this run's train.log
    if is_main:
        (folder / ERROR_FILE).write_text(text + "\n")
    # Raised here, outside `except`: a chained error would keep the network in memory.
    raise FailedRunError(f"{label}: {text}", str(hydra.sweep.dir), is_defect)


def _note_choice(cfg: DictConfig, own: list[str], folder: Path, value: float | None) -> None:
    """Let TensorBoard compare the runs of a sweep by what was set, where a run writes for it."""
    from sr_train.monitoring.tensorboard import tensorboard_folder, write_hparams

    if not own or not tensorboard_folder(folder).is_dir():
        return
    chosen = {}
    for word in own:
        key, _, typed = word.lstrip("+").partition("=")
        found = OmegaConf.select(cfg, key, default=typed)
        chosen[key] = found if isinstance(found, bool | int | float | str) else typed
    try:
        write_hparams(folder, chosen, {} if value is None else {str(cfg.best_metric): value})
    except OSError as err:  # the run itself is done and saved
        log.warning("warning: %s: not written for TensorBoard's HParams: %s", folder, err)


def _told(err: Exception, is_first: bool) -> tuple[str, bool]:
    """Tell an error at once; return its words, and whether it is a defect.

    What the first run finds wrong with the config ends the sweep: the others would find the same,
    and nothing is done yet that could be lost.
    """
    fault = user_error_of(err)
    if fault is None:
        traceback.print_exc()
        return traceback.format_exc(), True
    in_own_process = "SUBMITIT_EXECUTOR" in os.environ
    code = report(fault)
    if is_first and not in_own_process and isinstance(fault, ConfigError | DataError | Problems):
        raise SystemExit(code) from err
    return message_of(fault), False


def _hand_back(stop: Stopped) -> None:
    """Leave a stopped run to the launcher, which starts its job again on the signal it sent."""
    executor = os.environ.get("SUBMITIT_EXECUTOR")
    if executor is None or stop.signal == "SIGINT":
        return
    signal.raise_signal(signal.Signals[stop.signal])
    if executor == "slurm":
        # SLURM starts a preempted job again only where it had to end it itself, and the other
        # ranks must not end before rank 0 has put the job back into the queue.
        time.sleep(_UNTIL_KILLED_SEC)


def ended_early(err: Exception) -> int | None:
    """Tell why a sweep as a whole has failed; return the exit code, or None for a defect."""
    if isinstance(err, FailedRunError):
        start_logging()
        _show_runs(Path(err.sweep_dir))
        lines = [f"  - {name}: {text}" for name, text in failures(Path(err.sweep_dir)).items()]
        count = "1 run" if len(lines) == 1 else f"{len(lines)} runs"
        heading = f"{count} of {err.sweep_dir} failed, see {ERROR_FILE} of each:"
        report(SRTrainError("\n".join([heading, *lines])))
        return 1 if err.is_defect else USER_ERROR
    if type(err).__module__.startswith("submitit."):
        return report(SRTrainError(f"a job did not come to its end: {err}"))
    if str(err).startswith(("No trials are completed", "Record does not exist")):
        return report(SRTrainError("search: no trial came to its end; see the errors above"))
    if "does not support dynamic value space" in str(err):
        return report(
            ConfigError("search: other choices than those it began with; choose another name=...")
        )
    return None
