"""A search for good settings by Optuna: what it needs before it starts, what it found."""

import logging
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from yaml import safe_load  # type: ignore[import-untyped]

from sr_train.api.errors import ConfigError
from sr_train.config.build import resolve_target
from sr_train.monitoring.console import console

_RESULT = "optimization_results.yaml"
"""Written by Hydra's Optuna sweeper into the sweep's folder."""


def is_search(config: DictConfig) -> bool:
    """Whether a sweep chooses its values by what the runs before returned."""
    return "optuna" in str(config.hydra.sweeper._target_)


def prepare_search(config: DictConfig) -> None:
    """Check a search, and let one that was stopped resume where it was.

    `n_trials` counts the trials of all launches. Each launch has folders of its own: trials are
    numbered from 0 again, and a folder must not be taken for that of another trial.

    Raises:
        ConfigError: if the runs return nothing to compare, or the search looks the wrong way.
    """
    import optuna

    _check_direction(config)
    optuna.logging.set_verbosity(logging.WARNING)
    sweeper = config.hydra.sweeper
    done = _trials_done(sweeper)
    with read_write(config.hydra), open_dict(config.hydra):
        sweeper.n_trials = max(0, sweeper.n_trials - done)
        if OmegaConf.select(sweeper, "sampler.seed") is not None:
            sweeper.sampler.seed += done  # the same seed would draw the same trials again
        words = config.hydra.overrides.hydra
        if not any(word.startswith("hydra.sweep.subdir=") for word in words):
            started = time.strftime("%Y%m%d-%H%M%S")
            words.append(f"hydra.sweep.subdir=trial_{started}_${{hydra.job.num}}")
    if done:
        console.print(f"search: {done} trials are done, {sweeper.n_trials} to go")


def _check_direction(config: DictConfig) -> None:
    if not config.data.val:
        raise ConfigError("search: trials are compared by best_metric, which needs data.val")
    best = config.best_metric
    if best not in config.metrics:
        return  # each run reports that
    target: Any = resolve_target(
        config.metrics[best]._target_, f"metrics.{best}", list(config.plugins)
    )
    rises = getattr(target, "higher_is_better", None)
    if not isinstance(rises, bool):
        return  # each run reports that, or an object of the class knows
    fitting = "maximize" if rises else "minimize"
    found = config.hydra.sweeper.direction
    found = getattr(found, "name", found)
    if found != fitting:
        raise ConfigError(
            f"hydra.sweeper.direction={found}: expected {fitting}, by which best_metric={best} "
            "gets better"
        )


def _trials_done(sweeper: DictConfig) -> int:
    if sweeper.storage is None or sweeper.study_name is None:
        return 0
    import optuna

    known = optuna.get_all_study_summaries(sweeper.storage)
    if sweeper.study_name not in {study.study_name for study in known}:
        return 0
    trials = optuna.load_study(sweeper.study_name, sweeper.storage).trials
    return sum(trial.state.is_finished() for trial in trials)


def sum_up_search(config: DictConfig) -> None:
    """Show the best trial: its value, what it set, its folder."""
    sweep_dir = Path(config.hydra.sweep.dir)
    result = safe_load((sweep_dir / _RESULT).read_text())
    words = {f"{name}={value}" for name, value in result["best_params"].items()}
    console.print(f"\nbest trial   {config.best_metric} {result['best_value']:.4f}")
    console.print(f"             {' '.join(sorted(words))}")
    for folder in sorted(sweep_dir.glob("*/")):
        for used in folder.glob(".hydra/*/overrides.yaml"):
            if words <= set(safe_load(used.read_text())):
                console.print(f"             {folder}")
                return
