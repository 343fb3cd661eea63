"""Whether a network takes every size that validation will feed it, found without computing.

What a validation set holds is known from headers, and what of it the network sees at once from the
tiles; see `sr_train.inference.probing` for how each size is tried.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sr_train.api.errors import SRTrainError
from sr_train.api.text import first_few
from sr_train.commands.checks.samples import sizes_of
from sr_train.config.schema import TilingConfig
from sr_train.engine.model import SRModel
from sr_train.inference.probing import AWKWARD, SizeProbe, Window
from sr_train.inference.sizing import SizedTiler

log = logging.getLogger(__name__)

_BUDGET_SEC = 10.0


def size_problems(model: SRModel, tiling: TilingConfig, sets: Mapping[str, Any]) -> list[str]:
    """Return what sizes of validation sets the network does not take, one line for a set.

    Args:
        model: whose network has been seen to work on some size.
        tiling: of validation.
        sets: for validation, by config path; one that reports no sizes is left out.
    """
    problems = []
    tried = _Tried(model)
    for path, dataset in sets.items():
        try:
            sizes = sizes_of(path, dataset)
        except SRTrainError:
            continue  # the rehearsal tells of it
        if sizes is None:
            continue
        windows = sorted(windows_of(model, tiling, tried.in_time(sizes)))
        failed = [window for window in windows if tried.fault(window) is not None]
        if failed:
            problems.append(_told(tried, path, failed, len(windows)))
    if tried.skipped:
        log.info("%d sizes of validation sets were not tried: it took too long", tried.skipped)
    return problems


def spec_problems(model: SRModel) -> list[str]:
    """Return what a network that says that it takes any size does not, if shapes tell."""
    spec, net = model.spec, model.net_for_use()
    probe = SizeProbe(net, spec, model.device)
    if not spec.pads_inside or not probe.can_tell():
        return []
    frames = max(spec.min_frames, 2) if spec.takes_clips else 1
    fault = probe.fault((frames, *AWKWARD))
    if fault is None:
        return []
    first = probe.first_multiple((frames, *AWKWARD))
    advice = "" if first is None else f"; let its spec say size_multiple={first}, pads_inside=False"
    return [
        f"arch: a network with a spec takes any size, unless that says otherwise; {fault}{advice}"
    ]


def windows_of(
    model: SRModel, tiling: TilingConfig, sizes: Iterable[tuple[int, int, int]]
) -> set[Window]:
    """Return what the network sees at once of inputs of some sizes, (frames, height, width)."""
    spec = model.spec
    tiler = SizedTiler(spec, torch.device("cpu"), tiling.tile, tiling.overlap, tiling.tile_batch)
    cut: dict[tuple[int, int], set[tuple[int, int]]] = {}
    found = set()
    for frames, height, width in sizes:
        if (height, width) not in cut:
            cut[height, width] = set(_windows(tiler, spec.scale, height, width))
        seen = max(frames, spec.min_frames) if spec.takes_clips else 1
        if spec.takes_clips and isinstance(tiling.frames, int):
            seen = min(seen, tiling.frames)
        found |= {(seen, *window) for window in cut[height, width]}
    return found


def _windows(tiler: SizedTiler, scale: int, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield the windows of an input of a size; nothing is computed and no image made."""
    seen: list[tuple[int, int]] = []

    def forward(window: Tensor) -> Tensor:
        rows, columns = window.shape[-2:]
        seen.append((rows, columns))
        return torch.zeros(()).expand(1, 1, rows * scale, columns * scale)

    for _ in tiler.patches(forward, torch.zeros(()).expand(1, 1, height, width)):
        yield from seen
        seen.clear()


class _Tried:
    """Tries a network on sizes, each once, while there is time."""

    def __init__(self, model: SRModel) -> None:
        self.skipped = 0
        self._probe = SizeProbe(model.net_for_use(), model.spec, model.device)
        self._known: dict[Window, str | None] = {}
        self._until = time.perf_counter() + _BUDGET_SEC

    def fault(self, window: Window) -> str | None:
        """Return what is wrong with a size; None where nothing is."""
        if window not in self._known:
            if time.perf_counter() > self._until:
                self.skipped += 1
                return None
            self._known[window] = self._probe.fault(window)
        return self._known[window]

    def in_time(self, sizes: Sequence[Window]) -> Iterator[Window]:
        """Yield sizes, each once, while there is time: large ones in blended tiles take some."""
        distinct = list(dict.fromkeys(sizes))
        for number, size in enumerate(distinct):
            if time.perf_counter() > self._until:
                self.skipped += len(distinct) - number
                return
            yield size

    def first_multiple(self, window: Window) -> int | None:
        """Return the multiple that both sides must be rounded up to, as far as shapes tell."""
        return self._probe.first_multiple(window)


def _told(tried: _Tried, path: str, failed: Sequence[Window], count: int) -> str:
    shown = first_few([f"{w}x{h}" for _, h, w in failed], 3)
    first = tried.first_multiple(failed[0])
    multiple = "" if first is None else f"; a multiple of {first} works"
    return (
        f"arch: of {path} the network will see {shown} (LQ pixels; {len(failed)} of {count} "
        f"sizes), and it fails: {tried.fault(failed[0])}{multiple}. A network must take any "
        "size: pad inside it, and cut its output"
    )
