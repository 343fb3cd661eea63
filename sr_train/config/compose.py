"""From a composed Hydra config to a typed one, with every problem reported at once."""

from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf, SCMode
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)

from sr_train.api.errors import Problems, did_you_mean
from sr_train.api.text import one_line
from sr_train.config.paths import with_literal_tildes
from sr_train.config.schema_keys import hint_at
from sr_train.config.signatures import expected, fits, options_of, shown
from sr_train.config.yaml_files import first_line

Schema = TypeVar("Schema")

_STAND_INS = {"name": "unnamed", "scale": 1, "train.steps": 1}

_MOST_VALUES = 20_000
"""Values of a config, what references repeat counted as often as they do."""

_DEEPEST = 60


def typed(cfg: DictConfig, schema: type[Schema]) -> Schema:
    """Turn a composed config into its dataclass; component nodes become plain dicts.

    Raises:
        Problems: naming every value that is missing, unknown or does not resolve.
    """
    problems = [*map(_no_value, _missing(cfg)), *_unknown(cfg), *_unresolved(cfg, schema)]
    if problems:
        raise Problems(problems)
    return _converted(cfg, schema)


def lenient(cfg: DictConfig, schema: type[Schema]) -> tuple[Schema, list[str]]:
    """Turn a config into its dataclass even where values are missing, to look for more problems.

    Returns:
        The config with stand-ins for what is missing, and one problem per missing value.

    Raises:
        Problems: naming every value that does not resolve: of such a config nothing else can be
            looked at.
    """
    missing = _missing(cfg)
    unknown = _unknown(cfg)
    for key in missing:
        OmegaConf.update(cfg, key, _STAND_INS.get(key), force_add=True)
    problems = [*map(_no_value, missing), *unknown]
    unresolved = _unresolved(cfg, schema)
    if unresolved:
        raise Problems([*problems, *unresolved])
    return _converted(cfg, schema), problems


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Return the resolved config as plain Python, fit for a checkpoint; enums become words."""
    container = OmegaConf.to_container(
        cfg, resolve=True, enum_to_str=True, structured_config_mode=SCMode.DICT
    )
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _converted(cfg: DictConfig, schema: type[Schema]) -> Schema:
    try:
        config = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as err:
        raise Problems([f"{err.full_key or 'config'}: {first_line(err)}"]) from err
    assert isinstance(config, schema)
    problems = _mistyped(config, "")
    if problems:
        raise Problems(problems)
    with_literal_tildes(config)
    return config


def _mistyped(config: Any, prefix: str) -> list[str]:
    """Return a problem per value that a reference has made another than its field may be."""
    problems = []
    for name, hint in get_type_hints(type(config)).items():
        value, place = getattr(config, name), f"{prefix}{name}"
        inner = {place: (value, hint)}
        if get_origin(hint) is dict and isinstance(value, dict):
            inner = {f"{place}.{key}": (each, get_args(hint)[1]) for key, each in value.items()}
        elif get_origin(hint) is list and isinstance(value, list):
            item = get_args(hint)[0]
            inner = {f"{place}[{at}]": (each, item) for at, each in enumerate(value)}
        for path, (found, wanted) in inner.items():
            if is_dataclass(found) and found.__class__ in options_of(wanted):
                problems += _mistyped(found, f"{path}.")
            elif any(map(is_dataclass, options_of(wanted))):
                problems.append(f"{path}={shown(found)}: expected a mapping")
            elif not fits(found, wanted):
                problems.append(f"{path}={shown(found)}: expected {expected(wanted)}")
    return problems


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
        elif isinstance(child, DictConfig | ListConfig) and not is_leaf(child):
            problems += _unknown(child, f"{prefix}{name}.")
    return problems


def _missing(node: DictConfig | ListConfig, prefix: str = "") -> list[str]:
    """Return the dotted keys that hold `???`; references are not followed."""
    keys: list[str] = []
    names = range(len(node)) if isinstance(node, ListConfig) else list(node)
    kind = OmegaConf.get_type(node)
    if is_dataclass(kind):  # ~key takes out what has to be there
        keys += [
            f"{prefix}{field.name}"
            for field in fields(kind)
            if field.default is MISSING and field.name not in names
        ]
    for name in names:
        child = node._get_node(name)
        if OmegaConf.is_missing(node, name):
            keys.append(f"{prefix}{name}")
        elif isinstance(child, DictConfig | ListConfig) and not is_leaf(child):
            keys += _missing(child, f"{prefix}{name}.")
    return keys


def is_leaf(node: DictConfig | ListConfig) -> bool:
    """Whether nothing lies below a mapping or list that could be walked as it is written."""
    return node._is_none() or node._is_interpolation() or node._is_missing()


def _unresolved(cfg: DictConfig, schema: type) -> list[str]:
    """Return a problem per value that does not resolve, or that has another type then."""
    walk = _Resolved(schema)
    walk.follow(cfg, "", 0)
    return walk.problems


class _Resolved:
    """A walk that follows every reference once, and counts what it finds."""

    def __init__(self, schema: type) -> None:
        self.problems: list[str] = []
        self._schema = schema
        self._count = 0

    def follow(self, node: DictConfig | ListConfig, path: str, depth: int) -> None:
        """Look at all that lies below a node, up to where it cannot end."""
        names = range(len(node)) if isinstance(node, ListConfig) else list(node)
        for name in names:
            place = f"{path}.{name}" if path else str(name)
            self._count += 1
            if self._count > _MOST_VALUES or depth > _DEEPEST:
                self._stop(place)
                return
            try:
                value = node[name]
            except (MissingMandatoryValue, InterpolationToMissingValueError):
                continue  # reported as missing
            except Exception as err:
                self.problems.append(f"{place}={_written(node, name)}: {self._why(place, err)}")
                continue
            if isinstance(value, DictConfig | ListConfig) and not value._is_none():
                self.follow(value, place, depth + 1)

    def _why(self, place: str, err: Exception) -> str:
        """Say in plain words why a reference does not resolve."""
        looped = "recursi" in str(err).lower() or "to parent node" in str(err)
        if isinstance(err, RecursionError) or looped:
            return "refers to itself"
        if isinstance(err, InterpolationKeyError):
            return "refers to a key that does not exist"
        hint = hint_at(self._schema, place)
        if isinstance(err, ValidationError) and hint is not None:
            return f"expected {expected(hint[0])}"
        text = first_line(err)
        if "HydraConfig" in text:
            return "refers to a setting of Hydra that there is none of"
        return f"cannot be resolved: {text}"

    def _stop(self, place: str) -> None:
        if not any("refers to itself" in problem for problem in self.problems):
            head = ".".join(place.split(".")[:3])
            self.problems.append(f"{head}: refers to itself, or holds too much")


def _written(node: DictConfig | ListConfig, name: Any) -> str:
    child: Any = node._get_node(name)
    text = one_line(child._value() if child is not None else "")
    return text if len(text) <= 100 else f"{text[:97]}..."
