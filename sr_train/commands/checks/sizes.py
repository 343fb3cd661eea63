"""Whether a network takes every size that validation will feed it, told without computing.

What a validation set holds is known from headers, and what of it the network sees at once from the
tiles. The network is run on the `meta` device, where shapes are worked out and nothing else: a
network that wants a multiple of 4 says so there. What fails is tried once more with numbers.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sr_train.api.errors import PluginError
from sr_train.api.text import first_few
from sr_train.commands.checks.samples import moderate, sizes_of
from sr_train.config.schema import TilingConfig
from sr_train.engine.model import SRModel
from sr_train.inference.calling import run_generator
from sr_train.inference.sizing import SizedTiler
from sr_train.inference.wrapping import evaluating
from sr_train.utils.failures import in_words
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

Window = tuple[int, int, int]
"""Frames, height and width of what the network sees at once, LQ pixels."""

_BUDGET_SEC = 10.0
_LARGEST = 128
"""LQ pixels of a side that are computed on, where `meta` does not tell."""

_MULTIPLES = (2, 4, 8, 16, 32, 64)


def size_problems(model: SRModel, tiling: TilingConfig, sets: Mapping[str, Any]) -> list[str]:
    """Return what sizes of validation sets the network does not take, one line for a set.

    Args:
        model: whose network has been seen to work on some size.
        tiling: of validation.
        sets: for validation, by config path; one that tells no sizes is left out.
    """
    problems = []
    tried = _Tried(model)
    for path, dataset in sets.items():
        sizes = sizes_of(dataset)
        if sizes is None:
            continue
        windows = sorted(windows_of(model, tiling, tried.in_time(sizes)))
        failed = [window for window in windows if tried.fault(window) is not None]
        if failed:
            problems.append(_told(tried, path, failed, len(windows)))
    if tried.skipped:
        log.info("%d sizes of validation sets were not tried: it took too long", tried.skipped)
    return problems


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
    """Tries a network on sizes, each once."""

    def __init__(self, model: SRModel) -> None:
        self.skipped = 0
        self._model = model
        self._net = model.net_for_use()
        self._known: dict[Window, str | None] = {}
        self._until = time.perf_counter() + _BUDGET_SEC
        self._meta: bool | None = None

    def fault(self, window: Window) -> str | None:
        """Return what is wrong with a size; None where nothing is."""
        if window not in self._known:
            if time.perf_counter() > self._until:
                self.skipped += 1
                return None
            self._known[window] = self._find(window)
        return self._known[window]

    def in_time(self, sizes: Sequence[Window]) -> Iterator[Window]:
        """Yield sizes, each once, while there is time: large ones in blended tiles take some."""
        distinct = list(dict.fromkeys(sizes))
        for number, size in enumerate(distinct):
            if time.perf_counter() > self._until:
                self.skipped += len(distinct) - number
                return
            yield size

    def works(self, window: Window) -> bool:
        """Whether a size is taken, as far as shapes tell."""
        return self._outlined(window) is None

    def _find(self, window: Window) -> str | None:
        if self._meta is None:  # one that works with numbers must work without them to tell
            small = _moderate(window)
            self._meta = self._outlined(small) is None or self._computed(small) is not None
        if self._meta:
            return self._outlined(window) and self._computed(window)
        return self._computed(window)

    def _outlined(self, window: Window) -> str | None:
        state = {**dict(self._net.named_parameters()), **dict(self._net.named_buffers())}
        shapes = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
        return self._run(self._input(window, "meta"), shapes)

    def _computed(self, window: Window) -> str | None:
        """Try with numbers, on a smaller input that leaves the same remainders."""
        return self._run(self._input(_moderate(window), self._model.device), None)

    def _input(self, window: Window, device: str | torch.device) -> Tensor:
        spec = self._model.spec
        frames, height, width = window
        channels = spec.in_channels + sum(spec.extra_inputs.values())
        axes = (1, frames, channels) if spec.takes_clips else (1, channels)
        return torch.zeros(*axes, height, width, device=device)

    def _run(self, fed: Tensor, shapes: dict[str, Tensor] | None) -> str | None:
        spec, net = self._model.spec, self._net

        def call(net: nn.Module, fed: Tensor) -> object:
            return net(fed) if shapes is None else functional_call(net, shapes, (fed,))

        try:
            with torch.no_grad(), evaluating(net), torch.random.fork_rng([]), _eager(net):
                run_generator(net, fed, spec, call)
        except PluginError as err:
            return str(err).removeprefix("arch: ")
        except Exception as err:  # a network of anybody's may raise anything
            if is_out_of_memory(err):
                return None
            return in_words(err)
        return None


@contextmanager
def _eager(net: nn.Module) -> Iterator[None]:
    """Let a compiled network run as it is: each size would be compiled anew."""
    compiled, net._compiled_call_impl = net._compiled_call_impl, None
    try:
        yield
    finally:
        net._compiled_call_impl = compiled


def _moderate(window: Window) -> Window:
    frames, height, width = window
    return frames, moderate(height, _LARGEST), moderate(width, _LARGEST)


def _told(tried: _Tried, path: str, failed: Sequence[Window], count: int) -> str:
    frames, height, width = failed[0]
    shown = first_few([f"{w}x{h}" for _, h, w in failed], 3)
    fitting = [n for n in _MULTIPLES if tried.works((frames, _up(height, n), _up(width, n)))]
    multiple = "" if not fitting else f"; a multiple of {fitting[0]} works"
    return (
        f"arch: of {path} the network will see {shown} (LQ pixels; {len(failed)} of {count} "
        f"sizes), and it fails: {tried.fault(failed[0])}{multiple}. A network must take any "
        "size: pad inside it, and cut its output"
    )


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple
