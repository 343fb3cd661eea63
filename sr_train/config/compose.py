"""From a composed Hydra config to a typed one, with every problem told at once."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException

from sr_train.config.preflight import run_problems
from sr_train.config.schema import SCHEMAS, RunConfig, store_schemas
from sr_train.ops.errors import ConfigError, Problems, did_you_mean

Schema = TypeVar("Schema")

_EXTRAS = {"optuna": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm"}
"""Choices of Hydra's own groups that a package brings, and the extra with that package."""

_STAND_INS = {"name": "unnamed", "scale": 1, "train.steps": 1}


def typed(cfg: DictConfig, schema: type[Schema]) -> Schema:
    """Turn a composed config into its dataclass; component nodes become plain dicts.

    Raises:
        Problems: naming every value that is missing, unknown or does not resolve.
    """
    problems = [*map(_no_value, _missing(cfg)), *_unknown(cfg)]
    if problems:
        raise Problems(problems)
    return _converted(cfg, schema)


def lenient(cfg: DictConfig, schema: type[Schema]) -> tuple[Schema, list[str]]:
    """Turn a config into its dataclass even where values are missing, to look for more problems.

    Returns:
        The config with stand-ins for what is missing, and one problem per missing value.
    """
    missing = _missing(cfg)
    for key in missing:
        OmegaConf.update(cfg, key, _STAND_INS.get(key), force_add=True)
    return _converted(cfg, schema), [*map(_no_value, missing), *_unknown(cfg)]


def _converted(cfg: DictConfig, schema: type[Schema]) -> Schema:
    try:
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as err:
        raise Problems([f"{err.full_key or 'config'}: {first_line(err)}"]) from err
    assert isinstance(config, schema)
    return config


def _no_value(key: str) -> str:
    return f"{key}: no value; set {key}=... on the command line"


def _unknown(node: DictConfig | ListConfig, prefix: str = "") -> list[str]:
    """Return a problem per key that Hydra's `+key=...` added to where nobody reads it."""
    problems: list[str] = []
    kind = OmegaConf.get_type(node)
    known = [field.name for field in fields(kind)] if is_dataclass(kind) else None
    for name in range(len(node)) if isinstance(node, ListConfig) else list(node):
        child = node._get_node(name)
        if known is not None and name not in known:
            problems.append(f"{prefix}{name}: no such key{did_you_mean(str(name), known)}")
        elif isinstance(child, DictConfig | ListConfig) and not _is_leaf(child):
            problems += _unknown(child, f"{prefix}{name}.")
    return problems


def _missing(node: DictConfig | ListConfig, prefix: str = "") -> list[str]:
    """Return the dotted keys that hold `???`; interpolations are not followed."""
    keys: list[str] = []
    names = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for name in names:
        child = node._get_node(name)
        if OmegaConf.is_missing(node, name):
            keys.append(f"{prefix}{name}")
        elif isinstance(child, DictConfig | ListConfig) and not _is_leaf(child):
            keys += _missing(child, f"{prefix}{name}.")
    return keys


def _is_leaf(node: DictConfig | ListConfig) -> bool:
    return node._is_none() or node._is_interpolation() or node._is_missing()


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain Python, fit for a checkpoint; enums become words."""
    container = OmegaConf.to_container(
        cfg, resolve=True, enum_to_str=True, structured_config_mode=SCMode.DICT
    )
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def first_line(err: BaseException) -> str:
    """Return the part of an OmegaConf message that a person needs."""
    return str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__


def explain(
    command: str, overrides: Sequence[str], err: Exception, config_dir: Path | None = None
) -> Exception:
    """Find every override that keeps a config from composing.

    Composing stops at the first fault, so on failure the overrides are tried in ever smaller
    parts, those that choose a group's option first.

    Args:
        command: name of the config.
        overrides: the command line without the command and without Hydra's own flags.
        err: what composing raised.
        config_dir: the user's own configs, searched beside the shipped ones.

    Returns:
        `Problems` with one message per fault, or `err` reworded where no override is at fault.
    """
    GlobalHydra.instance().clear()
    store_schemas()
    problems: list[str] = []
    own = []
    if config_dir is not None and config_dir.is_dir():
        own = [f"hydra.searchpath=['file://{config_dir.absolute()}']"]
    accepted = list(own)
    failed_choices: list[str] = []
    with initialize_config_module("configs", version_base="1.3"):
        if _failure(command, own) is None:
            for override, failure in _sift(command, accepted, sorted(overrides, key=_is_value)):
                group = override.split("=", 1)[0].lstrip("+~").split(".")[0]
                if not {group, "experiment"} & set(failed_choices):
                    problems.append(_reword(command, accepted, override, failure))
                    if not _is_value(override)[0]:
                        failed_choices.append(group)
        problems += _further(command, accepted, whole=not failed_choices)
    return Problems(problems) if problems else ConfigError(_text(err))


def of_first_run(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of a sweep's first run; what a search alone can choose is left out."""
    parser = OverridesParser.create()
    words = []
    for word in overrides:
        try:
            override = parser.parse_override(word)
        except HydraException:
            words.append(word)
            continue
        if not override.is_sweep_override():
            words.append(word)
        elif override.is_choice_sweep() or override.is_range_sweep():
            words.append(f"{override.get_key_element()}={next(override.sweep_string_iterator())}")
    return words


