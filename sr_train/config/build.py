"""The one place that turns a `_target_` node into an object."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sr_train.api.errors import CheckpointError, ConfigError, SRTrainError
from sr_train.config.signatures import hints_of, mentions, shown, signature_problems
from sr_train.config.targets import KINDS, kind_of, resolve_target
from sr_train.utils.memory import is_out_of_memory

__all__ = ["at_scale", "build", "is_node", "node_problems", "nodes_in", "resolve_target"]

_LARGEST = 1_000_000
"""No size of a network or a loss is larger; what loops over one that is never ends."""

_DEEPEST = 20
"""Nodes inside nodes; more are a mistake."""


def build(node: Mapping[str, Any], path: str, plugins: Sequence[str] = (), **runtime: Any) -> Any:
    """Make the object a node describes; the node's own arguments are plain Python.

    Args:
        node: a dict with `_target_`; one of an optimizer gives a callable that takes the rest.
        path: where the node stands in the config: says of which kind it is, and for messages.
        plugins: the user's packages.
        runtime: arguments that only exist at run time; they win over the node's.

    Raises:
        ConfigError: naming the path, if the target or an argument does not fit, or if the
            constructor fails in whatever way.
        CheckpointError: naming it, too, if a file that the component needs does not.
    """
    problems = node_problems(node, path, plugins, runtime)
    if problems:
        raise ConfigError("; ".join(problems))
    from sr_train.utils.allocation import WithinMemory  # torch takes seconds; --help needs none

    with WithinMemory():
        return _made(node, path, plugins, kind_of(path), runtime)


def node_problems(
    node: Any,
    path: str,
    plugins: Sequence[str] = (),
    runtime: Mapping[str, Any] | None = None,
    kind: str | None = None,
) -> list[str]:
    """Check a node without making anything: target, argument names, required ones, plain types."""
    kind = kind or kind_of(path)
    if not is_node(node):
        return [_no_component(node, path, kind)]
    try:
        target = resolve_target(node["_target_"], path, plugins, kind)
    except ConfigError as err:
        return [str(err)]
    problems = [f"{path}.{word}: {why}" for word, why in _reserved(node, kind)]
    arguments = _arguments(node)
    with_nodes = set()
    for name, value in arguments.items():
        inner = _kind_inside(target, name, plugins)
        for place, found in nodes_in(value, f"{path}.{name}"):
            with_nodes.add(name)
            if inner is None:
                problems.append(
                    f"{place}: found a component (_target_={found['_target_']}), but "
                    f"{target.__name__} takes plain values there"
                )
            else:
                problems += node_problems(found, place, plugins, kind=inner)
    plain = {name: value for name, value in arguments.items() if name not in with_nodes}
    given = {*(runtime or ()), *with_nodes}
    problems += signature_problems(target, plain, path, given, complete=not _is_partial(kind, node))
    if kind in {"network", "loss"}:
        problems += [
            f"{place}={number}: expected a size, at most {_LARGEST:,}"
            for place, number in _numbers_in(arguments, path)
            if abs(number) > _LARGEST
        ]
    return problems


def at_scale(arch: Mapping[str, Any], scale: int, plugins: Sequence[str] = ()) -> dict[str, Any]:
    """Return a network's node with `scale` put in: into it, or into the networks inside it.

    One whose constructor takes no scale stays as it is.
    """
    inner = {k: at_scale(value, scale, plugins) for k, value in arch.items() if is_node(value)}
    if "scale" not in arch and (inner or not _takes_scale(arch, plugins)):
        return {**arch, **inner}
    return {**arch, **inner, "scale": scale}


def _takes_scale(arch: Mapping[str, Any], plugins: Sequence[str]) -> bool:
    try:
        target = resolve_target(arch.get("_target_"), "arch", plugins)
        return "scale" in inspect.signature(target).parameters
    except (ConfigError, TypeError, ValueError):
        return True  # the check of the node reports what is wrong with it


def is_node(value: Any) -> bool:
    """Whether a value of a config describes a component."""
    return isinstance(value, Mapping) and "_target_" in value


def nodes_in(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (config path, node) of the outermost nodes in a value, in lists and mappings too."""
    if depth > _DEEPEST:
        raise ConfigError(f"{path}: lies deeper than {_DEEPEST} lists and mappings")
    if is_node(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from nodes_in(item, f"{path}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from nodes_in(item, f"{path}[{position}]", depth + 1)


def _made(
    node: Mapping[str, Any],
    path: str,
    plugins: Sequence[str],
    kind: str | None,
    runtime: Mapping[str, Any],
) -> Any:
    target = resolve_target(node["_target_"], path, plugins, kind)
    arguments = {}
    for name, value in _arguments(node).items():
        inner = _kind_inside(target, name, plugins)
        arguments[name] = _value(value, f"{path}.{name}", plugins, inner)
    call = functools.partial(target, **{**arguments, **runtime})
    return call if _is_partial(kind, node) else _called(call, f"{path}: {node['_target_']}", path)


def _value(value: Any, path: str, plugins: Sequence[str], kind: str | None) -> Any:
    """Return an argument with the components inside it made, and all else copied."""
    if is_node(value):
        return _made(value, path, plugins, kind, {})
    if isinstance(value, Mapping):
        return {k: _value(item, f"{path}.{k}", plugins, kind) for k, item in value.items()}
    if isinstance(value, list | tuple):
        return [_value(item, f"{path}[{n}]", plugins, kind) for n, item in enumerate(value)]
    return copy.copy(value)


def _called(call: Callable[[], Any], where: str, path: str) -> Any:
    """Call a constructor; what it raises is reported with the config path, whatever it is."""
    try:
        return call()
    except CheckpointError as err:  # a file that the component needs
        raise CheckpointError(f"{path}: {err}") from err
    except SRTrainError:
        raise
    except Exception as err:
        if is_out_of_memory(err):
            text = f"does not fit into memory: {_first_lines(err)}"
        elif isinstance(err, OSError) and err.filename is not None:
            text = f"{err.filename}: {err.strerror}"
        elif isinstance(err, ValueError | TypeError):
            text = _first_lines(err)
        else:
            text = f"{type(err).__name__}: {_first_lines(err)}"
        raise ConfigError(f"{where}: {text}") from err


def _first_lines(err: BaseException) -> str:
    """Return what an error of another library says, without its stack of C++ frames."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return " ".join(lines[:3])[:500] or type(err).__name__


def _arguments(node: Mapping[Any, Any]) -> dict[Any, Any]:
    return {key: value for key, value in node.items() if not _is_reserved(key)}


def _is_reserved(key: object) -> bool:
    """Whether a key is written as those by which Hydra steers how components are made."""
    return isinstance(key, str) and len(key) > 2 and key.startswith("_") and key.endswith("_")


def _reserved(node: Mapping[Any, Any], kind: str | None) -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if key == "_partial_":
            if not isinstance(value, bool):
                yield f"_partial_={shown(value)}", "expected true"
            elif value is not _takes_rest(kind) and kind is not None:
                yield f"_partial_={shown(value)}", f"expected {shown(not value)} here"
        elif _is_reserved(key) and key != "_target_":
            yield key, "no such key; a component has _target_ and the arguments of its class"


def _takes_rest(kind: str | None) -> bool:
    """Whether components of a kind are made later, when there is what they need."""
    return kind == "optimizer"


def _is_partial(kind: str | None, node: Mapping[str, Any]) -> bool:
    return _takes_rest(kind) or (kind is None and node.get("_partial_") is True)


def _kind_inside(target: type, name: str, plugins: Sequence[str]) -> str | None:
    """Return the kind of component that an argument may be; None: only a plain value.

    A class says so by annotating it as a module. A user's own class need not.
    """
    from torch import nn

    hint = hints_of(target).get(name)
    if hint is not None and mentions(hint, nn.Module):
        return "network"
    own = any(f"{target.__module__}.".startswith(f"{package}.") for package in plugins)
    return "part" if own else None


def _numbers_in(value: Any, path: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not is_node(item):
                yield from _numbers_in(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            yield from _numbers_in(item, f"{path}[{position}]")
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path, value


def _no_component(node: Any, path: str, kind: str | None) -> str:
    """Say that there is no component where one belongs, and how to choose one."""
    what = "component" if kind is None else KINDS[kind].name
    if isinstance(node, Mapping) and node:
        keys = ", ".join(map(str, list(node)[:5]))
        found = f"found {keys}, but no _target_"
    else:
        found = f"found {shown(node)}"
    article = "an" if what[0] in "aeio" else "a"
    return f"{path}: expected {article} {what} with a _target_, {found}"
