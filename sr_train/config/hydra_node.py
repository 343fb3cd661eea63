"""What a config may ask of Hydra itself, looked at before Hydra does any of it.

Hydra makes callbacks, launchers, sweepers and log handlers by name, sets environment variables and
lets a cluster run shell commands, all of it before a command's own code is reached.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from sr_train.api.errors import Problems
from sr_train.api.text import one_line

_BASIC = "hydra._internal.core_plugins"
_SUBMITIT = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
_OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper"

_LAUNCHERS = {
    "basic": ("BasicLauncherConf", f"{_BASIC}.basic_launcher.BasicLauncher"),
    "submitit_local": ("LocalQueueConf", f"{_SUBMITIT}.LocalLauncher"),
    "submitit_slurm": ("SlurmQueueConf", f"{_SUBMITIT}.SlurmLauncher"),
}
"""What may start runs: choice -> the class that types its node, and its target."""

_SWEEPERS = {
    "basic": ("BasicSweeperConf", f"{_BASIC}.basic_sweeper.BasicSweeper"),
    "optuna": ("OptunaSweeperConf", f"{_OPTUNA}.OptunaSweeper"),
}
_SAMPLERS = {
    "tpe": ("SamplerConfig", "optuna.samplers.TPESampler"),
    "random": ("SamplerConfig", "optuna.samplers.RandomSampler"),
    "grid": ("SamplerConfig", "optuna.samplers.GridSampler"),
    "cmaes": ("SamplerConfig", "optuna.samplers.CmaEsSampler"),
    "nsgaii": ("SamplerConfig", "optuna.samplers.NSGAIISampler"),
    "motpe": ("SamplerConfig", "optuna.samplers.MOTPESampler"),
}

_CALLBACK = {"sweep": {"_target_": "sr_train.cli.sweeping.SweepWatch"}}

_QUIET = {"version": 1, "root": None, "disable_existing_loggers": False}
"""Hydra's own logging, as `none` in its groups says; a run logs by itself."""

_SUBDIR = ".hydra/${now:%Y%m%d-%H%M%S-%f}"
"""Where `train` writes its config, below the run's folder; others write none."""

_RUNS_COMMANDS = ("hydra.launcher.setup", "hydra.launcher.additional_parameters")
_SAMPLER = "hydra/sweeper/sampler"
_NO_SEARCH_PATH = "hydra.searchpath: expected --config-dir DIR on the command line"
_AT_LEAST_ONE = ("max_batch_size", "n_jobs")
_STORAGE = "hydra.sweeper.storage"
_UNPICKLES = "optuna.samplers.CmaEsSampler"
"""A sampler that keeps a pickle of itself in the storage, and loads it from there."""


def check_search_path(overrides: Sequence[Override]) -> None:
    """Raise for a search path of Hydra's, which imports the packages that it names.

    A sweep's parameters become overrides, too, so this concerns more than what was typed.

    Raises:
        Problems: before anything is composed.
    """
    if any(override.key_or_group == "hydra.searchpath" for override in overrides):
        raise Problems([_NO_SEARCH_PATH])


