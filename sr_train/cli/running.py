"""A command's way through Hydra: what its words and flags ask for, then its job.

The place of Hydra's own decorator, which would act on parts of a config before a line of ours has
looked at it, and which reads the command line by its own rules.
"""

import logging
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from sr_train.api.errors import ConfigError
from sr_train.cli.flags import Flags
from sr_train.cli.reporting import reported
from sr_train.cli.sweeping import ended_early, one_of_many
from sr_train.cli.table import COMMANDS
from sr_train.config.loader import ComposeError, Loader
from sr_train.config.prepare import Preparation
from sr_train.config.stored import StoredRun, replaced_groups, stored_run
from sr_train.config.targets import plugin_problems
from sr_train.config.words import Prepared, of_first_run
from sr_train.config.yaml_files import first_line
from sr_train.io.files import naming_path
from sr_train.monitoring.console import console
from sr_train.utils.launch import Launch

log = logging.getLogger(__name__)

Job = Callable[[DictConfig], Any]


@dataclass(frozen=True)
class Request:
    """One command as it was typed."""

    command: str
    words: Sequence[str]
    """Overrides."""
    flags: Flags
    added: Sequence[str]
    """Overrides that the program adds by itself."""


def run_job(request: Request) -> None:
    """Compose the config and run the command, each of its runs, or show what was asked for.

    Raises:
        SRTrainError: if the config does not compose, with everything that is wrong with it.
        SystemExit: where the command failed by what a user can fix, which was reported.
    """
    command = COMMANDS[request.command]
    try:
        _start(request, one_of_many(command) if command.sweeps else reported(command))
    except Exception as err:
        code = ended_early(err) if command.sweeps else None
        if code is None:
            raise
        raise SystemExit(code) from err


def _start(request: Request, job: Job) -> None:
    stored = stored_run(request.words) if COMMANDS[request.command].of_a_run else None
    config_dir = request.flags.config_dir
    if config_dir is None and stored is not None:
        config_dir = stored.config_dir
    loader = Loader(config_dir)
    hydra = Hydra(task_name=request.command, config_loader=loader)
    GlobalHydra.instance().clear()
    GlobalHydra.instance().initialize(hydra)
    try:
        _run(request, hydra, loader, job, _primary(request, stored))
    finally:
        GlobalHydra.instance().clear()


def _primary(request: Request, stored: StoredRun | None) -> str:
    """Return the name of the config to compose: the command's own, or that of a run's folder."""
    if stored is None:
        return request.command
    return stored.as_primary(request.command, replaced_groups(request.command, request.words))


def _run(request: Request, hydra: Hydra, loader: Loader, job: Job, primary: str) -> None:
    command, flags = request.command, request.flags
    preparation = Preparation(command, primary, loader, request.words, flags.multirun)
    words = preparation.prepared()
    many = preparation.many and "hydra.mode=RUN" not in request.added
    overrides = [*(word.given for word in words), *request.added]
    try:
        if not _show(flags, hydra, primary, overrides):
            _tell_plugins(preparation.plugins)
            start = hydra.multirun if many else hydra.run
            mode = f"hydra.mode={'MULTIRUN' if many else 'RUN'}"
            with naming_path(lambda: _folder_of(loader, primary, overrides, many)):
                start(config_name=primary, task_function=job, overrides=[*overrides, mode])
    except (ComposeError, OmegaConfBaseException) as err:  # the latter: a run's folder has no name
        raise _explained(err, request, primary, loader, words, many) from err


def _folder_of(loader: Loader, primary: str, overrides: Sequence[str], many: bool) -> str:
    """Return where Hydra writes the config of a launch."""
    hydra = loader.load_configuration(primary, list(overrides), RunMode.RUN).hydra
    return str(hydra.sweep.dir if many else hydra.run.dir)


def _explained(
    err: Exception,
    request: Request,
    primary: str,
    loader: Loader,
    words: Sequence[Prepared],
    many: bool,
) -> Exception:
    from sr_train.config.explain import Explanation

    if many:
        firsts = [(word, of_first_run(word.given)) for word in words]
        words = [word._replace(given=first) for word, first in firsts if first is not None]
    return Explanation(request.command, primary, loader).of(words, err)


def _tell_plugins(names: Sequence[str]) -> None:
    """Say once whose code a config brings in."""
    if Launch.from_environment().rank == 0:
        for name in names:
            if not plugin_problems([name]):
                console.print(f"plug-in {name}: {_place(name)}")


def _place(name: str) -> str:
    """Return where Python finds a package; nothing of it is imported."""
    try:
        spec = find_spec(name.split(".")[0])
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        return "not found"
    places = list(spec.submodule_search_locations or [])
    return str(places[0] if places else spec.origin)


def _show(flags: Flags, hydra: Hydra, name: str, overrides: list[str]) -> bool:
    """Show help or config where a flag asks for it; return whether one did."""
    parser, arguments = get_args_parser(), Namespace(overrides=overrides, resolve=flags.resolve)
    try:
        if flags.help:
            hydra.app_help(name, parser, arguments)
        elif flags.hydra_help:
            hydra.hydra_help(name, parser, Namespace(overrides=[], resolve=False))
        elif flags.cfg is not None:
            hydra.show_cfg(name, overrides, flags.cfg, flags.package, flags.resolve)
        elif flags.info is not None:
            hydra.show_info(flags.info, name, overrides)
        else:
            return False
    except OmegaConfBaseException as err:  # --resolve of what does not resolve
        raise ConfigError(f"--resolve: {first_line(err)}") from err
    return True
