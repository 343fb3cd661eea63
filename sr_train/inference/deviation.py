"""How far tiles are from the whole, measured on the input itself."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sr_train.inference.tiling import Forward, Patch, Tiler

STEP = 1 / 255
"""A step of 8 bits; what deviates by less than this is as good as the whole."""


@dataclass(frozen=True)
class Deviation:
    """The difference of two predictions whose values are cut to [0, 1]."""

    largest: float
    """Of all values, in [0, 1]."""
    mean_square: float

    @property
    def psnr(self) -> float:
        """Return the PSNR between the two, dB."""
        return -10 * math.log10(self.mean_square) if self.mean_square > 0 else math.inf

    @property
    def is_small(self) -> bool:
        """Return whether no value is off by a step of 8 bits."""
        return self.largest < STEP

    def __str__(self) -> str:
        return f"up to {self.largest * 255:.1f}/255 (PSNR {self.psnr:.1f} dB between the two)"


class Comparison:
    """Compare a tiled prediction, patch by patch, with that of the whole.

    Args:
        forward: network, (B, ..., h, w) on the device to (B, ..., h * scale, w * scale).
        lq: (B, ..., H, W); the whole of it is run at once, now.
        device: where it is sent.
    """

    def __init__(self, forward: Forward, lq: Tensor, device: torch.device) -> None:
        with torch.no_grad():
            self._whole = forward(lq.to(device)).to("cpu", torch.float32).clamp(0, 1)
        self._largest = 0.0
        self._squares = 0.0
        self._count = 0

    def watched(self, patches: Iterator[Patch]) -> Iterator[Patch]:
        """Yield patches as they come, and take note of how far each is off."""
        for patch in patches:
            rows, columns = patch.pixels.shape[-2:]
            high = slice(patch.top, patch.top + rows)
            wide = slice(patch.left, patch.left + columns)
            apart = patch.pixels.clamp(0, 1).sub_(self._whole[..., high, wide])
            self._largest = max(self._largest, float(apart.abs().max()))
            self._squares += float(apart.square().sum(dtype=torch.float64))
            self._count += apart.numel()
            yield patch

    def result(self) -> Deviation:
        """Return the deviation of all patches that were watched."""
        return Deviation(self._largest, self._squares / max(self._count, 1))


def measure_deviation(tiler: Tiler, forward: Forward, lq: Tensor) -> Deviation:
    """Return how far an input that is cut into tiles is from the whole of it."""
    comparison = Comparison(forward, lq, tiler.device)
    with torch.no_grad():
        for _ in comparison.watched(tiler.patches(forward, lq)):
            pass
    return comparison.result()
