"""Files of weights: our own that describe themselves, and those of other programs."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sr_train import __version__
from sr_train.engine.checkpoint import load_plain, newest_state, read_state, write_atomically
from sr_train.ops.errors import CheckpointError, PluginError, did_you_mean
from sr_train.ops.names import to_own_names

log = logging.getLogger(__name__)

KINDS = ("ema", "live", "swa", "net_d")
"""What a training state may hold: averaged, live and SWA weights of the generator, and the
discriminator's."""

LAYOUTS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model")
"""Keys under which other programs keep a state dict, best first."""

PREFIXES = ("module.", "_orig_mod.", "net_g.", "generator.", "generator_ema.")

GENERATORS = ("generator_ema.", "generator.")
"""Prefixes of the generator where a file of another program holds more than it, best first."""


@dataclass(frozen=True)
class Card:
    """What a file of weights says about itself."""

    architecture: str
    """Dotted path of the class."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of its constructor, plain Python."""
    scale: int = 1
    step: int = 0
    weights: str = "live"
    """`ema`, `swa` or `live`."""
    metrics: dict[str, float] = field(default_factory=dict)

    def as_metadata(self) -> dict[str, str]:
        """Return the header of a safetensors file: strings alone."""
        versions = {"sr_train": __version__, "torch": str(torch.__version__)}
        return {
            "format": "pt",
            "producer": "sr_train",
            "architecture": self.architecture,
            "arguments": json.dumps(self.arguments),
            "scale": str(self.scale),
            "step": str(self.step),
            "weights": self.weights,
            "metrics": json.dumps(self.metrics),
            "versions": json.dumps(versions),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Card":
        return cls(
            architecture=metadata["architecture"],
            arguments=json.loads(metadata["arguments"]),
            scale=int(metadata["scale"]),
            step=int(metadata["step"]),
            weights=metadata["weights"],
            metrics=json.loads(metadata["metrics"]),
        )


@dataclass(frozen=True)
class Weights:
    """A state dict and, where the file names its architecture, its card."""

    tensors: dict[str, Tensor]
    card: Card | None
    source: Path


def save_weights(path: Path, net: nn.Module, card: Card) -> None:
    """Write a self-describing .safetensors file, atomically."""
    tensors = tensors_to_store(net)
    write_atomically(path, safetensors.torch.save(tensors, metadata=card.as_metadata()))


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
                f"{type(value).__name__}; a file of weights takes tensors alone"
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

    Args:
        path: the file or folder.
        which: one of `KINDS`, where a training state holds several; `ema` takes the live ones
            where there is no average.

    Raises:
        CheckpointError: saying what is wrong with which file.
    """
    if which not in KINDS:
        raise CheckpointError(f"weights={which}: unknown{did_you_mean(which, KINDS)}")
    if path.is_dir():
        return _from_run(path, which)
    if not path.exists():
        raise CheckpointError(f"checkpoint={path}: no such file or folder")
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    content = load_plain(path)
    if isinstance(content, dict) and "generator" in content and "format" in content:
        return _from_state(path, read_state(path), which)
    return Weights(_state_dict(content, path), None, path)


def load_into(net: nn.Module, weights: Weights, *, strict: bool = True) -> None:
    """Put weights into a network.

    Args:
        net: changed in place.
        weights: as read.
        strict: False takes what fits by name and shape and lists the rest in the log.

    Raises:
        CheckpointError: if something does not fit (strict), or nothing fits (not strict).
    """
    wanted = net.state_dict()
    given = to_own_names(net, weights.tensors)
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    shapes = [
        f"{name}: found {tuple(given[name].shape)}, expected {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    faults = [
        f"{len(names)} {label}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for label, names in (
            ("missing in the file", missing),
            ("unknown to the network", extra),
            ("of another shape", shapes),
        )
        if names
    ]
    kind = type(net).__name__
    if faults and strict:
        raise CheckpointError(
            f"{weights.source}: not weights of this {kind}:\n  - " + "\n  - ".join(faults)
        )
    fitting = {n: v for n, v in given.items() if n in wanted and v.shape == wanted[n].shape}
    if not fitting:
        raise CheckpointError(f"{weights.source}: nothing in it fits {kind} by name and shape")
    net.load_state_dict(fitting, strict=False)
    for fault in faults:
        log.warning("warning: %s: left out, %s", weights.source.name, fault)


def _from_run(folder: Path, which: str) -> Weights:
    checkpoints = folder / "checkpoints" if (folder / "checkpoints").is_dir() else folder
    last = checkpoints / "last.safetensors"
    if which == "ema" and last.is_file():
        return _from_safetensors(last)
    found = newest_state(checkpoints)
    if found is None:
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        raise CheckpointError(f"checkpoint={folder}: no checkpoint in it; found {inside}")
    return _from_state(*found, which)


def _from_state(path: Path, state: dict[str, Any], which: str) -> Weights:
    if which == "ema" and state["ema"] is None:
        which = "live"
    holder = {"net_d": "adversary", "live": None}.get(which, which)
    if holder is not None and state[holder] is None:
        raise CheckpointError(f"{path}: holds no {which} weights")
    if which == "swa" and int(state["swa"]["num_updates"]) == 0:
        raise CheckpointError(f"{path}: holds no swa weights yet; step swa.start is still ahead")
    tensors = state["net_g"] if holder is None else state[holder]["net"]
    if which == "net_d":
        return Weights(tensors, None, path)
    return Weights(tensors, Card(**state["card"], step=state["step"], weights=which), path)


def _from_safetensors(path: Path) -> Weights:
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: empty, 0 bytes")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as err:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged ({err})") from err
    if metadata.get("producer") != "sr_train":
        return Weights(_state_dict(tensors, path), None, path)
    return Weights(tensors, Card.from_metadata(metadata), path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """Find the state dict in what another program saved; take off its wrappers' prefixes."""
    for layout in LAYOUTS:
        if isinstance(content, dict) and isinstance(content.get(layout), dict):
            content = content[layout]
            break
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no state dict")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        found = ", ".join(map(str, list(content)[:6]))
        raise CheckpointError(
            f"{path}: holds no state dict; found the keys {found}, expected tensors, or one of "
            f"{', '.join(LAYOUTS)}"
        )
    tensors = _generator_alone(tensors, path)
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _generator_alone(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Drop what a file of mmagic's holds beside its generator: counters, critics, losses."""
    for prefix in GENERATORS:
        kept = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        if kept:
            dropped = [name for name in tensors if name not in kept]
            if dropped:
                shown = ", ".join(dropped[:5]) + (", ..." if len(dropped) > 5 else "")
                log.info(
                    "%s: taking %s*, leaving out %d others: %s",
                    path.name,
                    prefix,
                    len(dropped),
                    shown,
                )
            return kept
    return tensors
