"""What `check` looks at: config, data, one step, memory, disk."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from sr_train.cli import assemble, learning
from sr_train.cli.dry_step import real_step, toy_step
from sr_train.cli.inputs import check_inputs
from sr_train.config.allowed import forbidden
from sr_train.config.compose import lenient
from sr_train.config.preflight import run_problems
from sr_train.config.schema import CheckConfig
from sr_train.monitoring.console import console, start_logging
from sr_train.ops.errors import Problems, SRTrainError
from sr_train.ops.images.limits import set_max_megapixels
from sr_train.ops.memory import is_out_of_memory

log = logging.getLogger(__name__)


def run_check(cfg: DictConfig) -> None:
    """Look for problems everywhere and tell all of them.

    Raises:
        Problems: if there is any.
    """
    start_logging()
    config, problems = lenient(cfg, CheckConfig)
    set_max_megapixels(config.io.max_megapixels)
    missing = {problem.split(":")[0] for problem in problems}
    problems += [p for p in run_problems(config) if p.split("=")[0].split(":")[0] not in missing]
    refused = forbidden(config)
    if refused:  # nothing of such a config is made
        raise Problems(list(dict.fromkeys(problems or refused)))
    sets, data_problems = _data(config, missing)
    problems += data_problems
    problems += _disk(config)
    if not problems and config.step:
        problems += _steps(config, sets["data.train"])
    if problems:
        raise Problems(list(dict.fromkeys(problems)))
    console.print(f"check of {config.name}: no problem found")


def _data(cfg: CheckConfig, missing: set[str]) -> tuple[dict[str, Any], list[str]]:
    nodes = {"data.train": cfg.data.train}
    nodes |= {f"data.val.{name}": node for name, node in cfg.data.val.items()}
    sets: dict[str, Any] = {}
    problems: list[str] = []
    for path, node in nodes.items():
        if any(key.startswith(f"{path}.") for key in missing):
            continue
        try:
            sets |= assemble.make_sets({path: node}, cfg.plugins)
        except Problems as err:
            problems += err.problems
    if cfg.decode:
        for path, dataset in sets.items():
            log.info("%s: decoding every file", path)
            problems += [f"{path}: {problem}" for problem in dataset.verify()]
    return sets, problems


def _disk(cfg: CheckConfig) -> list[str]:
    folder = Path(cfg.out_dir).expanduser().absolute()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    if not existing.is_dir():
        return [f"out_dir={cfg.out_dir}: {existing} is a file, expected a folder"]
    if not os.access(existing, os.W_OK):
        return [f"out_dir={cfg.out_dir}: {existing} cannot be written to"]
    log.info("disk: %.1f GiB free at %s", shutil.disk_usage(existing).free / 2**30, existing)
    return []


def _steps(cfg: CheckConfig, dataset: Any) -> list[str]:
    """Run a toy step, then a real one whose memory is measured."""
    try:
        model = learning.make_model(cfg, assemble.choose_device(cfg.device))
        check_inputs(model.spec, {"data.train": dataset})
        sample = dataset.sample(0, 0)
        return toy_step(cfg, model, sample) or real_step(cfg, model, sample)
    except SRTrainError as err:
        return [str(err)]
    except RuntimeError as err:
        if not is_out_of_memory(err):
            raise
        return [
            f"data.batch_size={cfg.data.batch_size}, data.lq_size={cfg.data.lq_size}: not even a "
            "small step fits into the device's memory; take a smaller network"
        ]
