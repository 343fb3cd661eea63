"""The typed schema as JSON Schema (draft 2020-12), for editors that check YAML while it is typed.

It speaks of files as people write them: parts of a config, with references (`${scale}`), `???`, and
a list of defaults. What lies inside a component is left to `check`, which knows its class.
"""

import ast
import inspect
import json
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.config.listing import groups, several_of
from sr_train.config.schema import SCHEMAS
from sr_train.config.signatures import expected, options_of
from sr_train.config.targets import kind_of

_REFERENCE = r"^\?\?\?$|\$\{.+\}"
"""What may stand in the place of any value: `???`, or text with a reference in it."""

_TYPES: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
}


def json_schema(command: str = "train", config_dir: Path | None = None) -> dict[str, Any]:
    """Return the JSON Schema of a command's config, composed or as part of it in a file.

    Args:
        command: whose config it is; of `train` for experiments.
        config_dir: the user's own configs, whose choices are completed, too.

    Raises:
        ConfigError: for a command that has no config.
    """
    if command not in SCHEMAS:
        hint = did_you_mean(command, SCHEMAS)
        raise ConfigError(f"config schema {command}: no such command{hint}")
    schema = _of_class(SCHEMAS[command], "")
    schema["properties"]["defaults"] = _defaults(config_dir)
    schema["properties"]["hydra"] = {"type": "object", "description": "Settings of Hydra itself."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"sr_train {command}",
        **schema,
    }


def printed(schema: Mapping[str, Any]) -> str:
    """Return a schema as indented text."""
    return json.dumps(schema, indent=2) + "\n"


def _of_class(kind: type, path: str) -> dict[str, Any]:
    hints, docs = typing.get_type_hints(kind), _docs_of(kind)
    properties = {}
    for each in fields(kind):
        place = f"{path}.{each.name}" if path else each.name
        hint = each.metadata.get("hint", hints[each.name])
        node = _of_hint(hint, place)
        if each.name in docs:
            node = {"description": docs[each.name], **node}
        properties[each.name] = node | _default(each)
    return {
        "description": inspect.cleandoc(kind.__doc__ or ""),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _of_hint(hint: Any, path: str) -> dict[str, Any]:
    """Return the schema of what an annotation allows at a config path."""
    if hint is Any:
        return _component(kind_of(path))
    options = options_of(hint)
    compound = [_compound(option, path) for option in options if option not in _TYPES]
    plain = [_TYPES[option] for option in options if option in _TYPES]
    if compound and not plain:
        return compound[0] if len(compound) == 1 else {"anyOf": compound}
    found = _plain(plain, expected(hint))
    return {"anyOf": [*compound, found]} if compound else found


def _plain(names: list[str], words: str) -> dict[str, Any]:
    if "string" in names:
        return {"type": names if len(names) > 1 else "string"}
    return {
        "type": [*names, "string"],
        "pattern": _REFERENCE,
        "patternErrorMessage": f"expected {words}, or a reference such as ${{scale}}",
    }


def _compound(hint: Any, path: str) -> dict[str, Any]:
    """Return the schema of a class, an enumeration, a list or a mapping."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        names = [member.name for member in hint]
        return {"anyOf": [{"enum": names}, {"type": "string", "pattern": _REFERENCE}]}
    if is_dataclass(hint) and isinstance(hint, type):
        return _of_class(hint, path)
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is list:
        return {"type": "array", "items": _of_hint(inner[0], f"{path}.*")}
    assert typing.get_origin(hint) is dict, f"{path}: {hint} has no JSON Schema"
    return {"type": "object", "additionalProperties": _of_hint(inner[1], f"{path}.*")}


def _component(kind: str | None) -> dict[str, Any]:
    if kind is None:
        return {}
    words = f"Dotted name of the class of a {kind}; its arguments stand beside it."
    return {
        "type": ["object", "null", "string"],
        "pattern": _REFERENCE,
        "patternErrorMessage": f"expected {kind}: _target_ and arguments",
        "properties": {
            "_target_": {"type": "string", "description": words},
            "_partial_": {"type": "boolean"},
        },
    }


def _default(each: Field[Any]) -> dict[str, Any]:
    """Return the neutral value of a field, where it has a plain one."""
    value = each.default
    if isinstance(each.default_factory, type) and each.default_factory in {list, dict}:
        value = each.default_factory()
    if value is NO_DEFAULT or value == MISSING:
        return {}
    return {"default": value.name if isinstance(value, Enum) else value}


def _defaults(config_dir: Path | None) -> dict[str, Any]:
    """Return the schema of a list of defaults; choices are offered, others are allowed."""
    choices = {
        name: _choices(name, [choice.name for choice in found])
        for name, found in groups(config_dir).items()
    }
    offered = {f"override /{name}": node for name, node in choices.items()}
    offered |= {f"/{name}": node for name, node in choices.items()} | choices
    return {
        "description": "Which files this one is put on top of; `override /GROUP: NAME` chooses.",
        "type": "array",
        "items": {
            "anyOf": [{"type": "string"}, {"type": "object", "properties": offered}],
        },
    }


def _choices(group: str, names: list[str]) -> dict[str, Any]:
    one = {"anyOf": [{"enum": names}, {"type": ["string", "null"]}]}
    return {"anyOf": [one, {"type": "array", "items": one}]} if several_of(group) else one


@cache
def _docs_of(kind: type) -> dict[str, str]:
    """Return the text under each field of a class and of those that it derives from."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if not is_dataclass(each):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(tree, ast.ClassDef)
        for field, below in zip(tree.body, tree.body[1:], strict=False):
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant):
                assert isinstance(field.target, ast.Name)
                found[field.target.id] = inspect.cleandoc(str(text.value))
    return found
