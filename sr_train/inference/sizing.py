"""Which inputs are run whole, and how large the tiles of the others are."""

import logging
import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from sr_train.api.errors import ConfigError, PluginError
from sr_train.api.network import NetSpec
from sr_train.inference.deviation import Comparison, Deviation, measure_deviation
from sr_train.inference.footprint import Footprint, measure_footprint, room_for_tensors
from sr_train.inference.tiling import BLEND_OVERLAP, Forward, Patch, Tiler, TooManyFramesError
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

FoundT = TypeVar("FoundT")

_WIDE_FIELD = 64
"""Receptive field, in LQ pixels, from which exact tiles are too costly to be the default."""
_WIDEST_BLEND = 128
"""LQ pixels that large blended tiles share at most."""


class SizedTiler:
    """A `Tiler` that may run inputs whole, and says how far tiles are from that.

    Tiles are exact where the network says how far it sees and they have that much context. Else
    they are blended, and a network that pools over the whole input (or sees far) gives something
    else in each tile. How `auto` decides:

    - Small inputs are run whole: up to 512 x 512 LQ pixels, 1024 x 1024 on a GPU if tiles are
      exact; of clips a quarter of that.
    - Larger ones are cut into exact tiles of 480 (GPU: 512; clips: half of that) where the
      receptive field is at most 64.
    - Where tiles would be blended, `measure` decides. Without it, they are 256 large and share 32:
      the same tiles each time, as a validation during training wants. With it, the memory of the
      network is measured on two corners of the first such input, and what fits is run whole. For
      what does not, tiles are measured against the whole on a part that fits, at most half of the
      input: if they are off by less than 1/255, they are used, else the largest that fit.

    With `measure`, tiles of a given size that are not exact are compared with the whole, too, on
    the first input that is cut, or the largest part of it that fits into memory, at most half: this
    takes about as long as that input itself. Either is done once, and said in the log.

    Args:
        spec: what the network says about itself.
        device: where tiles are sent.
        tile: LQ pixels on each side; None: everything whole; `auto`: as said above.
        overlap: LQ pixels, see `Tiler`; None for what is said there and above.
        tile_batch: tiles that are run together.
        measure: go by what is measured.

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
        measure: bool = False,
    ) -> None:
        if isinstance(tile, str) and tile != "auto":
            raise ConfigError(f"tile must be 'auto', a number of pixels or null, got {tile!r}")
        self._spec = spec
        self._device = device
        self._is_auto = tile == "auto"
        self._overlap = overlap
        self._tile_batch = tile_batch
        self._largest_whole = 0
        if tile == "auto":
            tile, overlap, self._largest_whole = _auto(spec, device, overlap)
        self._tiles = Tiler(spec, device, tile, overlap, tile_batch)
        self._whole = Tiler(spec, device, None, overlap, tile_batch)
        self._measures = measure and tile is not None
        self._is_measured = False
        self._known: tuple[int, Footprint | None, float] | None = None

    def patches(self, forward: Forward, lq: Tensor, name: str = "the input") -> Iterator[Patch]:
        """Yield finished rectangles of `forward(lq)`; see `Tiler.patches`.

        Args:
            forward: network, (B, ..., h, w) on the device to (B, ..., h * scale, w * scale).
            lq: (B, ..., H, W).
            name: how the log calls the input.
        """
        if not self._is_measured and self._is_blended(lq):
            if not self._measures:
                _say_blended(self._spec.receptive_field, *self._tiles.tile_and_overlap())
            elif self._is_auto:
                self._choose(forward, lq, name)
            else:
                self._is_measured = True
                return self._compared(forward, lq, name)
        return (self._whole if self._fits(lq) else self._tiles).patches(forward, lq)

    def _is_blended(self, lq: Tensor) -> bool:
        return not self._fits(lq) and not self._tiles.is_exact and self._tiles.cuts(lq)

    def _fits(self, lq: Tensor) -> bool:
        return _pixels(lq) <= self._largest_whole

    def _most_pixels(self, forward: Forward, lq: Tensor) -> int:
        """Return how many LQ pixels of such an input fit into memory as a whole.

        A network that cannot be run on the small inputs by which that is found gets as many as are
        run whole without a look.
        """
        volume = math.prod(lq.shape[:-2])
        if self._known is None or volume > self._known[0]:
            footprint: Footprint | None = None
            try:
                footprint = measure_footprint(forward, lq, self._device)
            except (PluginError, RuntimeError, MemoryError) as err:
                if not (isinstance(err, PluginError) or is_out_of_memory(err)):
                    raise
                log.debug("no footprint: %s", err)
            self._known = volume, footprint, room_for_tensors(self._device)
        _, footprint, room = self._known
        if footprint is None:
            return _blended_whole(self._spec)
        return footprint.most_pixels(room)

    def _choose(self, forward: Forward, lq: Tensor, name: str) -> None:
        """Let the input be run whole, or choose tiles for it and for all others."""
        most = self._most_pixels(forward, lq)
        self._largest_whole = max(self._largest_whole, most)
        if self._fits(lq):
            return
        self._is_measured = True
        part = _middle(lq, min(self._largest_whole, _pixels(lq) // 2))
        longest = max(part.shape[-2:])
        tried = self._tiler(
            (longest + self._overlap_of(longest) + 1) // 2, self._overlap_of(longest)
        )
        found = _deviation(tried, forward, part)
        small = found is not None and found.is_small
        largest = math.isqrt(self._largest_whole)
        self._tiles = tried if small else self._tiler(largest, self._overlap_of(largest))
        tile, overlap = tried.tile_and_overlap()
        log.log(
            logging.INFO if small else logging.WARNING,
            "%s: too large for memory as a whole; tiles of %d that share %d pixels are off by %s, "
            "measured on %s of it%s",
            name,
            tile,
            overlap,
            found or "an unknown amount",
            _size(part),
            "" if small else f"; continuing with the largest that fit, tiles of {largest}",
        )

    def _compared(self, forward: Forward, lq: Tensor, name: str) -> Iterator[Patch]:
        """Yield the patches of the tiles that were asked for, and say how far they are off."""
        most = self._most_pixels(forward, lq)
        found: Deviation | None = None
        where = "the whole"
        if most >= _pixels(lq):
            patches = self._tiles.patches(forward, lq)
            comparison = _unless_short(partial(Comparison, forward, lq, self._device))
            if comparison is None:
                yield from patches
            else:
                yield from comparison.watched(patches)
                found = comparison.result()
        else:
            part = _middle(lq, min(most, _pixels(lq) // 2))
            found, where = _deviation(self._tiles, forward, part), _size(part)
            yield from self._tiles.patches(forward, lq)
        tile, overlap = self._tiles.tile_and_overlap()
        small = found is not None and found.is_small
        log.log(
            logging.INFO if small else logging.WARNING,
            "tiles of %d that share %d pixels are no exact cut for this network: off by %s%s",
            tile,
            overlap,
            f"{found}, measured on {where} of {name}"
            if found
            else "an unknown amount, as memory is too short to measure it",
            "" if small else "; tiling.tile=auto goes whole where memory allows",
        )

    def _tiler(self, tile: int, overlap: int) -> Tiler:
        least = max(2 * overlap, self._spec.min_size, self._spec.size_multiple, 32)
        return Tiler(self._spec, self._device, max(tile, least), overlap, self._tile_batch)

    def _overlap_of(self, tile: int) -> int:
        if self._overlap is not None:
            return self._overlap
        return min(max(tile // 16, BLEND_OVERLAP), _WIDEST_BLEND)


def _auto(spec: NetSpec, device: torch.device, overlap: int | None) -> tuple[int, int | None, int]:
    """Return tile, overlap and the largest number of LQ pixels that is run whole unmeasured.

    An exact tile of 480 costs about as much time as the whole image, and half its memory.
    """
    field = spec.receptive_field
    if field is not None and field <= (_WIDE_FIELD if overlap is None else overlap):
        tile, largest = (480, 512**2) if device.type == "cpu" else (512, 1024**2)
        if spec.takes_clips:
            tile, largest = tile // 2, largest // 4
        return max(tile, 2 * field), overlap, largest
    if overlap is None:
        overlap = BLEND_OVERLAP
    return max(256, 2 * overlap), overlap, _blended_whole(spec)


def _blended_whole(spec: NetSpec) -> int:
    """Return the largest number of LQ pixels that is run whole unmeasured, if tiles are blended."""
    return 512**2 // 4 if spec.takes_clips else 512**2


@lru_cache
def _say_blended(field: int | None, tile: int, overlap: int) -> None:
    """Say once that results depend on the tiles."""
    seen = "everything" if field is None else f"{field} pixels around it"
    exact = "" if field is None else f"; tiling.overlap={field} gives the exact result"
    log.info(
        "each pixel sees %s: tiles of large inputs (%d, sharing %d) are blended and not exact%s",
        seen,
        tile,
        overlap,
        exact,
    )


def _deviation(tiler: Tiler, forward: Forward, lq: Tensor) -> Deviation | None:
    """Return how far tiles are off; None where no tile cuts the input, or memory runs out."""
    if not tiler.cuts(lq):
        return None
    return _unless_short(partial(measure_deviation, tiler, forward, lq))


def _unless_short(measure: Callable[[], FoundT]) -> FoundT | None:
    """Return what is measured; None where memory runs out."""
    try:
        return measure()
    except TooManyFramesError:
        return None
    except (RuntimeError, MemoryError) as err:
        if not is_out_of_memory(err):
            raise
        return None


def _pixels(lq: Tensor) -> int:
    return lq.shape[-2] * lq.shape[-1]


def _middle(lq: Tensor, pixels: int) -> Tensor:
    """Return the middle of an input, about square, with at most so many pixels."""
    height, width = lq.shape[-2:]
    pixels = max(pixels, 1)
    rows = min(height, math.isqrt(pixels))
    columns = min(width, pixels // rows)
    rows = min(height, pixels // columns)
    top, left = (height - rows) // 2, (width - columns) // 2
    return lq[..., top : top + rows, left : left + columns]


def _size(lq: Tensor) -> str:
    return f"{lq.shape[-1]}x{lq.shape[-2]}"
