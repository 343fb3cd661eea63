"""Run a network over an image of any size, one window at a time.

Two ways, one geometry. A network that says how far it sees gets windows with that much context,
which is cut away: the result is that of the whole image. A network that sees everything gets
overlapping windows whose results are blended.

Only the last two axes are looked at, so (B, T, C, H, W) goes the same way as (B, C, H, W).
"""

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sr_train.api.errors import ConfigError, PluginError, SRTrainError
from sr_train.api.network import NetSpec
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

BLEND_OVERLAP = 32
"""LQ pixels that neighbouring windows share if nothing is said and the network sees everything."""
_SMALLEST_TILE = 32
_PLACE = re.compile(r"^\[enforce fail[^\]]*\][^.]*\. ")
"""What the CPU's allocator says first: a place in torch's own source."""
_SMALLEST_WEIGHT = 1e-3

Forward = Callable[[Tensor], Tensor]


class TooManyFramesError(Exception):
    """Memory ran out, and what is run at once could have fewer frames."""


@dataclass(frozen=True)
class Window:
    """The part of one axis that one tile sees, and the part of it that is kept; LQ pixels."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


@dataclass(frozen=True)
class Patch:
    """A finished rectangle of the prediction."""

    top: int
    """Pixels on the prediction's grid."""
    left: int
    """Pixels on the prediction's grid."""
    pixels: Tensor
    """(B, ..., h, w) float32 on the CPU."""


