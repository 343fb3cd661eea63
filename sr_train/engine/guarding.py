"""What the step takes from parts that a config names: checked, and named where it is not right."""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from sr_train.api.errors import PluginError
from sr_train.engine.distributed import fault_of_ranks
from sr_train.inference.calling import call_network, inner, kind_of, shape_of

log = logging.getLogger(__name__)

_keeps_input: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], bool]] = WeakKeyDictionary()
"""Of each network that was called: whether it leaves its input as it is, by how it is called."""


def called(net: nn.Module, fed: Tensor, where: str, **options: bool) -> Any:
    """Return what a network makes of an input, which stays as it is.

    The first call of each network gets a copy of the input, whose version tells whether it was
    changed in place; a network that does so gets a copy each time, the others no more.

    Args:
        net: the network, or its distributed wrapper.
        fed: its input.
        where: config path of the network.
        options: further arguments, such as `with_features` of a discriminator.

    Raises:
        PluginError: naming network, input and exception, where it raises one.
    """
    part = inner(net)
    known = _keeps_input.setdefault(part, {})
    manner = (part.training, *sorted(options.items()))
    keeps = known.get(manner)
    given = fed if keeps else fed.clone()
    version = given._version
    made = call_network(net, given, where, lambda err: fault_of_ranks(err) is not None, **options)
    is_changed = given._version != version
    if is_changed and keeps:
        raise PluginError(
            f"{where}: {type(part).__name__} changed its input {shape_of(fed)} in place in this "
            "call, and in none before; let it work on a copy: x = x * 255, not x.mul_(255)"
        )
    if keeps is None:
        known[manner] = not is_changed
        if is_changed:
            _say_copied(where, type(part).__name__)
    return made


@lru_cache
def _say_copied(where: str, label: str) -> None:
    """Say once that a network works on copies."""
    log.info("%s: %s changes its input in place; it is given a copy", where, label)


def checked_logits(made: Any, net: nn.Module, fed: Tensor) -> Any:
    """Return what a discriminator makes: a tensor, or a sequence of tensors.

    Raises:
        PluginError: saying what it is instead.
    """
    parts = [made] if isinstance(made, Tensor) else made
    fits = isinstance(parts, list | tuple) and len(parts) > 0
    if not fits or not all(isinstance(p, Tensor) and p.is_floating_point() for p in parts):
        label = type(inner(net)).__name__
        raise PluginError(
            f"discriminator.arch: {label} returned {kind_of(made)} for {shape_of(fed)}; expected "
            "a tensor of logits, or a list of tensors"
        )
    return made


def checked_features(made: Any, net: nn.Module, fed: Tensor) -> tuple[Any, Sequence[Tensor]]:
    """Return logits and features of a discriminator that was asked for both.

    Raises:
        PluginError: saying what it returned instead.
    """
    if not isinstance(made, list | tuple) or len(made) != 2:
        raise PluginError(
            f"discriminator.arch: {type(net).__name__} returned {kind_of(made)} for "
            "with_features=True; expected (logits, features)"
        )
    logits, features = made
    if not isinstance(features, list | tuple) or not all(isinstance(f, Tensor) for f in features):
        raise PluginError(
            f"discriminator.arch: {type(net).__name__} returned {kind_of(features)} for its "
            "features; expected a list of tensors"
        )
    return checked_logits(logits, net, fed), features
