"""The Python API: what a notebook or a script calls, with the words of the command line.

Errors are those of the commands, raised as `SRTrainError`; nothing ends the interpreter.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from sr_train.api.errors import ConfigError, did_you_mean, raise_all
from sr_train.api.network import NetSpec
from sr_train.commands.run_plugins import with_plugins_of_run
from sr_train.commands.train import TrainResult, run_training
from sr_train.config.compose import plain, typed
from sr_train.config.explain import Explanation
from sr_train.config.loader import ComposeError, Loader
from sr_train.config.preflight import run_problems, use_problems
from sr_train.config.prepare import Preparation
from sr_train.config.schema import SCHEMAS, RunConfig, ValidateConfig
from sr_train.config.stored import replaced_groups, stored_run
from sr_train.factory import networks
from sr_train.utils.launch import Launch


def compose(
    *overrides: str, command: str = "train", config_dir: str | Path | None = None
) -> DictConfig:
    """Return the config that a command would run with, typed: a misspelt key cannot be set.

    Args:
        overrides: as on the command line, such as `experiment=compact_x4` and `train.steps=100`.
        command: `train`, `check`, `overfit`, `validate`, `infer` or `export`.
        config_dir: folder of your own configs, beside the shipped ones.

    Raises:
        SRTrainError: naming everything that keeps the config from composing.
    """
    if command not in SCHEMAS:
        raise ConfigError(f"command={command}: no such command{did_you_mean(command, SCHEMAS)}")
    setup_globals()
    of_a_run = issubclass(SCHEMAS[command], RunConfig)
    stored = stored_run(overrides) if of_a_run else None
    primary = command
    if stored is not None:
        primary = stored.as_primary(command, replaced_groups(command, overrides))
        config_dir = stored.config_dir if config_dir is None else config_dir
    loader = Loader(None if config_dir is None else Path(config_dir).expanduser())
    preparation = Preparation(command, primary, loader, overrides, many=False)
    words = preparation.prepared()
    if preparation.many:
        raise ConfigError("a sweep is no single config; call compose once for each value")
    try:
        cfg = loader.load_configuration(primary, [word.given for word in words], RunMode.RUN)
    except ComposeError as err:
        raise Explanation(command, primary, loader).of(words, err) from err
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


def train(cfg: DictConfig) -> TrainResult:
    """Train as a config says; its run's folder is the one that the command would write.

    Ctrl-C ends it after the current step with everything saved, as the result says.

    Args:
        cfg: of `compose`; `resume` and everything else mean what they mean to the command.

    Raises:
        SRTrainError: for everything a user can correct.
    """
    if OmegaConf.get_type(cfg) is not RunConfig:
        raise ConfigError("train: expected a config of compose(...), of the command train")
    config = typed(cfg, RunConfig)
    raise_all(run_problems(config))
    run_dir = Path(config.out_dir, config.name)
    launch = f".hydra/{datetime.now():%Y%m%d-%H%M%S-%f}"
    if Launch.from_environment().rank == 0:
        (run_dir / launch).mkdir(parents=True)
        OmegaConf.save(cfg, run_dir / launch / "config.yaml")
    with _logging_of_a_run():
        return run_training(config, plain(cfg), run_dir, launch)


def load_network(
    checkpoint: str | Path, *overrides: str, config_dir: str | Path | None = None
) -> nn.Module:
    """Return a trained network, in eval mode, on its device.

    Args:
        checkpoint: a run's folder, a training state, a .safetensors, or another program's .pth.
        overrides: as on the command line: `arch=rrdbnet` and `scale=4` for files that name no
            architecture, `weights=live`, `strict=false`, `device=cuda`, `plugins=[mine]`.
        config_dir: folder of your own configs.

    Returns:
        The network; its `spec` says what it takes and gives.

    Raises:
        SRTrainError: if there is no such file, or it does not fit.
    """
    words = (f"checkpoint={checkpoint}", *overrides)
    cfg = compose(*words, command="validate", config_dir=config_dir)
    config = with_plugins_of_run(typed(cfg, ValidateConfig))
    raise_all(use_problems(config))
    net, spec, _ = networks.load_for_use(config)
    if not isinstance(getattr(net, "spec", None), NetSpec):
        vars(net)["spec"] = spec
    return net.to(networks.use_precision(config).device).eval()


@contextmanager
def _logging_of_a_run() -> Iterator[None]:
    """Let a run log as it does on the command line; the caller's handlers come back after it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
