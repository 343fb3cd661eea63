"""The network that a file of weights describes: data until it has been found to fit the file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from sr_train.api.errors import CheckpointError
from sr_train.api.text import brief
from sr_train.config.build import is_node, node_problems, resolve_target
from sr_train.engine.fitting import fit_of
from sr_train.engine.weights import Weights, check_fit
from sr_train.io.weight_files import is_dense

_DEEPEST = 8
"""Networks inside networks."""

_DEEPEST_DATA = 4 * _DEEPEST
_LARGEST = 10**6
"""Of the whole numbers among a file's arguments: blocks, channels, sides."""

_GROWTH, _MARGIN = 4, 1000
"""Parameters and modules that a network may have: so many times the file's tensors, and more."""


class _TooLargeError(Exception):
    """A constructor makes far more than the file holds."""


def network_of_card(weights: Weights, plugins: list[str], *, strict: bool) -> nn.Module:
    """Build the network that a file describes, and the networks inside it.

    Nothing but networks of the allowed packages is called; all else in the arguments is data. The
    network is first made without memory and compared with the file, so that no file can ask for
    more than it holds.

    Args:
        weights: with a card that names a class.
        plugins: the user's packages.
        strict: raise where names and shapes differ.

    Raises:
        ConfigError: if a class lies outside the allowed packages or is no network.
        CheckpointError: if its constructor does not take the arguments, or makes another network.
    """
    card = weights.card
    assert card is not None
    where = f"checkpoint={weights.source}"
    node = {**card.arguments, "_target_": card.architecture}
    _check_data(node, where)
    _check_classes(node, where, plugins)
    problems = node_problems(node, "arguments", plugins, kind="network")
    if problems:
        told = "; ".join(brief(problem, 200) for problem in problems[:5])
        raise CheckpointError(f"{where}: its metadata does not make a network: {told}")
    most = _GROWTH * len(weights.tensors) + _MARGIN
    outline = _outline(node, where, plugins, most)
    if outline is not None:
        fit = fit_of(outline, weights.tensors, values=())
        check_fit(fit, outline, weights, strict=strict)
        _check_size(outline, weights, where)
    with _told(where, card.architecture), _limited(most):
        return _made(node, plugins)


def _check_data(value: Any, where: str, depth: int = 0) -> None:
    """Refuse numbers that a constructor could count up to until the memory is full."""
    if depth > _DEEPEST_DATA:
        raise CheckpointError(f"{where}: nests its arguments deeper than {_DEEPEST_DATA} times")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise CheckpointError(
            f"{where}: its metadata says {brief(value, 20)}, more than any size of a network "
            f"({_LARGEST:,}); it is damaged, or needs arch=... and scale=... beside it"
        )
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_data(item, where, depth + 1)


def _check_classes(node: Mapping[str, Any], where: str, plugins: list[str], depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise CheckpointError(f"{where}: networks inside networks, more than {_DEEPEST} deep")
    dotted = node["_target_"]
    if not isinstance(dotted, str) or len(dotted) > 200:
        raise CheckpointError(f"{where}: names {brief(dotted)}, no class")
    resolve_target(dotted, where, plugins, "network")
    for value in node.values():
        if is_node(value):
            _check_classes(value, where, plugins, depth + 1)


def _made(node: Mapping[str, Any], plugins: list[str]) -> nn.Module:
    factory = resolve_target(node["_target_"], "checkpoint", plugins, "network")
    arguments = {
        name: _made(value, plugins) if is_node(value) else value
        for name, value in node.items()
        if name != "_target_"
    }
    net = factory(**arguments)
    assert isinstance(net, nn.Module)
    return net


def _outline(
    node: Mapping[str, Any], where: str, plugins: list[str], most: int
) -> nn.Module | None:
    """Return the network without memory; None where its constructor needs numbers."""
    try:
        with _told(where, str(node["_target_"])), _limited(most), torch.device("meta"):
            return _made(node, plugins)
    except CheckpointError as err:
        if "meta" in str(err.__cause__):
            return None
        raise


def _check_size(outline: nn.Module, weights: Weights, where: str) -> None:
    """Refuse a network far larger than the file, which only `strict=false` comes to."""
    asked = sum(value.numel() for value in outline.state_dict().values())
    held = sum(value.numel() for value in weights.tensors.values() if is_dense(value))
    if asked > _GROWTH * held + 2**24:
        raise CheckpointError(
            f"{where}: describes a network of {asked:,} numbers and holds {held:,}; it is damaged"
        )


@contextmanager
def _told(where: str, architecture: str) -> Iterator[None]:
    """Turn whatever a constructor says of a file's arguments into an error that names the file."""
    try:
        yield
    except _TooLargeError as err:
        raise CheckpointError(
            f"{where}: describes a network of far more weights than it holds; it is damaged"
        ) from err
    except Exception as err:  # a class, perhaps a user's own, may raise anything
        kind = type(err).__name__
        raise CheckpointError(
            f"{where}: its metadata does not make a network: {brief(architecture)}: "
            f"{brief(str(err) or kind, 300)}"
        ) from err


@contextmanager
def _limited(most: int) -> Iterator[None]:
    """Let constructors make so many parameters, and so many modules, and no more."""
    counts = {"parameters": 0, "modules": 0}

    def count(kind: str, limit: int) -> None:
        counts[kind] += 1
        if counts[kind] > limit:
            raise _TooLargeError

    hooks = (
        register_module_parameter_registration_hook(lambda *_: count("parameters", most)),
        register_module_module_registration_hook(lambda *_: count("modules", 10 * most)),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
