"""Files of weights: our own that describe themselves, and those of other programs."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from sr_train.api.errors import CheckpointError, PluginError, did_you_mean
from sr_train.api.text import brief
from sr_train.engine.checkpoint import checked_state, newest_state, states, write_atomically
from sr_train.engine.fitting import Fit, fit_of
from sr_train.engine.foreign import state_dict_in
from sr_train.engine.model_card import ModelCard, read_card, sealed
from sr_train.engine.state_checks import is_state
from sr_train.io.weight_files import read_any

log = logging.getLogger(__name__)

KINDS = ("ema", "live", "swa", "net_d")
"""What a training state may hold: averaged, live and SWA weights of the generator, and the
discriminator's."""


@dataclass(frozen=True)
class Weights:
    """A state dict and, where the file names its architecture, its card."""

    tensors: dict[str, Tensor]
    card: ModelCard | None
    source: Path


def save_weights(path: Path, net: nn.Module, card: ModelCard) -> None:
    """Write a self-describing .safetensors file with a checksum inside, atomically."""
    tensors = tensors_to_store(net)
    metadata = sealed(card.as_metadata(), tensors)
    write_atomically(path, safetensors.torch.save(tensors, metadata=metadata))


def tensors_to_store(net: nn.Module) -> dict[str, Tensor]:
    """Return a network's state dict for a file, in which no two tensors share memory.

    Raises:
        PluginError: naming an entry that is no tensor.
    """
    tensors: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in net.state_dict().items():
        if not isinstance(value, Tensor):
            raise PluginError(
                f"arch: the state_dict of {type(net).__name__} holds {name!r}, "
                f"{type(value).__name__}; a file of weights takes only tensors"
            )
        stored = value.detach().cpu().contiguous()
        place = stored.untyped_storage().data_ptr()
        if place in places:  # tied weights have two names
            stored = stored.clone()
        places.add(place)
        tensors[name] = stored
    return tensors


def read_weights(path: Path, which: str = "ema") -> Weights:
    """Read weights from a run folder, a training state, a .safetensors or a .pth file.

    What a file is shows in its content, whatever its name.

    Args:
        path: the file or folder.
        which: one of `KINDS`, where a training state holds several; `ema` takes the live ones
            where there is no average.

    Raises:
        CheckpointError: saying what is wrong with which file.
    """
    if which not in KINDS:
        raise CheckpointError(f"weights={which}: unknown{did_you_mean(which, KINDS)}")
    try:
        if not path.exists():
            raise CheckpointError(f"checkpoint={path}: no such file or folder")
        return _from_run(path, which) if path.is_dir() else _from_file(path, which)
    except OSError as err:
        raise CheckpointError(f"checkpoint={path}: cannot be read ({err.strerror})") from err


def load_into(net: nn.Module, weights: Weights, *, strict: bool = True) -> None:
    """Put weights into a network.

    Args:
        net: changed in place.
        weights: as read.
        strict: False takes what fits by name and shape and lists the rest in the log.

    Raises:
        CheckpointError: if something does not fit (strict), nothing fits (not strict), or
            what fits holds no finite numbers.
    """
    fit = fit_of(net, weights.tensors)
    check_fit(fit, net, weights, strict=strict)
    net.load_state_dict(fit.fitting, strict=False)
    for misfit in fit.misfits:
        log.warning("warning: %s: left out, %s", weights.source.name, misfit)


def check_fit(fit: Fit, net: nn.Module, weights: Weights, *, strict: bool) -> None:
    """Raise where `load_into` would.

    Raises:
        CheckpointError: saying what does not fit.
    """
    kind, source = type(net).__name__, weights.source
    if fit.misfits and (strict or not fit.fitting):
        said = [f"not weights of this {kind}:", *fit.misfits]
        if not strict:
            said[0] = f"nothing in it fits {kind} by name and shape:"
        text = "\n  - ".join(said)
        raise CheckpointError(f"{source}: {text}" + (f"\n{fit.hint}" if fit.hint else ""))
    if fit.spoilt:
        raise CheckpointError(
            f"{source}: weights that no network can use:\n  - " + "\n  - ".join(fit.spoilt)
        )


def _from_run(folder: Path, which: str) -> Weights:
    checkpoints = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    last = checkpoints / "last.safetensors"
    if which == "ema" and last.is_file():
        try:
            return _from_file(last, which)
        except CheckpointError as err:
            beside = "".join(f"; take checkpoint={path}" for path in states(checkpoints)[:1])
            raise CheckpointError(f"{err}{beside}") from err
    found = newest_state(checkpoints)
    if found is None:
        names = sorted(entry.name for entry in folder.iterdir())
        inside = ", ".join(brief(name) for name in names[:8]) or "nothing"
        raise CheckpointError(f"checkpoint={folder}: no checkpoint in it; found {inside}")
    return _from_state(*found, which)


def _from_file(path: Path, which: str) -> Weights:
    content, metadata = read_any(path)
    if metadata is not None:
        card = read_card(metadata, content, path)
        tensors = content if card is not None else state_dict_in(content, path, which)
        return Weights(tensors, card, path)
    if is_state(content):
        return _from_state(path, checked_state(content, path), which)
    return Weights(state_dict_in(content, path, which), None, path)


def _from_state(path: Path, state: dict[str, Any], which: str) -> Weights:
    if which == "ema" and state["ema"] is None:
        which = "live"
    holder = {"net_d": "adversary", "live": None}.get(which, which)
    if holder is not None and state[holder] is None:
        raise CheckpointError(f"{path}: holds no {which} weights")
    if which == "swa" and float(state["swa"]["num_updates"]) == 0:
        raise CheckpointError(f"{path}: holds no swa weights yet; step swa.start is still ahead")
    held = state["net_g"] if holder is None else state[holder]["net"]
    tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    if which == "net_d":
        return Weights(tensors, None, path)
    told = {key: state["card"][key] for key in ("architecture", "arguments", "scale")}
    return Weights(tensors, ModelCard(**told, step=state["step"], weights=which), path)
