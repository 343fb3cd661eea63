"""What makes one doubt that a run does what is meant, though nothing keeps it from running."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from sr_train.api.dataset import SetFile
from sr_train.api.errors import PluginError, SRTrainError
from sr_train.api.loss_inputs import DISCRIMINATOR_INPUTS
from sr_train.commands.checks.overlap import overlap_warning
from sr_train.config.schema import RunConfig
from sr_train.config.term_checks import required_inputs
from sr_train.factory.optimizers import make_schedule
from sr_train.utils.failures import naming

log = logging.getLogger(__name__)

_LOOKS = 1000
"""Steps of a schedule that are looked at."""

_SAMPLES = 8
"""Samples of each set that are looked at."""


def tell_advice(cfg: RunConfig, sets: Mapping[str, Any]) -> list[str]:
    """Log a warning for each thing to doubt; return them.

    Args:
        cfg: checked config.
        sets: data sets by config path.
    """
    found = list(dict.fromkeys([*config_advice(cfg), *data_advice(sets)]))
    for text in found:
        log.warning("warning: %s", text)
    return found


def config_advice(cfg: RunConfig) -> Iterator[str]:
    """Yield what a config by itself lets one doubt."""
    steps = cfg.train.steps
    yield from _late_terms(cfg, steps)
    yield from _still_weights(cfg, steps)
    if cfg.discriminator.arch is not None and cfg.discriminator.start >= steps:
        needing = [
            name for name, term in cfg.objective.items() if _is_judged(term.loss, cfg.plugins)
        ]
        yield (
            f"discriminator.start={cfg.discriminator.start}: beyond train.steps={steps}, so the "
            f"discriminator never learns, and objective.{', objective.'.join(needing)} follows an "
            "untrained one"
        )
    for position, group in enumerate(cfg.param_groups):
        if group.start >= steps:
            yield (
                f"param_groups[{position}].start={group.start}: beyond train.steps={steps}, so "
                f"what matches {group.match} never learns"
            )


def _is_judged(loss: Any, plugins: list[str]) -> bool:
    return bool(required_inputs(loss, plugins) & set(DISCRIMINATOR_INPUTS))


def _late_terms(cfg: RunConfig, steps: int) -> Iterator[str]:
    """Yield the terms that begin after the last step of the network that learns from them."""
    for name, term in cfg.objective.items():
        if term.start >= steps:
            yield (
                f"objective.{name}.start={term.start}: beyond train.steps={steps}, so this term "
                "never counts"
            )
    wanted = cfg.discriminator
    taken = max(0, -(-(steps - wanted.start) // max(1, wanted.every)))
    for name, term_d in cfg.objective_d.items():
        if 0 < taken <= term_d.start:
            yield (
                f"objective_d.{name}.start={term_d.start}: the discriminator takes {taken} steps "
                f"(discriminator.start={wanted.start}, every={wanted.every}), so this term never "
                "counts"
            )


def _still_weights(cfg: RunConfig, steps: int) -> Iterator[str]:
    """Yield what keeps a network as it is: a rate of 0, or a factor of 0 at every step."""
    lr = _lr_of(cfg.optimizer)
    if lr == 0:
        yield "optimizer.lr=0: the generator stays as it is"
    if _is_nought(cfg.scheduler, "scheduler", cfg):
        yield "scheduler: its factor is 0 at every step, so nothing learns"
    wanted = cfg.discriminator
    if wanted.arch is None:
        return
    own = _lr_of(wanted.optimizer) if wanted.optimizer is not None else lr
    if (own if wanted.lr is None else wanted.lr) == 0:
        yield "discriminator.lr=0: the discriminator stays as it is"
    if wanted.scheduler is not None and _is_nought(
        wanted.scheduler, "discriminator.scheduler", cfg
    ):
        yield "discriminator.scheduler: its factor is 0 at every step"


def _lr_of(optimizer: Any) -> float | None:
    lr = optimizer.get("lr") if isinstance(optimizer, Mapping) else None
    return lr if isinstance(lr, int | float) else None


def _is_nought(node: Any, path: str, cfg: RunConfig) -> bool:
    """Whether a schedule is 0 at all of the steps that are looked at."""
    try:
        schedule = make_schedule(node, path, cfg)
        steps = range(0, cfg.train.steps, max(1, cfg.train.steps // _LOOKS))
        with naming(path, schedule, lambda: "a step"):
            return all(schedule(step) == 0 for step in steps)
    except SRTrainError:
        return False  # whoever builds it reports what is wrong with it


def data_advice(sets: Mapping[str, Any]) -> Iterator[str]:
    """Yield what data sets let one doubt, by what a few of their samples show."""
    for path, dataset in sets.items():
        try:
            with naming(path, dataset, lambda: f"warnings({_SAMPLES})"):
                yield from (f"{path}: {text}" for text in dataset.warnings(_SAMPLES))
        except PluginError as err:
            yield str(err)
        except SRTrainError as err:  # a damaged file, which whoever needs it reports
            log.debug("%s: %s", path, err)
    train = _files("data.train", sets.get("data.train"))
    for path, dataset in sets.items():
        text = None if path == "data.train" else overlap_warning(path, train, _files(path, dataset))
        if text is not None:
            yield text


def _files(path: str, dataset: Any) -> list[SetFile]:
    if dataset is None:
        return []
    try:
        with naming(path, dataset, lambda: "gt_files()"):
            return [SetFile(*file) for file in dataset.gt_files()]
    except PluginError as err:
        log.warning("warning: %s", err)
        return []