def plan_axis(
    length: int, core: int, overlap: int, multiple: int = 1, min_size: int = 1
) -> list[Window]:
    """Cover one axis with windows of (nearly) equal length.

    Windows start at multiples of `multiple`, the first at 0; the last one ends at the end of the
    axis, all others at a multiple. So a network that pads the far end up to a multiple pads the
    last window as it would pad the whole image, and no other window.

    Args:
        length: pixels of the axis.
        core: most pixels that a window adds to the one before; it shrinks where that makes the
            windows more even.
        overlap: least pixels that neighbours share; each keeps half of them.
        multiple: grid of the starts; `core` and half of `overlap` lie on it.
        min_size: a window is not smaller than this unless the axis is.

    Returns:
        Windows whose kept parts follow one another without gap or overlap.
    """
    if length <= core + overlap:
        return [Window(0, length, 0, length)]
    count = math.ceil((length - overlap) / core)
    core = _round_up(math.ceil((length - overlap) / count), multiple)
    core = max(core, _round_up(min_size, multiple) - overlap)
    size = core + overlap
    last = max(length - size, 0) // multiple * multiple
    starts = [*range(0, last, core), last]
    cuts = [0, *(start + overlap // 2 for start in starts[1:]), length]
    stops = [*(start + size for start in starts[:-1]), length]
    return [Window(*edges) for edges in zip(starts, stops, cuts[:-1], cuts[1:], strict=True)]


class Tiler:
    """Cut images into windows, run them on a device, and put the results together.

    Args:
        spec: what the network says about itself.
        device: where windows are sent; the image itself stays where it is.
        tile: LQ pixels on each side. Exact tiles are this large without their context, blended
            ones with their overlap. None: the whole image at once.
        overlap: LQ pixels. None takes the receptive field, or `BLEND_OVERLAP` where the network
            sees everything. At least the receptive field: context to each side, cut away, and
            the result is exact. Less: neighbours share this much and are blended.
        tile_batch: windows of one row that are run together.

    Raises:
        ConfigError: if a number makes no sense.
    """

    def __init__(
        self,
        spec: NetSpec,
        device: str | torch.device = "cpu",
        tile: int | None = None,
        overlap: int | None = None,
        tile_batch: int = 1,
    ) -> None:
        if tile is not None and tile < 1:
            raise ConfigError(f"tile must be at least 1 pixel or null for no tiles, got {tile}")
        if overlap is not None and overlap < 0:
            raise ConfigError(f"overlap must be at least 0 pixels, got {overlap}")
        if tile_batch < 1:
            raise ConfigError(f"tile_batch must be at least 1, got {tile_batch}")
        self.spec = spec
        self.device = torch.device(device)
        self.tile = tile
        self.overlap = overlap
        self.tile_batch = tile_batch
        field = spec.receptive_field
        self.is_exact = field is not None and (overlap is None or overlap >= field)
        if tile is not None and not self.is_exact and overlap is not None and overlap >= tile:
            raise ConfigError(f"overlap must be smaller than tile ({tile}), got {overlap}")

    def patches(self, forward: Forward, lq: Tensor) -> Iterator[Patch]:
        """Yield finished rectangles of `forward(lq)`, from top to bottom.

        When the device runs out of memory, a CPU too, everything starts anew with fewer windows at
        a time or smaller ones, and what was yielded is yielded again. The smaller number stays for
        the images that follow.

        Args:
            forward: network, (B, ..., h, w) on the device to (B, ..., h*scale, w*scale).
            lq: (B, ..., H, W), any dtype and device; best on the CPU.

        Raises:
            SRTrainError: if the device cannot hold even a small window.
        """
        while True:
            try:
                yield from self._patches(forward, lq)
                return
            except (RuntimeError, MemoryError) as err:
                if not is_out_of_memory(err):
                    raise
                reason = out_of_memory_words(err)
            self._shrink(reason, max(lq.shape[-2:]))

    def cuts(self, lq: Tensor) -> bool:
        """Return whether an input is cut into more than one window."""
        return len(self._plan(lq.shape[-2])) * len(self._plan(lq.shape[-1])) > 1

    def tile_and_overlap(self) -> tuple[int, int]:
        """Return the side of a tile and what neighbours share, LQ pixels; 0 for no tiles."""
        return (self.tile or 0), self._overlap_on_grid()

    def _shrink(self, reason: str, longest: int) -> None:
        """Lower `tile_batch`, then `tile`; log it, or raise where there is nothing to lower."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.tile_batch > 1:
            self.tile_batch //= 2
            log.warning("%s: continuing with tile_batch=%d", reason, self.tile_batch)
            return
        tile = min(self.tile or longest, longest) // 2
        if tile < max(_SMALLEST_TILE, self.spec.min_size, self.spec.size_multiple):
            raise SRTrainError(
                f"{self.device} has too little memory for a tile of {tile * 2} pixels and "
                f"{self._overlap_on_grid()} pixels shared with its neighbours ({reason}). "
                "Give a smaller overlap (tiles are then blended), use half precision or another "
                "device"
            )
        self.tile = tile
        if not self.is_exact and self.overlap is not None:
            self.overlap = min(self.overlap, tile // 2)
        words = "" if self.is_exact else "; such tiles are blended and not exact"
        log.warning("%s: continuing with tile=%d%s", reason, tile, words)

    def _overlap_on_grid(self) -> int:
        """Return the LQ pixels, on the network's grid, that neighbouring windows share."""
        step = self.spec.size_multiple
        if self.is_exact:
            return 2 * _round_up(self.spec.receptive_field or 0, step)
        if self.overlap is not None:
            return _round_up(self.overlap, step)
        return _round_up(min(BLEND_OVERLAP, (self.tile or BLEND_OVERLAP * 2) // 2), step)

    def _plan(self, length: int) -> list[Window]:
        """Return the windows of one axis."""
        if self.tile is None:
            return [Window(0, length, 0, length)]
        overlap, step = self._overlap_on_grid(), self.spec.size_multiple
        core = self.tile if self.is_exact else self.tile - overlap
        core = max(core // step * step, step)
        return plan_axis(length, core, overlap, step, self.spec.min_size)

    def _patches(self, forward: Forward, lq: Tensor) -> Iterator[Patch]:
        """Make one attempt with the present settings."""
        rows, columns = self._plan(lq.shape[-2]), self._plan(lq.shape[-1])
        if self.is_exact or len(rows) == len(columns) == 1:
            for row in rows:
                yield from self._cut_row(forward, lq, row, columns)
        else:
            yield from self._blended_bands(forward, lq, rows, columns)

    def _cut_row(
        self, forward: Forward, lq: Tensor, row: Window, columns: Sequence[Window]
    ) -> Iterator[Patch]:
        """Yield the kept part of every window in a row."""
        scale = self.spec.scale
        high = slice((row.keep_start - row.start) * scale, (row.keep_stop - row.start) * scale)
        for column, pred in self._run_row(forward, lq, row, columns):
            wide = slice(
                (column.keep_start - column.start) * scale,
                (column.keep_stop - column.start) * scale,
            )
            kept = pred[..., high, wide].to("cpu", torch.float32)
            yield Patch(row.keep_start * scale, column.keep_start * scale, kept)

    def _blended_bands(
        self, forward: Forward, lq: Tensor, rows: Sequence[Window], columns: Sequence[Window]
    ) -> Iterator[Patch]:
        """Yield bands of full width, each as soon as no later window reaches into it."""
        scale = self.spec.scale
        down = blend_weights(tuple(rows), scale)
        across = dict(zip(columns, blend_weights(tuple(columns), scale), strict=True))
        carried: Tensor | None = None
        for number, row in enumerate(rows):
            band: Tensor | None = None
            for column, pred in self._run_row(forward, lq, row, columns):
                weighted = pred.to("cpu", torch.float32) * down[number][:, None]
                weighted *= across[column]
                if band is None:
                    band = weighted.new_zeros(*weighted.shape[:-1], lq.shape[-1] * scale)
                band[..., column.start * scale : column.stop * scale] += weighted
            assert band is not None
            if carried is not None:
                band[..., : carried.shape[-2], :] += carried
            until = rows[number + 1].start if number + 1 < len(rows) else row.stop
            finished = (until - row.start) * scale
            yield Patch(row.start * scale, 0, band[..., :finished, :])
            carried = band[..., finished:, :]

    def _run_row(
        self, forward: Forward, lq: Tensor, row: Window, columns: Sequence[Window]
    ) -> Iterator[tuple[Window, Tensor]]:
        """Yield each window of a row with its whole prediction, on the device."""
        strip = lq[..., row.start : row.stop, :]
        for batch in _equal_runs(columns, self.tile_batch):
            windows = [strip[..., column.start : column.stop] for column in batch]
            stacked = windows[0] if len(windows) == 1 else torch.cat(windows)
            pred = forward(stacked.to(self.device))
            expected = [side * self.spec.scale for side in stacked.shape[-2:]]
            if list(pred.shape[-2:]) != expected:
                raise PluginError(
                    f"the network made {tuple(pred.shape[-2:])} pixels of a window of "
                    f"{tuple(stacked.shape[-2:])}; its spec says scale {self.spec.scale}"
                )
            yield from zip(batch, pred.chunk(len(batch)), strict=True)


def tiled_forward(
    forward: Forward,
    lq: Tensor,
    spec: NetSpec,
    tile: int | None = None,
    overlap: int | None = None,
    tile_batch: int = 1,
    device: str | torch.device = "cpu",
    out_dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return `forward(lq)` on the CPU, computed window by window on `device`.

    Args:
        forward: network, (B, ..., h, w) on the device to (B, ..., h*scale, w*scale).
        lq: (B, ..., H, W), best on the CPU: only windows of it are moved.
        spec: what the network says about itself.
        tile: see `Tiler`, as for `overlap` and `tile_batch`.
        overlap: LQ pixels.
        tile_batch: windows that are run together.
        device: where the windows go.
        out_dtype: floating dtype of the result; blending happens in fp32 whatever it is.

    Returns:
        (B, ..., H*scale, W*scale), without a graph.

    Raises:
        ConfigError: if a number makes no sense.
        SRTrainError: if the device cannot hold even a small window.
    """
    out: Tensor | None = None
    height, width = (side * spec.scale for side in lq.shape[-2:])
    tiler = Tiler(spec, device, tile, overlap, tile_batch)
    with torch.no_grad():
        for patch in tiler.patches(forward, lq):
            if out is None:
                out = torch.empty(*patch.pixels.shape[:-2], height, width, dtype=out_dtype)
            rows, columns = patch.pixels.shape[-2:]
            target = out[..., patch.top : patch.top + rows, patch.left : patch.left + columns]
            target.copy_(patch.pixels)
    assert out is not None
    return out


def out_of_memory_words(err: BaseException) -> str:
    """Return what an error of running out of memory says, in short."""
    lines = _PLACE.sub("", str(err).strip()).splitlines() or ["out of memory"]
    return lines[0].split(". ")[0][:120]


@lru_cache(maxsize=64)
def blend_weights(windows: tuple[Window, ...], scale: int) -> tuple[Tensor, ...]:
    """Return one weight per predicted pixel for every window of an axis.

    A raised cosine rises over what a window shares with the one before and falls over what it
    shares with the next; nothing fades at the ends of the axis. No weight is below a small
    positive floor, and the weights of all windows over one pixel add up to 1.

    Returns:
        For each window, (length * scale,) float32 on the CPU.
    """
    total = torch.zeros(windows[-1].stop * scale, dtype=torch.float64)
    raw = []
    for number, window in enumerate(windows):
        weight = torch.ones((window.stop - window.start) * scale, dtype=torch.float64)
        if number > 0:
            overlap = (windows[number - 1].stop - window.start) * scale
            weight[:overlap] *= raised_cosine(overlap)
        if number + 1 < len(windows):
            overlap = (window.stop - windows[number + 1].start) * scale
            weight[len(weight) - overlap :] *= raised_cosine(overlap).flip(0)
        weight.clamp_(min=_SMALLEST_WEIGHT)
        total[window.start * scale : window.stop * scale] += weight
        raw.append(weight)
    parts = [total[window.start * scale : window.stop * scale] for window in windows]
    return tuple((weight / part).float() for weight, part in zip(raw, parts, strict=True))


def raised_cosine(length: int) -> Tensor:
    """Return a raised cosine from near 0 to near 1, at pixel centres."""
    centres = (torch.arange(length, dtype=torch.float64) + 0.5) / max(length, 1)
    return torch.sin(centres * (math.pi / 2)) ** 2


def _equal_runs(windows: Sequence[Window], most: int) -> Iterator[list[Window]]:
    """Yield runs of neighbouring windows of one length, at most `most` in each."""
    run: list[Window] = []
    for window in windows:
        is_equal = run and window.stop - window.start == run[0].stop - run[0].start
        if run and (not is_equal or len(run) == most):
            yield run
            run = []
        run.append(window)
    if run:
        yield run


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
