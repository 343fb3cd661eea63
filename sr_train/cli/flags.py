"""The flags of a command line, which are Hydra's, and what to write instead of others'."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.config.aliases import known_as
from sr_train.config.schema_keys import keys_of

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_CFG = ("job", "hydra", "all")

_SHORT = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-r": "--run",
    "-m": "--multirun",
    "-sc": "--shell-completion",
    "-cd": "--config-dir",
    "-i": "--info",
    "-cp": "--config-path",
    "-cn": "--config-name",
}
_ALONE = ("--help", "--hydra-help", "--resolve", "--run", "--multirun", "--shell-completion")
_WITH_VALUE = ("--cfg", "--package", "--config-dir")
NAMES = (*_ALONE, *_WITH_VALUE, "--info")

_REFUSED = {
    "--config-path": "the shipped configs stay; add your own with --config-dir DIR",
    "--config-name": "each command has its config; choose yours with --config-dir DIR "
    "+experiment=NAME",
    "--experimental-rerun": "resumes nothing; use resume=runs/NAME",
}
"""Hydra's flags that would put another config in the place of a command's own."""

_OWN = "own configs lie in DIR/experiment/NAME.yaml: --config-dir DIR +experiment=NAME"
_HABITS = {
    **dict.fromkeys(("opt", "config", "config_file", "cfg", "c", "yaml", "yml"), _OWN),
    **dict.fromkeys(
        ("launcher", "local_rank", "nproc_per_node", "nnodes", "distributed", "ddp"),
        "several processes: torchrun --nproc-per-node=N -m sr_train train ...",
    ),
    **dict.fromkeys(
        ("gpus", "num_gpu"),
        "one GPU: device=cuda:0; several: torchrun --nproc-per-node=N -m sr_train train ...",
    ),
    **dict.fromkeys(("auto_resume", "resume"), "write resume=auto, or resume=runs/NAME"),
    **dict.fromkeys(("debug", "dry_run"), "python -m sr_train check ... looks without training"),
    "version": "python -m sr_train --version",
    "verbose": "the log says all there is; hydra.verbose=true adds that of the libraries",
}


@dataclass(frozen=True)
class Flags:
    """What the flags of a command line ask for."""

    help: bool = False
    hydra_help: bool = False
    cfg: str | None = None
    package: str | None = None
    resolve: bool = False
    run: bool = False
    multirun: bool = False
    shell_completion: bool = False
    config_dir: Path | None = None
    info: str | None = None


def parse(command: str, words: Sequence[str]) -> tuple[list[str], Flags]:
    """Tell flags from overrides, in any order.

    Args:
        command: whose words they are.
        words: after the command.

    Returns:
        The overrides, as typed, and the flags.

    Raises:
        ConfigError: for a flag that there is none of, saying what to write instead.
    """
    overrides, flags = [], Flags()
    left = iter(words)
    for word in left:
        name, has_value, value = word.partition("=")
        flag = _SHORT.get(name, name)
        if flag in _ALONE and not has_value:
            asked: dict[str, Any] = {flag[2:].replace("-", "_"): True}
            flags = replace(flags, **asked)
        elif flag in _WITH_VALUE:
            flags = _with_value(flags, flag, value if has_value else next(left, None))
        elif flag == "--info":
            flags = replace(flags, info=value if has_value else "all")
        elif word in _INFO and flags.info == "all":
            flags = replace(flags, info=word)
        elif word.startswith("-"):
            raise ConfigError(_instead(command, word, next(left, None)))
        else:
            overrides.append(word)
    _check(flags)
    return overrides, flags


def is_override(word: str) -> bool:
    """Whether a word sets or takes out something, so that Hydra can read it."""
    return word.lstrip("+~")[:1] not in {"", "="} and ("=" in word or word.startswith("~"))


def stray(command: str, word: str) -> str:
    """Say what is wrong with a word that is neither flag nor override."""
    if word.endswith((".yml", ".yaml")):
        return f"{word}: expected key=value; {_OWN}"
    keys = keys_of(command)
    if word.lstrip("+~")[:1] in {"", "="}:
        return f"{word}: expected key=value"
    if word.lstrip("+") in keys:
        return f"{word}: expected a value, {word}=..."
    if "experiment" in keys:
        return f"{word}: expected key=value; to choose an experiment: +experiment={word}"
    hint = did_you_mean(word, keys)
    return f"{word}: expected key=value{hint}"


def _with_value(flags: Flags, flag: str, value: str | None) -> Flags:
    if flag == "--config-dir":
        if not value:
            raise ConfigError("--config-dir: expected a folder, --config-dir DIR")
        return replace(flags, config_dir=Path(value).expanduser())
    if flag == "--package":
        return replace(flags, package=value)
    if value not in _CFG:
        found = "" if value is None else f"{value}: "
        raise ConfigError(f"--cfg: {found}expected one of {', '.join(_CFG)}; {_OWN}")
    return replace(flags, cfg=value)


def _check(flags: Flags) -> None:
    if flags.info is not None and flags.info not in _INFO:
        raise ConfigError(f"--info={flags.info}: expected one of {', '.join(_INFO)}")
    asked = {
        "--cfg": flags.cfg is not None,
        "--info": flags.info is not None,
        "--multirun": flags.multirun,
        "--run": flags.run,
        "--shell-completion": flags.shell_completion,
    }
    several = [name for name, wanted in asked.items() if wanted]
    if len(several) > 1:
        raise ConfigError(f"{' and '.join(several)}: expected one of them")
    if flags.resolve and flags.cfg is None and not flags.help:
        raise ConfigError("--resolve: goes with --cfg job")


def _instead(command: str, word: str, following: str | None) -> str:
    """Say what to write in the place of a flag that there is none of."""
    name, has_value, value = word.lstrip("-").partition("=")
    if not has_value and following is not None and not following.startswith("-"):
        value = following if not is_override(following) else ""
    return f"{word}: no such flag; {next(_advice(command, word, name, value))}"


def _advice(command: str, word: str, name: str, value: str) -> Iterator[str]:
    flag = _SHORT.get(word, word.partition("=")[0])
    if flag in _REFUSED:
        yield _REFUSED[flag]
    plain = name.lower().replace("-", "_")
    if plain in _HABITS:
        yield _HABITS[plain]
    keys = keys_of(command)
    key = plain if plain in keys else None
    if key is None:
        alias = known_as(name, keys)
        key = None if alias is None else alias[0]
    if key is not None:
        value = f"cuda:{value}" if key == "device" and value.isdecimal() else value
        yield f"settings are written without dashes: {key}={value or '...'}"
    yield f"settings are key=value{did_you_mean(word, NAMES)}"
