"""What a file of weights says about itself, written and read."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from sr_train import __version__
from sr_train.api.errors import CheckpointError
from sr_train.api.text import brief
from sr_train.engine.checksum import checksum

log = logging.getLogger(__name__)

LAYOUT = 2
"""Number of the layout of our .safetensors files; those without a number carry no checksum."""

_CHECKSUM = "sr_train_checksum"
_KINDS = ("ema", "swa", "live")

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class ModelCard:
    """What a file of weights says about itself."""

    architecture: str
    """Dotted path of the class; empty: the file says no class, or none with its arguments."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of its constructor, plain Python."""
    scale: int | None = 1
    """None: the file does not say it."""
    step: int = 0
    weights: str = "live"
    """`ema`, `swa` or `live`."""
    metrics: dict[str, float] = field(default_factory=dict)
    padding: dict[str, int] = field(default_factory=dict)
    """`size_multiple` and `min_size` that inputs must be padded to, where the network does not do
    so itself. For other programs: this one finds it again."""

    def as_metadata(self) -> dict[str, str]:
        """Return the header of a safetensors file: only strings."""
        padding = {"padding": json.dumps(self.padding)} if self.padding else {}
        return {
            "format": "pt",
            "producer": "sr_train",
            "layout": str(LAYOUT),
            "architecture": self.architecture,
            "arguments": json.dumps(self.arguments),
            "scale": str(self.scale),
            "step": str(self.step),
            "weights": self.weights,
            "metrics": json.dumps(self.metrics),
            "versions": json.dumps(versions()),
            **padding,
        }


def versions() -> dict[str, str]:
    """Return the versions that write a file."""
    return {"sr_train": __version__, "torch": str(torch.__version__)}


def sealed(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return metadata with a checksum over it and over the tensors beside it."""
    return {**metadata, _CHECKSUM: _checksum_of(metadata, tensors)}


def read_card(
    metadata: Mapping[str, str], tensors: Mapping[str, Tensor], path: Path
) -> ModelCard | None:
    """Read and verify the metadata of a safetensors file; None: another program wrote it.

    What is missing or cannot be read is left at its default, and reported in the log.

    Raises:
        CheckpointError: if the file is not what was written, or has a newer layout.
    """
    ours = metadata.get("producer") == "sr_train"
    if not ours and _CHECKSUM not in metadata:
        return None
    _verify(metadata, tensors, path)
    reader = _Reader(metadata)
    architecture = reader.value("architecture", _name, "")
    arguments = reader.value("arguments", _arguments, None)
    card = ModelCard(
        architecture="" if arguments is None else architecture,
        arguments=arguments or {},
        scale=reader.value("scale", _count, None),
        step=reader.value("step", _step, 0),
        weights=reader.value("weights", _kind, "live"),
        metrics=reader.value("metrics", _metrics, {}),
    )
    if reader.faults:
        log.warning("warning: %s: metadata left unread: %s", path, "; ".join(reader.faults))
    return card


def newer(path: Path, layout: object, known: int, written_by: object) -> CheckpointError:
    """Return the error of a file that a newer version of this program wrote."""
    version = written_by.get("sr_train") if isinstance(written_by, Mapping) else None
    said = "" if version is None else f" ({brief(version, 20)})"
    return CheckpointError(
        f"{path}: written by a newer sr_train{said}, in layout {brief(layout, 20)}; this one "
        f"({__version__}) reads up to layout {known}. Update sr_train"
    )


def _verify(metadata: Mapping[str, str], tensors: Mapping[str, Tensor], path: Path) -> None:
    layout = _layout(metadata)
    if layout is not None and layout > LAYOUT:
        raise newer(path, layout, LAYOUT, _decoded(metadata.get("versions", "")))
    told = {key: value for key, value in metadata.items() if key != _CHECKSUM}
    if _CHECKSUM not in metadata and layout == 1:
        log.info("%s: unverified, it was written without a checksum", path)
    elif metadata.get(_CHECKSUM) != _checksum_of(told, tensors):
        raise CheckpointError(
            f"{path}: damaged, its tensors and metadata are not those that its checksum is of"
        )


def _layout(metadata: Mapping[str, str]) -> int | None:
    """Return the number of the layout, 1 where there is none; None: it is no number."""
    text = metadata.get("layout", "1")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def _checksum_of(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    return checksum({"metadata": dict(metadata), "tensors": dict(tensors)})


class _Reader:
    """Take values out of metadata one by one, and note what cannot be read."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata
        self.faults: list[str] = []

    def value(self, key: str, read: Callable[[str], ValueT], otherwise: ValueT) -> ValueT:
        text = self._metadata.get(key)
        if text is None:
            self.faults.append(f"{key} is missing")
            return otherwise
        try:
            return read(text)
        except ValueError as err:
            self.faults.append(f"{key}={brief(text, 40)!r} is {err}")
            return otherwise


def _name(text: str) -> str:
    if not text or len(text) > 200 or not all(part.isidentifier() for part in text.split(".")):
        raise ValueError("no dotted name of a class")
    return text


def _arguments(text: str) -> dict[str, Any]:
    found = _decoded(text)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ValueError("no whole number from 1 up")
    return int(text)


def _step(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError("no whole number from 0 up")
    return int(text)


def _kind(text: str) -> str:
    if text not in _KINDS:
        raise ValueError(f"none of {', '.join(_KINDS)}")
    return text


def _metrics(text: str) -> dict[str, float]:
    found = _decoded(text)
    if not isinstance(found, dict) or any(type(v) not in (int, float) for v in found.values()):
        raise ValueError("no JSON object of numbers")
    return dict(found)


def _decoded(text: str) -> Any:
    """Return what a JSON text says, None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
