"""What keys and groups a command has, and what the schema says may stand at a key."""

import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from sr_train.config.schema import SCHEMAS, RunConfig, UseConfig
from sr_train.config.signatures import options_of
from sr_train.config.sources import SHIPPED

_APPENDED = {
    RunConfig: ("experiment", "search", "cluster", "debug"),
    UseConfig: ("dataset", "metrics"),
}
"""Groups that no default of a command chooses, by the schema that takes them."""


@cache
def keys_of(command: str) -> tuple[str, ...]:
    """Return every key of a command's schema, dotted, and every group that it takes."""
    schema = SCHEMAS[command]
    extra = [names for kind, names in _APPENDED.items() if issubclass(schema, kind)]
    groups = [*default_groups(command), *(name for names in extra for name in names)]
    return tuple(dict.fromkeys([*_fields(schema, ""), *groups]))


@cache
def default_groups(command: str) -> dict[str, bool]:
    """Return the groups that a command's config chooses by default: name -> takes several.

    Args:
        command: name of a config; one that is not shipped has none.
    """
    path = SHIPPED / f"{command}.yaml"
    found: dict[str, bool] = {}
    if not path.is_file():
        return found
    defaults = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(defaults, dict)
    for item in defaults.get("defaults", []):
        if isinstance(item, str) and not item.startswith(("schema_", "_self_")):
            found |= default_groups(item)
        elif isinstance(item, dict):
            for name, chosen in item.items():
                if not name.startswith("override "):
                    found[name] = isinstance(chosen, list)
    return found


def hint_at(schema: type, key: str) -> tuple[Any, tuple[str, ...]] | None:
    """Return what a schema says about a key.

    Returns:
        The annotation and what of the key lies below it: nothing, unless the annotation is Any,
        where components stand. None where the schema has no such key.
    """
    hint: Any = schema
    parts = key.split(".")
    for position, part in enumerate(parts):
        kinds = [option for option in options_of(hint) if option is not type(None)]
        hint = kinds[0] if kinds else hint
        if hint is Any:
            return Any, tuple(parts[position:])
        origin = typing.get_origin(hint)
        if is_dataclass(hint):
            hints = _hints_in(hint)
            if part not in hints:
                return None
            hint = hints[part]
        elif origin is dict:
            hint = typing.get_args(hint)[1]
        elif origin is list and part.isdigit():
            hint = typing.get_args(hint)[0]
        else:
            return None
    return hint, ()


def _hints_in(schema: Any) -> dict[str, Any]:
    """Return the annotation of each field, or what its metadata say where OmegaConf has none."""
    hints = {each.name: each.metadata["hint"] for each in fields(schema) if "hint" in each.metadata}
    return typing.get_type_hints(schema) | hints


def is_open(schema: type, key: str) -> bool:
    """Whether a key may be added: below a component, or in a mapping of names of one's own."""
    found = hint_at(schema, key)
    if found is None:
        return False
    return (found[0] is Any and bool(found[1])) or entry_of(schema, key) is not None


def entry_of(schema: type, key: str) -> str | None:
    """Return the part of a key that names an entry of a mapping, as objective.l1 in what is below.

    None where the key lies in no mapping of names of one's own.
    """
    parts = key.split(".")
    for count in range(1, len(parts)):
        hint = hint_at(schema, ".".join(parts[:count]))
        if hint is not None and not hint[1] and typing.get_origin(hint[0]) is dict:
            return ".".join(parts[: count + 1])
    return None


def _fields(schema: Any, prefix: str) -> Iterator[str]:
    for name, hint in typing.get_type_hints(schema).items():
        yield f"{prefix}{name}"
        for option in options_of(hint):
            if is_dataclass(option) and not (isinstance(option, type) and issubclass(option, Enum)):
                yield from _fields(option, f"{prefix}{name}.")
