"""What `check` looks at: config, data, one step, memory, disk."""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from sr_train.cli import assemble, learning
from sr_train.config.compose import lenient
from sr_train.config.preflight import run_problems
from sr_train.config.schema import CheckConfig
from sr_train.engine.host import PeakMemory
from sr_train.engine.model import SRModel
from sr_train.engine.splitting import is_out_of_memory
from sr_train.monitoring.console import console, start_logging
from sr_train.ops.errors import Problems, SRTrainError

log = logging.getLogger(__name__)

TOY_SIZE = 16
"""Side of the toy crop, LQ pixels."""


def run_check(cfg: DictConfig) -> None:
    """Look for problems everywhere and tell all of them.

    Raises:
        Problems: if there is any.
    """
    start_logging()
    config, problems = lenient(cfg, CheckConfig)
    missing = {problem.split(":")[0] for problem in problems}
    problems += [p for p in run_problems(config) if p.split("=")[0].split(":")[0] not in missing]
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
            log.info("%s: decoding %d pictures", path, len(dataset))
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
        device = assemble.choose_device(cfg.device)
        model = learning.make_model(cfg, device)
        size = min(TOY_SIZE, cfg.data.lq_size)
        sample = dataset.sample(0, 0)
        if model.adversary is not None:
            size = cfg.data.lq_size  # a discriminator may take one size alone
        toy = {
            "lq": sample["lq"][None, :, :size, :size],
            "gt": sample["gt"][None, :, : size * cfg.scale, : size * cfg.scale],
        }
        _one_step(model, [toy] * cfg.train.accum)
        values = model.meter.read()
        if values.non_finite:
            return [f"toy step: not finite: {', '.join(values.non_finite)}"]
        for name, learner in model.learners.items():
            silent = learner.silent_parameters()
            if silent:
                log.warning("warning: net_%s: no gradient reaches %s", name, ", ".join(silent))
        log.info("toy step: loss %.5f, gradient finite", values.means["loss/total"])
        micro_batch = cfg.data.batch_size // cfg.train.accum
        batch = {key: torch.stack([value] * micro_batch) for key, value in sample.items()}
        with PeakMemory(device) as memory:
            _one_step(model, [batch] * cfg.train.accum)
    except SRTrainError as err:
        return [str(err)]
    except RuntimeError as err:
        if not is_out_of_memory(err):
            raise
        return [
            f"data.batch_size={cfg.data.batch_size}, data.lq_size={cfg.data.lq_size}: one step "
            "does not fit into the device's memory; raise train.accum, or lower them"
        ]
    log.info(
        "real step (batch %d, %d micro-batches, LQ crop %d): %s",
        cfg.data.batch_size,
        cfg.train.accum,
        cfg.data.lq_size,
        memory,
    )
    return []


def _one_step(model: SRModel, batches: list[Mapping[str, Tensor]]) -> None:
    for number, batch in enumerate(batches, start=1):
        model.optimize_parameters(batch, last_micro_batch=number == len(batches))
