"""The one place that turns a `_target_` node into an object."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pkgutil import resolve_name
from typing import Any, Literal, Union

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from sr_train.ops.errors import CheckpointError, ConfigError, SRTrainError, did_you_mean

EXTRAS = {"pytorch_optimizer": "optimizers"}
"""Packages that shipped configs name but a plain install lacks, and the extra that brings each."""

TARGET_PACKAGES = ("archs", "losses", "data", "sr_train", "torch.optim", "torch.nn", *EXTRAS)
"""Where a `_target_` may point, beside the packages that the user lists in `plugins`."""

_PRIMITIVES = (int, float, bool, str, type(None))


def build(node: Mapping[str, Any], path: str, plugins: Sequence[str] = (), **runtime: Any) -> Any:
    """Make the object a node describes; the node's own arguments are plain Python.

    Args:
        node: a dict with `_target_`; `_partial_: true` gives a callable instead.
        path: where the node stands in the config, for messages.
        plugins: the user's packages.
        runtime: arguments that only exist at run time; they win over the node's.

    Raises:
        ConfigError: naming the path, if the target or an argument does not fit.
        CheckpointError: naming it, too, if a file that the component needs does not.
    """
    problems = node_problems(node, path, plugins, runtime)
    if problems:
        raise ConfigError("; ".join(problems))
    try:
        return instantiate(dict(node), _convert_="all", **runtime)
    except InstantiationException as err:
        cause = err.__cause__
        if isinstance(cause, CheckpointError):  # a file that the component needs
            raise CheckpointError(f"{path}: {cause}") from cause
        if isinstance(cause, SRTrainError):
            raise cause from None
        if isinstance(cause, ValueError | TypeError):
            raise ConfigError(f"{path}: {node['_target_']}: {cause}") from cause
        raise (cause or err) from None


def node_problems(
    node: Any, path: str, plugins: Sequence[str] = (), runtime: Mapping[str, Any] | None = None
) -> list[str]:
    """Check a node without making anything: target, argument names, required ones, plain types."""
    if not _is_node(node):
        return [f"{path}: expected a component with a _target_, found {node!r}"]
    try:
        target = resolve_target(str(node["_target_"]), path, plugins)
    except ConfigError as err:
        return [str(err)]
    arguments = {k: v for k, v in node.items() if k not in {"_target_", "_partial_"}}
    problems = []
    for key, value in arguments.items():
        if _is_node(value):
            problems += node_problems(value, f"{path}.{key}", plugins)
    complete = not node.get("_partial_", False)
    problems += _signature_problems(target, arguments, path, set(runtime or ()), complete)
    return problems


def at_scale(arch: Mapping[str, Any], scale: int, plugins: Sequence[str] = ()) -> dict[str, Any]:
    """Return a network's node with `scale` put in: into it, or into the networks inside it.

    One whose constructor takes no scale stays as it is.
    """
    inner = {k: at_scale(value, scale, plugins) for k, value in arch.items() if _is_node(value)}
    if "scale" not in arch and (inner or not _takes_scale(arch, plugins)):
        return {**arch, **inner}
    return {**arch, **inner, "scale": scale}


def _takes_scale(arch: Mapping[str, Any], plugins: Sequence[str]) -> bool:
    try:
        target = resolve_target(str(arch.get("_target_")), "arch", plugins)
        return "scale" in inspect.signature(target).parameters
    except (ConfigError, TypeError, ValueError):
        return True  # the check of the node tells what is wrong with it


def _is_node(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def resolve_target(dotted: str, path: str, plugins: Sequence[str] = ()) -> Callable[..., Any]:
    """Import what a `_target_` names.

    Raises:
        ConfigError: if it lies outside the allowed packages or does not exist.
    """
    allowed = (*TARGET_PACKAGES, *plugins)
    if not any(dotted.startswith(f"{package}.") for package in allowed):
        raise ConfigError(
            f"{path}._target_={dotted}: outside the allowed packages ({', '.join(allowed)}); "
            f"add your own package by plugins=[{dotted.split('.')[0]}]"
        )
    try:
        target = resolve_name(dotted)
    except Exception as err:
        raise ConfigError(f"{path}._target_={dotted}: {_missing(dotted, err)}") from err
    if not callable(target):
        raise ConfigError(f"{path}._target_={dotted}: expected a class or a function")
    return target


def _missing(dotted: str, err: Exception) -> str:
    module_name, _, name = dotted.rpartition(".")
    try:
        module = import_module(module_name)
    except ImportError as cause:
        extra = EXTRAS.get(dotted.split(".")[0])
        hint = "" if extra is None else f'; pip install "sr_train[{extra}]"'
        return f"cannot be imported: {cause}{hint}"
    except Exception as cause:
        return f"importing {module_name} fails: {type(cause).__name__}: {cause}"
    public = [word for word in vars(module) if not word.startswith("_")]
    return f"{module_name} has no {name!r}{did_you_mean(name, public)}"


def _signature_problems(
    target: Callable[..., Any],
    arguments: Mapping[str, Any],
    path: str,
    runtime: set[str],
    complete: bool,
) -> list[str]:
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return []  # a builtin without a signature: its constructor will tell
    kinds = {parameter.kind for parameter in parameters.values()}
    known = [name for name in parameters if name not in {"self", *runtime}]
    label = getattr(target, "__name__", str(target))
    problems = []
    hints = _hints(target)
    for name, value in arguments.items():
        if name not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
            problems.append(
                f"{path}.{name}: {label} has no such argument{did_you_mean(name, known)}"
            )
        elif name in hints and not _fits(value, hints[name]):
            problems.append(
                f"{path}.{name}={value!r}: expected {_shown(hints[name])}, "
                f"found {type(value).__name__}"
            )
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty and parameter.kind in {
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        }
        if complete and required and name not in arguments and name not in runtime:
            problems.append(f"{path}.{name}: {label} needs this argument, found none")
    return problems


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
    try:
        return typing.get_type_hints(function)
    except Exception:
        return {}  # annotations that do not resolve say nothing


def _fits(value: Any, hint: Any) -> bool:
    """Compare a plain value with a plain annotation; what is not plain fits."""
    if typing.get_origin(hint) in {Union, types.UnionType}:
        return any(_fits(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    if hint not in _PRIMITIVES:
        plain = hint is Any or not isinstance(hint, type)
        return plain or not isinstance(value, _PRIMITIVES) or isinstance(value, hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _shown(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return getattr(hint, "__name__", None) or str(hint)