def check_hydra_node(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Raise where a config asks Hydra for what no config may.

    Args:
        cfg: composed, with its `hydra` node; nothing of it was used yet.
        overrides: of the command line. What runs commands or unpickles counts only where it was
            typed there.

    Raises:
        Problems: each with its config path.
    """
    typed = [override.key_or_group for override in overrides]
    node = cfg.hydra
    problems = [
        *_quiet(node),
        *_component(node, "launcher", _LAUNCHERS, "hydra"),
        *_component(node, "sweeper", _SWEEPERS, "hydra"),
        *_launcher(node, typed),
        *_sweeper(node, typed),
        *_environment(node, overrides),
        *_run_folder(node),
    ]
    if problems:
        raise Problems(problems)


def _quiet(node: DictConfig) -> Iterator[str]:
    for name in ("job_logging", "hydra_logging"):
        if _plain(node._get_node(name)) != _QUIET:
            yield f"hydra.{name}: the program logs by itself; expected hydra/{name}=none"
    if _plain(node._get_node("callbacks")) not in ({}, _CALLBACK):
        yield "hydra.callbacks: no config may add any"
    verbose = _plain(node._get_node("verbose"))
    names = verbose if isinstance(verbose, list) else [verbose]
    if not all(isinstance(name, bool | str) for name in names):
        yield "hydra.verbose: expected true, false, or names of loggers"


def _component(
    parent: DictConfig, name: str, known: dict[str, tuple[str, str]], path: str
) -> Iterator[str]:
    found = parent._get_node(name)
    if not isinstance(found, DictConfig) or _identity(found) not in known.values():
        group = f"{path}.{name}".replace(".", "/")
        yield f"{path}.{name}: expected one that is shipped: {group}={'|'.join(known)}"


def _identity(node: DictConfig) -> tuple[str, Any]:
    """Return the class that types a node, which no file can give it, and its target."""
    kind = getattr(OmegaConf.get_type(node), "__name__", "")
    return kind, _plain(node._get_node("_target_"))


def _launcher(node: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    for path, value in _leaves(node, "launcher", "hydra.launcher"):
        if path.endswith("._target_") and path != "hydra.launcher._target_":
            yield f"{path}: no component is expected there"
        elif isinstance(value, str) and not value.isprintable():
            yield f"{path}={one_line(value)}: expected one line of printable text"
        elif isinstance(value, _Unresolved):
            yield f"{path}={value!s}: cannot be resolved before the launcher starts"
        for key in _RUNS_COMMANDS:
            if path.startswith(key) and value is not None and not _is_typed(key, typed):
                yield f"{key}: reaches the cluster's shell, so type it: {key}=..."


def _sweeper(node: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    for path, value in _leaves(node, "sweeper", "hydra.sweeper"):
        if path == "hydra.sweeper.custom_search_space" and value is not None:
            yield f"{path}: no config may name code there; expected hydra.sweeper.params"
        inner = path.removesuffix("._target_")
        if inner != path and inner not in {"hydra.sweeper", "hydra.sweeper.sampler"}:
            yield f"{path}: no component is expected there"
        local = value is None or str(value).startswith("sqlite:///")
        if path.startswith(_STORAGE) and not local and not _is_typed(_STORAGE, typed):
            yield f"{path}: of other storages than sqlite:///FILE, type it: {path}=..."
        name = path.removeprefix("hydra.sweeper.")
        number = isinstance(value, int | float)
        if name in _AT_LEAST_ONE and number and value < 1:
            yield f"{path}={value}: expected a whole number from 1 up"
        if name == "max_failure_rate" and number and not 0 <= value <= 1:
            yield f"{path}={value}: expected a number from 0 to 1"
    sweeper = node._get_node("sweeper")
    if isinstance(sweeper, DictConfig) and "sampler" in sweeper:
        yield from _component(sweeper, "sampler", _SAMPLERS, "hydra.sweeper")
        target = _plain(sweeper._get_node("sampler")) or {}
        loads = isinstance(target, dict) and target.get("_target_") == _UNPICKLES
        if loads and _plain(sweeper._get_node("storage")) and not _is_typed(_SAMPLER, typed):
            yield (
                f"{_SAMPLER}: cmaes loads a pickle from hydra.sweeper.storage, so type it: "
                f"{_SAMPLER}=cmaes"
            )


def _run_folder(node: DictConfig) -> Iterator[str]:
    """Yield that the config of a run would be written out of its folder, or where none looks."""
    found = _plain(node._get_node("output_subdir"))
    if found is not None and found != _SUBDIR:
        yield f"hydra.output_subdir={found}: expected what is shipped, or null"


def _environment(node: DictConfig, overrides: Sequence[Override]) -> Iterator[str]:
    for name in ("env_set", "env_copy"):
        if _plain(node.job._get_node(name)):
            yield f"hydra.job.{name}: no config may set the environment; set it in your shell"
    if _plain(node._get_node("searchpath")):
        yield _NO_SEARCH_PATH
    given = sorted(str(override.input_line) for override in overrides)
    found = [*_plain(node.overrides._get_node("hydra")), *_plain(node.overrides._get_node("task"))]
    if sorted(map(str, found)) != given:
        yield "hydra.overrides: no config may add any"


class _Unresolved(str):
    """A reference that cannot be followed yet, as it is written."""

    __slots__ = ()


def _leaves(parent: DictConfig | ListConfig, name: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield (config path, value) of every plain value below a key.

    A reference to a list or mapping counts as a component: nothing there needs one.
    """
    node: Any = parent._get_node(name)
    value: Any = None if node is None else node._value()
    if node is not None and node._is_interpolation():
        try:
            value = parent[name]
        except InterpolationToMissingValueError:
            value = None  # reported as missing later
        except OmegaConfBaseException:
            value = _Unresolved(value)
        if isinstance(value, DictConfig | ListConfig):
            yield f"{path}._target_", None
            return
    elif isinstance(node, ListConfig) and not (node._is_none() or node._is_missing()):
        for position in range(len(node)):
            yield from _leaves(node, position, f"{path}[{position}]")
        return
    elif isinstance(node, DictConfig) and not (node._is_none() or node._is_missing()):
        for key in node:
            yield from _leaves(node, key, f"{path}.{key!s}")
        return
    yield path, value


def _is_typed(key: str, typed: Sequence[str]) -> bool:
    return any(word == key or word.startswith((f"{key}.", f"{key}[")) for word in typed)


def _plain(node: Any) -> Any:
    """Return a node as plain Python, references as they are written."""
    if isinstance(node, DictConfig | ListConfig):
        return OmegaConf.to_container(node, resolve=False)
    return None if node is None else node._value()
