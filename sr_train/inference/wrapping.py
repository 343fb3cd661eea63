"""What lies between stored pixels and a network, for pictures and clips alike."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sr_train.inference.tiling import BLEND_OVERLAP, Forward, Patch, Tiler
from sr_train.ops.errors import ConfigError, DataError, SRTrainError
from sr_train.ops.spec import NetSpec

log = logging.getLogger(__name__)

Pixels = npt.NDArray[Any]
"""(H, W, C), uint8 or uint16."""

_WIDE_FIELD = 64
"""Receptive field, in LQ pixels, from which exact tiles are too costly to be the default."""


class NonFinitePredictionError(SRTrainError):
    """A network made NaN or infinity of finite pixels."""


class SizedTiler:
    """A `Tiler` that may run small inputs whole and cut larger ones.

    Args:
        spec: what the network says about itself.
        device: where tiles are sent.
        tile: LQ pixels on each side; None runs everything whole. `auto` runs small inputs whole
            and cuts larger ones: into exact tiles if the receptive field is at most 64 pixels,
            else into tiles of 256 that share 32 and are blended. For clips, what is whole and what
            an exact tile covers is a quarter of that for pictures.
        overlap: LQ pixels, see `Tiler`; None for what is said there and above.
        tile_batch: tiles that are run together.

    Raises:
        ConfigError: if a number makes no sense.
    """

    def __init__(
        self,
        spec: NetSpec,
        device: torch.device,
        tile: int | Literal["auto"] | None,
        overlap: int | None,
        tile_batch: int,
    ) -> None:
        if isinstance(tile, str) and tile != "auto":
            raise ConfigError(f"tile must be 'auto', a number of pixels or null, got {tile!r}")
        self._largest_whole = 0
        if tile == "auto":
            tile, overlap, self._largest_whole = _auto(spec, device, overlap)
        self._tiles = Tiler(spec, device, tile, overlap, tile_batch)
        self._whole = Tiler(spec, device, None, overlap, tile_batch)

    def patches(self, forward: Forward, lq: Tensor) -> Iterator[Patch]:
        """Yield finished rectangles of `forward(lq)`; see `Tiler.patches`."""
        is_small = lq.shape[-2] * lq.shape[-1] <= self._largest_whole
        return (self._whole if is_small else self._tiles).patches(forward, lq)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put a network in eval mode; afterwards every module has its own mode again."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _auto(spec: NetSpec, device: torch.device, overlap: int | None) -> tuple[int, int | None, int]:
    """Return tile, overlap and the largest number of LQ pixels that is run whole.

    A tile of 480 costs about as much time as the whole picture, and half its memory.
    """
    field = spec.receptive_field
    if field is not None and field <= (_WIDE_FIELD if overlap is None else overlap):
        tile, largest = (480, 512**2) if device.type == "cpu" else (512, 1024**2)
        if spec.takes_clips:
            tile, largest = tile // 2, largest // 4
        return max(tile, 2 * field), overlap, largest
    if overlap is None:
        overlap = BLEND_OVERLAP
        if field is not None:
            log.info(
                "each pixel sees %d pixels around it: tiles of large pictures share %d and are "
                "blended; give overlap=%d for the exact result",
                field,
                overlap,
                field,
            )
    largest = 512**2 // 4 if spec.takes_clips else 512**2
    return max(256, 2 * overlap), overlap, largest


def check_finite(patch: Patch, name: str) -> None:
    """Raise where the prediction holds NaN or infinity, which would be stored as black."""
    if not torch.isfinite(patch.pixels).all():
        raise NonFinitePredictionError(
            f"{name}: the network's prediction is not finite around row {patch.top}, column "
            f"{patch.left}; with half precision, try fp32, else the weights are damaged"
        )


def quantised(planes: Tensor, dtype: np.dtype[Any]) -> Pixels:
    """Return (..., h, w, C) integers of (..., C, h, w) in [0, 1], clipped and rounded half up."""
    white = np.iinfo(dtype).max
    scaled = (planes * white + 0.5).floor_().clamp_(0, white)
    return scaled.movedim(-3, -1).numpy().astype(dtype)


def check_kind(pixels: Pixels, name: str) -> None:
    """Raise a DataError where pixels are neither uint8 nor uint16."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: expected uint8 or uint16 pixels, got {pixels.dtype}")


def stored_tensor(pixels: Pixels) -> Tensor:
    """Return (C, H, W) uint8 or int32, which holds uint16, of (H, W, C) pixels."""
    stored = pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)
    writable = np.require(stored, requirements=["C", "W"])
    return torch.from_numpy(writable).permute(2, 0, 1)