def _sift(
    command: str, accepted: list[str], overrides: list[str]
) -> Iterator[tuple[str, Exception]]:
    """Yield the overrides at fault, halving the list; append the others to `accepted`."""
    failure = _failure(command, [*accepted, *overrides])
    if failure is None:
        accepted += overrides
    elif len(overrides) == 1:
        yield overrides[0], failure
    else:
        middle = len(overrides) // 2
        yield from _sift(command, accepted, overrides[:middle])
        yield from _sift(command, accepted, overrides[middle:])


def _further(command: str, accepted: Sequence[str], whole: bool) -> list[str]:
    """Look at what is left of a config after its unusable overrides are taken out.

    Values are only told as missing where the config is `whole`: a choice may have brought them.
    """
    schema = SCHEMAS[command]
    if _failure(command, accepted) is not None or not issubclass(schema, RunConfig):
        return []
    cfg = compose(command, overrides=list(accepted))
    absent = _missing(cfg)
    config, problems = lenient(cfg, schema)
    if not whole:
        problems = problems[len(absent) :]
    return problems + [p for p in run_problems(config) if not p.startswith(tuple(absent))]


def _is_value(override: str) -> tuple[bool, bool]:
    key = override.split("=", 1)[0]
    return "." in key, not key.startswith("+")


def _failure(command: str, overrides: Sequence[str]) -> Exception | None:
    try:
        compose(command, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as err:
        return err
    return None


def _reword(command: str, accepted: list[str], override: str, err: Exception) -> str:
    """Say in one line what is wrong with an override, or with the file that it chose."""
    key = override.split("=", 1)[0].lstrip("+~")
    text = _text(err)
    if key == "experiment" and not override.startswith("+"):
        return f"{override}: write +{override}"
    choice = re.search(r"Could not (?:find|load) '([^']+)'", text)
    if choice:
        extra = _EXTRAS.get(choice[1].rpartition("/")[2])
        if extra is not None:
            return f'{override}: needs a package that is missing; pip install "sr_train[{extra}]"'
        options = re.search(r"Available options in '[^']+':\s*(.*?)\nConfig search", text, re.S)
        group, _, wanted = choice[1].rpartition("/")
        shipped = GlobalHydra.instance().config_loader().get_group_options(group)
        valid = options.group(1).split() if options else shipped
        return f"{override}: no such choice{did_you_mean(wanted, valid)}"
    full_key = re.search(r"full_key: (\S+)", text)
    inside = full_key[1] if full_key and not key.startswith(f"{full_key[1]}.") else key
    where = f"in {override}: " if inside != key else ""
    if re.search(r"not in (struct|')|Could not override", text):
        known = _keys(compose(command, overrides=accepted))
        return f"{where}{inside}: no such key{did_you_mean(inside, known)}"
    value = re.search(r"^Value .*$", text, re.M)
    if value:
        return f"{where or override + ': '}{inside + ': ' if where else ''}{value[0]}"
    return f"{override}: {text}"


def _text(err: Exception) -> str:
    cause = err.__cause__ if isinstance(err.__cause__, OmegaConfBaseException) else None
    return "\n".join(str(part).strip() for part in (err, cause) if part is not None)


def _keys(node: DictConfig | ListConfig, prefix: str = "") -> list[str]:
    keys: list[str] = []
    if isinstance(node, ListConfig):
        return keys
    for name in map(str, node):
        keys.append(f"{prefix}{name}")
        child = None if OmegaConf.is_missing(node, name) else node._get_node(name)
        if isinstance(child, DictConfig) and not _is_leaf(child):
            keys += _keys(child, f"{prefix}{name}.")
    return keys
