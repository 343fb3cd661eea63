"""Whether the arguments of a node fit the signature of its class: names, required ones, types."""

import inspect
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union

from sr_train.api.errors import did_you_mean

_PRIMITIVES = (int, float, bool, str, type(None))

_WORDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}
"""What people call the types of a config."""

_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}


def signature_problems(
    target: type,
    arguments: Mapping[Any, Any],
    path: str,
    runtime: Collection[str] = (),
    *,
    complete: bool = True,
) -> list[str]:
    """Return every argument that a class does not take, that is missing, or of another type.

    Args:
        target: the class.
        arguments: by name, plain Python.
        path: where the node stands in the config.
        runtime: names that the program gives at run time.
        complete: whether every required argument must be there.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return []  # a builtin without a signature: its constructor will report it
    kinds = {parameter.kind for parameter in parameters.values()}
    known = [name for name in parameters if name not in {"self", *runtime}]
    problems = []
    hints = hints_of(target)
    for name, value in arguments.items():
        if name not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
            hint = did_you_mean(str(name), known)
            problems.append(f"{path}.{name}: {target.__name__} has no such argument{hint}")
        elif name in hints and not fits(value, hints[name]):
            wanted = expected(hints[name])
            found = "" if wanted.startswith("one of") else f", found {_found(value, hints[name])}"
            problems.append(f"{path}.{name}={shown(value)}: expected {wanted}{found}")
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty and parameter.kind in {
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            inspect.Parameter.KEYWORD_ONLY,
        }
        if complete and required and name not in arguments and name not in runtime:
            problems.append(f"{path}.{name}: {target.__name__} needs this argument, found none")
    return problems


def taken_by(target: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some arguments that a class's constructor names."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return dict(arguments)
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in parameters}


def hints_of(target: type) -> dict[str, Any]:
    """Return the annotations of a class's constructor; none where they do not resolve."""
    try:
        return typing.get_type_hints(target.__init__)  # type: ignore[misc]
    except Exception:
        return {}  # annotations that do not resolve say nothing


def options_of(hint: Any) -> tuple[Any, ...]:
    """Return what a union allows; of another annotation, only itself."""
    if typing.get_origin(hint) in {Union, types.UnionType}:
        return tuple(each for option in typing.get_args(hint) for each in options_of(option))
    return (hint,)


def takes_text(hint: Any) -> bool:
    """Whether an annotation allows text of any kind: `str` or a path."""
    return any(option in (str, Path) for option in options_of(hint))


def takes_texts(hint: Any) -> bool:
    """Whether an annotation allows a list of texts."""
    lists = [option for option in options_of(hint) if typing.get_origin(option) is not None]
    return any(any(map(takes_text, typing.get_args(option)[:1])) for option in lists)


def mentions(hint: Any, wanted: type) -> bool:
    """Whether a class, or one that derives from it, stands anywhere in an annotation."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return issubclass(hint, wanted)
    return any(mentions(option, wanted) for option in typing.get_args(hint))


def fits(value: Any, hint: Any) -> bool:
    """Compare a plain value with a plain annotation; what is not plain fits."""
    options = options_of(hint)
    if len(options) > 1:
        return any(fits(value, option) for option in options)
    origin = typing.get_origin(hint)
    if origin is Literal:
        return value in typing.get_args(hint)
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return _items_fit(value, origin, typing.get_args(hint))
    if hint not in _PRIMITIVES:
        plain = hint is Any or not isinstance(hint, type)
        return plain or not isinstance(value, _PRIMITIVES) or isinstance(value, hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _items_fit(value: Any, origin: type, options: tuple[Any, ...]) -> bool:
    """Compare a value with an annotation such as `Sequence[int]` or `Mapping[str, float]`."""
    if issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            return False
        keys, items = options if len(options) == 2 else (Any, Any)
        return all(fits(key, keys) and fits(item, items) for key, item in value.items())
    if not isinstance(value, list | tuple):
        return False
    alike = len(options) == 1 or (len(options) == 2 and options[1] is Ellipsis)
    if not alike:
        return not options or (len(value) == len(options) and all(map(fits, value, options)))
    return all(fits(item, options[0]) for item in value)


def word_of(value: Any) -> str:
    """Return what people call the type of a value."""
    return _WORDS.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """Return a value as a config has it, shortened."""
    text = _written(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if is_dataclass(value) and not isinstance(value, type):
        return _written(asdict(value))
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    return str(value)


def expected(hint: Any) -> str:
    """Return an annotation in words."""
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    options = options_of(hint)
    if len(options) > 1:
        words = list(dict.fromkeys(map(expected, options)))
        return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    if hint is type(None):
        return "null"
    if typing.get_origin(hint) is not None:
        return _container(hint)
    if is_dataclass(hint):
        return "a mapping"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(hint.__members__)
    if isinstance(hint, type):
        return "text" if issubclass(hint, Path) else _WORDS.get(hint, hint.__name__)
    return str(hint)


def _container(hint: Any) -> str:
    """Return in words what kind of container an annotation asks for."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    items = {_PLURALS.get(option) for option in options if option is not Ellipsis}
    plural = items.pop() if len(items) == 1 else None
    return "a list" if plural is None else f"a list of {plural}"


def _found(value: Any, hint: Any) -> str:
    """Return what was found in words; of a list, also the first item that does not fit."""
    lists = [each for each in options_of(hint) if typing.get_origin(each) is not None]
    if not isinstance(value, list | tuple) or not lists:
        return word_of(value)
    options = typing.get_args(lists[0])
    wrong = [item for item in value if options and not fits(item, options[0])]
    return f"a list with {word_of(wrong[0])}" if wrong else f"a list of {len(value)}"
