"""From a typed config to the parts that every command shares."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import torch

from sr_train.config.build import build
from sr_train.config.schema import PrecisionConfig
from sr_train.engine.precision import Precision, resolve_precision
from sr_train.ops.errors import ConfigError, Problems, SRTrainError, did_you_mean

log = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """Return the device a config names; `auto` takes the fastest kind there is.

    Raises:
        ConfigError: for an unknown name or a device this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device={name}: no such device{_device_meant(name)}") from None
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise ConfigError(f"device={name}: this machine has {count} of that kind; try device=auto")
    return device


def _device_meant(name: str) -> str:
    """Return a hint at the device that a wrong name means."""
    found = re.fullmatch(r"(?:gpu|nvidia|cuda)[:\s]?(\d*)|(\d+)", name.strip().lower())
    if found is None:
        return did_you_mean(name, ["auto", "cpu", "cuda", "mps"])
    number = found[1] or found[2]
    return f"; write device=cuda{':' if number else ''}{number}"


def make_precision(cfg: PrecisionConfig, device: torch.device) -> Precision:
    """Resolve the precision and say why it was chosen."""
    precision = resolve_precision(cfg.name.value, device)
    log.info("device %s, precision %s (%s)", device, precision.name, precision.reason)
    return precision


def make_metrics(nodes: Mapping[str, Any], plugins: list[str]) -> dict[str, Any]:
    """Build the metrics by name."""
    return {name: build(node, f"metrics.{name}", plugins) for name, node in nodes.items()}


def make_sets(nodes: Mapping[str, Any], plugins: list[str]) -> dict[str, Any]:
    """Build data sets by config path; the problems of all of them are reported together.

    Args:
        nodes: config path -> node.
        plugins: the user's packages.
    """
    sets: dict[str, Any] = {}
    problems: list[str] = []
    advice: list[str] = []
    for path, node in nodes.items():
        try:
            sets[path] = build(node, path, plugins)
        except Problems as err:
            problems += [f"{path}: {problem}" for problem in err.problems]
            advice += [f"{path}.{err.advice}"] if err.advice else []
        except SRTrainError as err:
            text = str(err)
            problems.append(text if text.startswith(path) else f"{path}: {text}")
    if problems:
        raise Problems(problems, advice="\n".join(advice) or None)
    for path, dataset in sets.items():
        log.info("%s: %s", path, dataset.report())
    return sets
