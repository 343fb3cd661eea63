"""From a typed config to the parts that every command shares."""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sr_train.api.dataset import TrainDataset
from sr_train.api.errors import ConfigError, Problems, SRTrainError, did_you_mean, raise_all
from sr_train.config.build import build, node_problems, resolve_target
from sr_train.config.schema import PrecisionConfig
from sr_train.config.signatures import taken_by
from sr_train.engine.precision import Precision, resolve_precision
from sr_train.factory.contracts import LOGGER, METRIC, check_contract, checked_set, fingerprint_of
from sr_train.utils.failures import naming

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
    number = found[1] or found[2] or ""
    return f"; write device=cuda{':' if number else ''}{number}"


def make_precision(cfg: PrecisionConfig, device: torch.device) -> Precision:
    """Resolve the precision and say why it was chosen."""
    precision = resolve_precision(cfg.name.value, device)
    log.info("device %s, precision %s (%s)", device, precision.name, precision.reason)
    return precision


@dataclass
class Attempt:
    """What became of making several parts."""

    made: dict[str, Any] = field(default_factory=dict)
    """By config path."""
    problems: list[str] = field(default_factory=list)
    """What is wrong with the others."""
    advice: list[str] = field(default_factory=list)
    """What may be done about it."""

    def raise_problems(self) -> None:
        """Raise all problems together, if there are any."""
        if self.problems:
            raise Problems(self.problems, advice="\n".join(self.advice) or None)


def attempt_all(makers: Mapping[str, Callable[[], Any]]) -> Attempt:
    """Make several parts, all of them whatever is wrong with one.

    Args:
        makers: config path -> what makes the part.
    """
    attempt = Attempt()
    for path, make in makers.items():
        try:
            attempt.made[path] = make()
        except Problems as err:
            attempt.problems += [_named(problem, path) for problem in err.problems]
            attempt.advice += [f"{path}.{err.advice}"] if err.advice else []
        except SRTrainError as err:
            attempt.problems.append(_named(str(err), path))
    return attempt


def _named(problem: str, path: str) -> str:
    return problem if problem.startswith(path) else f"{path}: {problem}"


def make_all(makers: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Make several parts by config path.

    Raises:
        Problems: all of them together.
    """
    attempt = attempt_all(makers)
    attempt.raise_problems()
    return attempt.made


def make_metrics(nodes: Mapping[str, Any], plugins: list[str]) -> dict[str, Any]:
    """Build the metrics by name; the problems of all of them are reported together."""
    made = make_all(metric_makers(nodes, plugins))
    return below("metrics", made)


def below(group: str, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a config group by their names in it."""
    prefix = f"{group}."
    return {k.removeprefix(prefix): part for k, part in parts.items() if k.startswith(prefix)}


def metric_makers(nodes: Mapping[str, Any], plugins: list[str]) -> dict[str, Callable[[], Any]]:
    """Return what makes each metric, by config path."""
    return {
        f"metrics.{name}": partial(_metric, node, name, plugins) for name, node in nodes.items()
    }


def _metric(node: Any, name: str, plugins: list[str]) -> Any:
    metric = build(node, f"metrics.{name}", plugins)
    check_contract(metric, METRIC, f"metrics.{name}")
    return metric


def logger_makers(
    nodes: Mapping[str, Any],
    plugins: list[str],
    run_dir: Path,
    first_step: int,
    *,
    dry_run: bool = False,
) -> dict[str, Callable[[], Any]]:
    """Return what makes each logger, by config path.

    Args:
        nodes: by name.
        plugins: the user's packages.
        run_dir: of the run.
        first_step: that the run will take.
        dry_run: nothing may be left outside `run_dir`.
    """
    runtime = {"run_dir": run_dir, "first_step": first_step, "dry_run": dry_run}

    def make(name: str, node: Any) -> Any:
        path = f"logger.{name}"
        raise_all(node_problems(node, path, plugins, runtime))
        target = resolve_target(node["_target_"], path, plugins)
        logger = build(node, path, plugins, **taken_by(target, runtime))
        check_contract(logger, LOGGER, path)
        return logger

    return {f"logger.{name}": partial(make, name, node) for name, node in nodes.items()}


def make_sets(nodes: Mapping[str, Any], plugins: list[str]) -> dict[str, Any]:
    """Build data sets by config path; the problems of all of them are reported together.

    Args:
        nodes: config path -> node.
        plugins: the user's packages.
    """
    attempt = attempt_sets(nodes, plugins)
    attempt.raise_problems()
    return attempt.made


def attempt_sets(nodes: Mapping[str, Any], plugins: list[str]) -> Attempt:
    """Build data sets by config path, and report on those that could be."""
    makers = {path: partial(_set, node, path, plugins) for path, node in nodes.items()}
    attempt = attempt_all(makers)
    if not attempt.problems:
        for path, dataset in attempt.made.items():
            with naming(path, dataset, lambda: "report()"):
                log.info("%s: %s", path, dataset.report())
            fingerprint_of(dataset, path)
    return attempt


def _set(node: Any, path: str, plugins: list[str]) -> TrainDataset:
    return checked_set(build(node, path, plugins), path)
