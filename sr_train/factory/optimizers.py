"""From a typed config to what moves weights: optimizers over groups, and their schedules."""

import logging
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.api.optimizers import is_fused
from sr_train.config.build import build
from sr_train.config.schema import ParamGroupConfig, RunConfig
from sr_train.engine.schedule import Schedule
from sr_train.engine.sharding import is_sharded
from sr_train.factory.contracts import SCHEDULE, check_contract, check_kind
from sr_train.utils.failures import naming

log = logging.getLogger(__name__)

_LOOKS = 200
"""Steps of a schedule that are looked at before it is used."""


def make_schedule(node: Any, path: str, cfg: RunConfig) -> Schedule:
    """Build a learning-rate schedule, and see that it gives a factor for steps all along a run."""
    schedule: Schedule = build(node, path, cfg.plugins)
    check_contract(schedule, SCHEDULE, path)
    last = cfg.train.steps - 1
    for step in dict.fromkeys([0, last, *range(0, last, max(1, last // _LOOKS))]):
        with naming(path, schedule, partial(str, f"step {step}")):
            factor = schedule(step)
        if not isinstance(factor, Real) or not 0 <= factor < math.inf:
            raise ConfigError(
                f"{path}: {type(schedule).__name__} gives {factor!r} for step {step}; expected a "
                "factor on the learning rate, a number from 0 up"
            )
    return schedule


def make_optimizer(cfg: RunConfig, net: nn.Module) -> Optimizer:
    """Build the optimizer over the trainable parameters, in groups by name pattern."""
    factory: Callable[..., Optimizer] = build(cfg.optimizer, "optimizer", cfg.plugins)
    groups = split_parameters(net, cfg.param_groups, cfg.optimizer.get("lr"))
    optimizer = called(factory, groups, "optimizer")
    if is_sharded(net) and is_fused(optimizer) and not isinstance(optimizer, torch.optim.Adam):
        raise ConfigError(
            f"optimizer.fused=true: torch splits only fused Adam and AdamW over processes, not "
            f"{type(optimizer).__name__}; with distributed.strategy=fsdp set optimizer.fused=false"
        )
    return optimizer


def called(factory: Callable[..., Optimizer], groups: list[dict[str, Any]], path: str) -> Optimizer:
    """Make an optimizer of parameter groups; say so where it costs a wait in every step."""
    name = _name_of(factory)
    if not callable(factory):
        raise ConfigError(
            f"{path}: {type(factory).__name__} was made without parameters; add _partial_: true"
        )
    try:
        with naming(path, factory, lambda: "parameter groups", _of_arguments):
            optimizer = factory(groups)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"{path}: {name}: {err}") from err
    check_kind(optimizer, Optimizer, path)
    if not is_fused(optimizer):
        log.info(
            "%s is not fused: each step waits for the device to learn whether its gradient is "
            "finite (optimizer.fused=true, where it can)",
            type(optimizer).__name__,
        )
    return optimizer


def _of_arguments(err: Exception) -> bool:
    return isinstance(err, TypeError | ValueError)


def _name_of(factory: Callable[..., Optimizer]) -> str:
    return str(getattr(getattr(factory, "func", factory), "__name__", factory))


def split_parameters(
    net: nn.Module, patterns: list[ParamGroupConfig], lr: float | None
) -> list[dict[str, Any]]:
    """Put each trainable parameter into the group of the first pattern that matches its name.

    Raises:
        ConfigError: naming a pattern that matches nothing.
    """
    if patterns and lr is None:
        raise ConfigError("param_groups: optimizer.lr is needed beside them, found none")
    remaining = {name: p for name, p in net.named_parameters() if p.requires_grad}
    every = list(remaining)
    groups: list[dict[str, Any]] = []
    for position, pattern in enumerate(patterns):
        names = [name for name in remaining if fnmatchcase(name, pattern.match)]
        if not names:
            raise ConfigError(
                f"param_groups[{position}].match={pattern.match}: matches no parameter that an "
                f"earlier pattern left{did_you_mean(pattern.match, every)}"
            )
        group = [remaining.pop(name) for name in names]
        groups.append(
            {"params": group, "lr": (lr or 0.0) * pattern.lr_factor, "start": pattern.start}
        )
    if remaining:
        groups.insert(0, {"params": list(remaining.values())})
    return groups
