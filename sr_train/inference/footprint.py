"""How much memory a network takes for an input, found by two small ones."""

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sr_train.utils.memory import available_bytes

_SIDES = (48, 96)
"""LQ pixels of the two inputs."""
_BESIDE_TENSORS = 2.0
"""What a process takes for each byte of live tensors: up to 1.9 was seen on CPUs, where oneDNN
keeps copies in its own layouts."""
_SHARE_OF_FREE = 0.7
_LINEAR = 1.2
"""The power of growth between the two inputs below which it is taken to be 1."""


@dataclass(frozen=True)
class Footprint:
    """The memory of a forward as a power of the number of LQ pixels."""

    pixels: int
    bytes: float
    """At so many pixels."""
    power: float
    """1 for convolutions and windows, 2 where all pixels are compared with all."""

    def most_pixels(self, room: float) -> int:
        """Return how many LQ pixels fit into so many bytes."""
        return int(self.pixels * (room / self.bytes) ** (1 / self.power))


def measure_footprint(
    forward: Callable[[Tensor], Tensor], lq: Tensor, device: torch.device
) -> Footprint:
    """Run a network on two corners of an input and note the most bytes of tensors alive at a time.

    The same network and kind of input give the same figure, as nothing but tensors is counted.

    Args:
        forward: (B, ..., h, w) on the device to (B, ..., h * scale, w * scale).
        lq: (B, ..., H, W).
        device: where windows are sent.
    """
    points = []
    for side in _SIDES:
        corner = lq[..., :side, :side].to(device)
        with _LiveTensors() as live, torch.no_grad():
            forward(corner)
        points.append((corner.shape[-2] * corner.shape[-1], max(live.peak, 1)))
    (few, small), (many, large) = points
    power = math.log(large / small) / math.log(many / few) if many > few else 1.0
    # Where all pixels are compared with all, that is little yet at sizes as small as these.
    return Footprint(many, large * _BESIDE_TENSORS, 1.0 if power < _LINEAR else 2.0)


def room_for_tensors(device: torch.device) -> float:
    """Return the bytes that a forward may take on a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (free + reserved) * _SHARE_OF_FREE
    return available_bytes() * _SHARE_OF_FREE


class _LiveTensors(TorchDispatchMode):
    """Adds up the bytes of what operations return, until it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._bytes = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._note(leaf.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return

        def gone(_: object) -> None:
            if self._alive.pop(key, None) is not None:
                self._bytes -= size

        self._alive[key] = weakref.ref(storage, gone)
        self._bytes += size
        self.peak = max(self.peak, self._bytes)
