"""Which sizes a network takes in eval mode, told without computing where that can be.

The network is run on the `meta` device, where shapes are worked out and nothing else: a network
that wants a multiple of 4 says so there. What fails is tried once more with numbers.
"""

import copy
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from sr_train.api.errors import PluginError
from sr_train.api.network import NetSpec
from sr_train.inference.calling import run_generator
from sr_train.inference.wrapping import evaluating
from sr_train.utils.failures import in_words
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

Window = tuple[int, int, int]
"""Frames, height and width of what the network sees at once, LQ pixels."""

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48, 5, 10, 20, 40, 7, 14, 28, 56)
"""What a network may want its sides to be multiples of, in the order they are tried."""

AWKWARD = (65, 97)
"""Sides that are no multiple of anything but 5, 13 and 97; rounded up to a multiple, one of the
two is no multiple of twice that."""

_SMALL = (1, 2, 4, 8, 16, 32, 64)

_LARGEST = 128
"""LQ pixels of a side that are computed on, where `meta` does not say."""

_GRID = 64
"""Sizes stay as they are modulo this, so that what a network asks of them is met or not as ever."""

_BUDGET_SEC = 20.0


class SizeProbe:
    """Tries a network on sizes; nothing of it changes.

    Args:
        net: on its device; it may be compiled, and is run as it is.
        spec: of the network.
        device: that it is on.
    """

    def __init__(self, net: nn.Module, spec: NetSpec, device: torch.device) -> None:
        self._net = net
        self._spec = spec
        self._device = device
        self._twin = _outline(net)
        self._tells: bool | None = None if self._twin is not None else False

    def fault(self, window: Window) -> str | None:
        """Return what is wrong with a size; None where nothing is."""
        if self._tells is None:  # one that works with numbers must work without them to say
            small = _moderate(window)
            self._tells = self._outlined(small) is None or self._computed(small) is not None
        if self._tells:
            return self._outlined(window) and self._computed(window)
        return self._computed(window)

    def can_tell(self) -> bool:
        """Return whether it works without numbers on a size that suits most networks."""
        side = max(MULTIPLES)
        return self._outlined((max(self._spec.min_frames, 2), side, side)) is None

    def first_multiple(self, window: Window) -> int | None:
        """Return the multiple that both sides must be rounded up to, as far as shapes tell."""
        frames, height, width = window
        return next(
            (
                n
                for n in MULTIPLES
                if self._outlined((frames, round_up(height, n), round_up(width, n))) is None
            ),
            None,
        )

    def _outlined(self, window: Window) -> str | None:
        if self._twin is None:
            return "it cannot be copied"
        return self._run(self._twin, window, torch.device("meta"))

    def _computed(self, window: Window) -> str | None:
        """Try with numbers, on a smaller input that leaves the same remainders."""
        return self._run(self._net, _moderate(window), self._device)

    def _run(self, net: nn.Module, window: Window, device: torch.device) -> str | None:
        frames, height, width = window
        channels = self._spec.in_channels + sum(self._spec.extra_inputs.values())
        axes = (1, frames, channels) if self._spec.takes_clips else (1, channels)
        fed = torch.zeros(*axes, height, width, device=device)
        cards = [device] if device.type == "cuda" else []
        try:
            with torch.no_grad(), evaluating(net), torch.random.fork_rng(cards), _eager(net):
                run_generator(net, fed, self._spec)
        except PluginError as err:
            return str(err).removeprefix("arch: ")
        except Exception as err:  # a network of anybody's may raise anything
            return None if is_out_of_memory(err) else in_words(err)
        return None


def fit_sizes(net: nn.Module, spec: NetSpec, device: torch.device) -> NetSpec:
    """Return a spec with which inputs of any size can be used.

    A network without a spec of its own that fails at an awkward size, or at a very small one, has
    its inputs padded from now on, to the first multiple and the smallest side that it is found to
    take; this is said once.

    Args:
        net: on its device.
        spec: of the network.
        device: that it is on.

    Returns:
        `spec`, where the network takes any size, says itself what it takes, or always fails.
    """
    if isinstance(getattr(net, "spec", None), NetSpec):
        return spec
    started = time.perf_counter()
    probe = SizeProbe(net, spec, device)
    frames = max(spec.min_frames, 2) if spec.takes_clips else 1

    def works(height: int, width: int) -> bool:
        in_time = time.perf_counter() - started < _BUDGET_SEC
        return in_time and probe.fault((frames, height, width)) is None

    multiple = next((n for n in MULTIPLES if works(*(round_up(s, n) for s in AWKWARD))), None)
    if multiple is None:
        return spec
    sides = dict.fromkeys(round_up(side, multiple) for side in (*_SMALL, AWKWARD[0]))
    smallest = next((side for side in sides if works(side, side)), None)
    if smallest is None:
        return spec
    if multiple == 1 and smallest == 1:
        return spec
    wants = [f"multiples of {multiple}"] if multiple > 1 else []
    wants += [f"at least {smallest}"] if smallest > multiple else []
    log.info(
        "arch: %s needs sizes that are %s; inputs are padded",
        type(net).__name__,
        " and ".join(wants),
    )
    return replace(spec, size_multiple=multiple, min_size=smallest, pads_inside=False)


def round_up(side: int, multiple: int) -> int:
    """Return the smallest multiple that is not below `side`."""
    return -(-side // multiple) * multiple


def moderate(side: int, largest: int) -> int:
    """Return a side of about `largest` at most that leaves the same remainder on a grid of 64."""
    if side <= largest:
        return side
    return side - -(-(side - largest) // _GRID) * _GRID


def _moderate(window: Window) -> Window:
    frames, height, width = window
    return frames, moderate(height, _LARGEST), moderate(width, _LARGEST)


def _outline(net: nn.Module) -> nn.Module | None:
    """Return a copy of a network without numbers; None where it cannot be copied.

    A network may keep something of its last input; here that stays with the copy.
    """
    memo: dict[int, object] = {}
    for parameter in net.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, parameter.requires_grad)
    for buffer in net.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    try:
        with _eager(net):
            return copy.deepcopy(net, memo)
    except Exception as err:  # a network of anybody's may raise anything
        log.debug("%s cannot be copied: %s", type(net).__name__, err)
        return None


@contextmanager
def _eager(net: nn.Module) -> Iterator[None]:
    """Let a compiled network run as it is: each size would be compiled anew."""
    compiled, net._compiled_call_impl = net._compiled_call_impl, None
    try:
        yield
    finally:
        net._compiled_call_impl = compiled
