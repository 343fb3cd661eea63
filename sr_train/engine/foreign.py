"""Finding a network's state dict in what another program saved."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sr_train.api.errors import CheckpointError
from sr_train.api.text import brief, first_few

log = logging.getLogger(__name__)

_AVERAGED = (
    *("params_ema", "params-ema", "ema_params", "generator_ema", "netG_ema", "net_g_ema"),
    *("g_ema", "G_ema", "ema_model", "model_ema", "state_dict_ema", "ema"),
)
_LIVE = ("params", "generator", "netG", "net_g", "G", "g")
_CRITIC = ("discriminator", "netD", "net_d", "D", "d")
_ANY = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "module")

_KEYS = {
    "live": (*_LIVE, *_AVERAGED, *_ANY),
    "net_d": (*_CRITIC, "params", *_ANY),
}
"""Keys under which programs keep the state dict of some weights, best first."""
_AVERAGED_FIRST = (*_AVERAGED, *_LIVE, *_ANY)

_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile give all names."""

_PREFIXES = {"net_d": ("discriminator.", "net_d.", "netD.")}
_OF_GENERATOR = (
    *("generator_ema.", "net_g_ema.", "netG_ema.", "g_ema."),
    *("generator.", "net_g.", "netG."),
)
"""Prefixes of a network where a state dict holds more than it, best first."""

_DEEPEST = 4
"""Wrappers inside wrappers."""


def state_dict_in(content: Any, path: Path, which: str = "ema") -> dict[str, Tensor]:
    """Find a state dict in what another program saved; take off its wrappers' prefixes.

    Args:
        content: plain containers and tensors.
        path: for messages.
        which: `live`: the generator's weights, `net_d`: the discriminator's, else the
            generator's averaged ones; of those that are there.

    Raises:
        CheckpointError: if there is none.
    """
    found = _unwrapped(content, _KEYS.get(which, _AVERAGED_FIRST))
    tensors = _tensors_of(found)
    if not tensors:
        raise CheckpointError(f"{path}: holds no state dict; {_told(content)}")
    left_out = [key for key in found if key not in tensors]
    if left_out:
        log.info("%s: no tensors, left out: %s", path.name, _listed(left_out))
    prefixes = _PREFIXES.get(which, _OF_GENERATOR)
    tensors = _network_alone(tensors, prefixes, path)
    while prefix := _shared_prefix(tensors, (*_WRAPPERS, *prefixes)):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _shared_prefix(tensors: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> str | None:
    return next((p for p in prefixes if all(name.startswith(p) for name in tensors)), None)


def _unwrapped(content: Any, keys: tuple[str, ...], depth: int = 0) -> Any:
    """Return the innermost dict that lies under keys of wrappers and holds tensors."""
    if isinstance(content, Mapping) and depth < _DEEPEST:
        for key in keys:
            inner = _unwrapped(content.get(key), keys, depth + 1)
            if _tensors_of(inner):
                return inner
    return content


def _tensors_of(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _told(content: Any) -> str:
    if not isinstance(content, Mapping):
        found = "nothing" if content is None else type(content).__name__
        return f"found {found}, expected tensors by their names"
    if not content:
        return "it is empty"
    return (
        f"found the keys {_listed(list(content), 6)}; expected tensors, or one of params_ema, "
        "params, state_dict, model"
    )


def _listed(names: list[Any], most: int = 5) -> str:
    return first_few([brief(name, 40) for name in names], most)


def _network_alone(
    tensors: dict[str, Tensor], prefixes: tuple[str, ...], path: Path
) -> dict[str, Tensor]:
    """Drop what a state dict holds beside one network: counters, other networks, losses."""
    for prefix in prefixes:
        kept = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        if kept:
            dropped = [name for name in tensors if name not in kept]
            if dropped:
                log.info(
                    "%s: taking %s*, leaving out %d others: %s",
                    path.name,
                    prefix,
                    len(dropped),
                    _listed(dropped),
                )
            return kept
    return tensors
