"""Every component of a config, wherever it stands, held against the list of what may be named."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sr_train.api.errors import ConfigError
from sr_train.config.build import nodes_in
from sr_train.config.targets import SEAMS, kind_of, plugin_problems, resolve_target


def forbidden(config: Any) -> list[str]:
    """Return every `_target_` of a typed config that may not stand where it does, at any depth.

    Nothing of a config is made before this is empty.
    """
    values = asdict(config)
    plugins = values.get("plugins", [])
    problems = plugin_problems(plugins)
    if problems:
        return problems
    for path, node in nodes_in(values, ""):
        problems += _forbidden_in(node, path.removeprefix("."), plugins)
    return problems


def misplaced(config: Any) -> list[str]:
    """Return the plug-ins that there cannot be, and every component where none is expected.

    The check of components reports what is wrong with those in their places.
    """
    values = asdict(config)
    return [
        *plugin_problems(values.get("plugins", [])),
        *(
            _unexpected(path.removeprefix("."), node)
            for path, node in nodes_in(values, "")
            if not _may_hold(path.removeprefix("."))
        ),
    ]


def _forbidden_in(node: Mapping[Any, Any], path: str, plugins: list[str]) -> Iterator[str]:
    """Yield what is wrong with the targets of a node and of the nodes in its arguments."""
    if not _may_hold(path):
        yield _unexpected(path, node)
        return
    try:
        resolve_target(node["_target_"], path, plugins, kind_of(path) or "part")
    except ConfigError as err:
        yield str(err)
    for name, value in node.items():
        for place, inner in nodes_in(value, f"{path}.{name}"):
            yield from _forbidden_in(inner, place, plugins)


def _may_hold(path: str) -> bool:
    """Whether a component may stand at a path: in its place, or as an argument of another."""
    heads = [seam.split("*")[0].rstrip(".") + "." for seam in SEAMS]
    return kind_of(path) is not None or path.startswith(tuple(heads))


def _unexpected(path: str, node: Mapping[Any, Any]) -> str:
    return f"{path}: no component is expected there, found _target_={node['_target_']}"
