"""Upscale clips of any length with a network, a chunk of frames at a time.

Memory depends on the chunk and the tile, not on the length of the clip. A network that says how
many frames to each side it sees gets chunks with that many more, which are cut away: the result is
that of the whole clip. For one that sees all frames, as recurrent ones do, neighbouring chunks
share frames. The prediction is worst where a chunk ends and context is missing, so the outer
quarter of the shared frames is dropped from each chunk, and between the two a raised cosine leads
over from one chunk to the next: no frame jumps.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sr_train.api.errors import ConfigError, DataError
from sr_train.api.network import NetSpec
from sr_train.inference.calling import run_generator
from sr_train.inference.sizing import SizedTiler
from sr_train.inference.tiling import TooManyFramesError, out_of_memory_words, raised_cosine
from sr_train.inference.wrapping import (
    Pixels,
    check_finite,
    check_kind,
    evaluating,
    quantised,
    stored_tensor,
)
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

Frame = Mapping[str, np.ndarray]
"""`lq`, (H, W, 3) uint8 or uint16, and every extra input of the network, (H, W, C) float."""

ClipUpscale = Callable[[Iterable[Frame], str], Iterator[Pixels]]
"""From frames and what errors call their clip to one upscaled frame for each, as they come."""

Upscale = Callable[[Pixels, str], Pixels]
"""From an image (H, W, C) and what errors call it to one `scale` times as large, same dtype."""

_FRAMES = 30
"""Frames of a chunk if nothing is said and neighbours share no more than a third of them."""
_SHARED = 10
"""Frames that neighbouring chunks share if nothing is said and the network sees all frames."""


@dataclass(frozen=True)
class _Chunk:
    """Which of a chunk's frames are kept; counted from its first one."""

    size: int
    fade_in: range
    """Frames blended with the chunk before; those before them are dropped."""
    fade_out: range
    """Frames blended with the next chunk; those after them are dropped."""


class ClipUpscaler:
    """Upscale clips in chunks of frames and tiles of space, keeping their depth.

    Values are divided by 255 (or 65535), and the prediction is clipped and rounded half up. Extra
    inputs go to the network as they are, after the channels of `lq`. A clip that is shorter than
    the network wants is lengthened by its last frame and cut again.

    Args:
        net: the generator, already on `device`; it is in eval mode while a chunk runs only.
        spec: what the network says about itself.
        device: where tiles are sent.
        autocast: makes the context in which the network runs.
        tile: LQ pixels on each side, see `SizedTiler`.
        overlap: LQ pixels, see `Tiler`.
        tile_batch: tiles that are run together.
        frames: of a chunk, with those it shares. None: the whole clip at once; memory then grows
            with its length. `auto`: 30, or three times what is shared if that is more.
        frame_overlap: frames that neighbouring chunks share. None: twice the network's time field
            or, where it sees all frames, 10. At least twice the time field: the result is exact.
        measure: how far tiles are from the whole, see `SizedTiler`.

    Raises:
        ConfigError: if the network takes no clips or no RGB, or numbers do not go together.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: NetSpec,
        device: str | torch.device = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        tile: int | Literal["auto"] | None = "auto",
        overlap: int | None = None,
        tile_batch: int = 1,
        frames: int | Literal["auto"] | None = "auto",
        frame_overlap: int | None = None,
        measure: bool = False,
    ) -> None:
        if not spec.takes_clips:
            raise ConfigError("this network takes single images, not clips")
        if (spec.in_channels, spec.out_channels, spec.colour) != (3, 3, "rgb"):
            raise ConfigError(
                f"clips need a network from 3 to 3 channels (colour 'rgb'); this one goes from "
                f"{spec.in_channels} to {spec.out_channels} (colour {spec.colour!r})"
            )
        self.net = net
        self.spec = spec
        self._autocast = autocast
        self._tiler = SizedTiler(spec, torch.device(device), tile, overlap, tile_batch, measure)
        field = spec.time_field
        self.is_exact = field is not None and (frame_overlap is None or frame_overlap >= 2 * field)
        self.frames, self.frame_overlap = _lengths(spec, frames, frame_overlap, self.is_exact)

    def __call__(self, frames: Iterable[Frame], name: str = "the clip") -> Iterator[Pixels]:
        """Yield the upscaled frames in order; frames are taken as they are needed.

        Args:
            frames: of one size and dtype.
            name: how errors call the clip, e.g. its path.

        Yields:
            (H * scale, W * scale, 3) of the dtype of `lq`.

        Raises:
            DataError: if there is no frame, or one is of another kind; its number is named.
            SRTrainError: if the prediction is not finite, or the device has too little memory.
        """
        source = _checked(frames, self.spec, name)
        window: list[dict[str, Tensor]] = []
        carried: list[Tensor] = []
        overlap_before = first = 0
        while True:
            window += islice(source, self._ahead(len(window)))
            if not window:
                raise DataError(f"{name}: no frames to upscale")
            chunk, overlap_after = self._plan(len(window), overlap_before)
            place = f"{name}, frames {first} to {first + chunk.size - 1}"
            try:
                done, carried = self._run(window[: chunk.size], chunk, carried, place)
            except TooManyFramesError as err:
                surplus = max(overlap_before - self.frame_overlap, 0)
                window, first = window[surplus:], first + surplus
                overlap_before -= surplus
                self._shorten(str(err))
                continue
            while done:
                yield done.popleft()
            if chunk.size == len(window):
                return
            first += chunk.size - overlap_after
            window, overlap_before = window[chunk.size - overlap_after :], overlap_after

    def _ahead(self, held: int) -> int | None:
        """Return how many frames to read, so that the last two chunks can be made even."""
        if self.frames is None:
            return None
        return max(2 * self.frames - self.frame_overlap + 1 - held, 0)

    def _plan(self, held: int, overlap_before: int) -> tuple[_Chunk, int]:
        """Return the next chunk and how many frames the one after it shares with it.

        Args:
            held: frames from the chunk's first on, as far as they are known.
            overlap_before: frames that the chunk shares with the one before; 0 for the first one.
        """
        overlap = self.frame_overlap
        size, overlap_after = held, 0
        if self.frames is not None and held > self.frames:
            size, overlap_after = self.frames, overlap
            if held <= 2 * self.frames - overlap:
                size = max(math.ceil((held + overlap) / 2), self.spec.min_frames)
                overlap_after = max(overlap, size - held + self.spec.min_frames)
        dropped = overlap // 2 if self.is_exact else overlap // 4
        blended = 0 if self.is_exact else overlap - 2 * dropped
        # The last chunk may begin earlier; the frames it has more are context.
        start = overlap_before - overlap + dropped if overlap_before else 0
        stop = size - overlap + dropped if overlap_after else size
        return (
            _Chunk(
                size,
                range(start, start + blended if overlap_before else start),
                range(stop, stop + blended if overlap_after else stop),
            ),
            overlap_after,
        )

    def _run(
        self, window: list[dict[str, Tensor]], chunk: _Chunk, carried: list[Tensor], name: str
    ) -> tuple[deque[Pixels], list[Tensor]]:
        """Return a chunk's finished frames, and the share it has in frames still to be finished.

        Args:
            window: its frames.
            chunk: which of them are kept.
            carried: the share of the chunk before, one (3, H, W) for each frame of `fade_in`.
            name: how errors call the chunk.
        """
        lq = window[0]["lq"]
        dtype: np.dtype[Any] = np.dtype("uint8" if lq.dtype == torch.uint8 else "uint16")
        height, width = (side * self.spec.scale for side in lq.shape[-2:])
        done = {
            number: np.empty((height, width, 3), dtype)
            for number in range(chunk.fade_in.start, chunk.fade_out.start)
        }
        passed = {number: torch.empty(3, height, width) for number in chunk.fade_out}
        fade = raised_cosine(len(chunk.fade_in)).float()
        fall = raised_cosine(len(chunk.fade_out)).float().flip(0)
        clip, forward = self._input(window, int(np.iinfo(dtype).max))
        with torch.no_grad(), evaluating(self.net):
            for patch in self._tiler.patches(forward, clip, name):
                check_finite(patch, name)
                rows, columns = patch.pixels.shape[-2:]
                high = slice(patch.top, patch.top + rows)
                wide = slice(patch.left, patch.left + columns)
                for place, number in enumerate(chunk.fade_out):
                    passed[number][:, high, wide] = patch.pixels[0, number] * fall[place]
                for number, pixels in done.items():
                    pred = patch.pixels[0, number]
                    if number in chunk.fade_in:
                        place = number - chunk.fade_in.start
                        pred = carried[place][:, high, wide] + pred * fade[place]
                    pixels[high, wide] = quantised(pred, dtype)
        return deque(done.values()), list(passed.values())

    def _input(
        self, window: list[dict[str, Tensor]], white: int
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return (1, T, C, H, W) stored values and what runs the network on a window of them."""
        missing = max(self.spec.min_frames - len(window), 0)
        window = [*window, *[window[-1]] * missing]
        names = list(self.spec.extra_inputs)
        stacked = [torch.stack([frame[key] for frame in window]) for key in ("lq", *names)]
        clip = torch.cat([part.float() for part in stacked], 1) if names else stacked[0]
        return clip[None], partial(self._forward, white=white)

    def _forward(self, window: Tensor, white: int) -> Tensor:
        """Return (B, T, 3, h * scale, w * scale) of stored values up to `white`."""
        clip = window.float()
        lq = clip[:, :, :3] / white
        if self.spec.extra_inputs:
            lq = torch.cat([lq, clip[:, :, 3:]], 2)
        try:
            with self._autocast():
                return run_generator(self.net, lq, self.spec)
        except (RuntimeError, MemoryError) as err:
            can_be_shorter = self.frames is not None and self.frames > self._shortest()
            if is_out_of_memory(err) and can_be_shorter:
                raise TooManyFramesError(out_of_memory_words(err)) from None
            raise

    def _shortest(self) -> int:
        """Return the fewest frames that a chunk may have."""
        needed = self.frame_overlap + 1 if self.is_exact else 2 * self.frame_overlap
        return max(needed, self.spec.min_frames)

    def _shorten(self, reason: str) -> None:
        """Make chunks shorter, to the half if that can be, for the clips that follow too."""
        assert self.frames is not None
        self.frames = max(self.frames // 2, self._shortest())
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("%s: continuing with tiling.frames=%d", reason, self.frames)


def frame_by_frame(upscale: Upscale) -> ClipUpscale:
    """Return what upscales clips with what upscales single images."""

    def upscale_clip(frames: Iterable[Frame], name: str = "the clip") -> Iterator[Pixels]:
        number = -1
        for number, frame in enumerate(frames):
            yield upscale(frame["lq"], f"{name}, frame {number}")
        if number < 0:
            raise DataError(f"{name}: no frames to upscale")

    return upscale_clip


def _lengths(
    spec: NetSpec, frames: int | str | None, overlap: int | None, is_exact: bool
) -> tuple[int | None, int]:
    """Return the frames of a chunk and how many neighbours share.

    Raises:
        ConfigError: if they do not go together.
    """
    if isinstance(frames, str) and frames != "auto":
        raise ConfigError(f"frames must be 'auto', a number of frames or null, got {frames!r}")
    if overlap is not None and overlap < 0:
        raise ConfigError(f"frame_overlap must be at least 0 frames, got {overlap}")
    if overlap is None:
        overlap = 2 * (spec.time_field or 0)
        if spec.time_field is None:
            overlap = _SHARED if not isinstance(frames, int) else min(_SHARED, frames // 2)
    least = max(overlap + 1 if is_exact else 2 * overlap, spec.min_frames, 1)
    if frames is None:
        return None, overlap
    if isinstance(frames, str):
        return max(_FRAMES, 3 * overlap, least), overlap
    if frames < least:
        raise ConfigError(
            f"frames={frames}: expected at least {least}, since neighbouring chunks share "
            f"{overlap} frames and the network wants {spec.min_frames}"
        )
    return frames, overlap


def _checked(frames: Iterable[Frame], spec: NetSpec, name: str) -> Iterator[dict[str, Tensor]]:
    """Yield each frame as tensors (C, H, W).

    Raises:
        DataError: if one is not as the network and the first frame ask for.
    """
    first: Pixels | None = None
    for number, frame in enumerate(frames):
        place = f"{name}, frame {number}"
        lq = frame["lq"]
        if lq.ndim != 3 or lq.shape[2] != 3 or lq.size == 0:
            raise DataError(f"{place}: expected (H, W, 3) pixels, got {lq.shape}")
        check_kind(lq, place)
        first = lq if first is None else first
        if (lq.shape, lq.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{place}: is {lq.shape} {lq.dtype}, but frame 0 is {first.shape} {first.dtype}"
            )
        tensors = {"lq": stored_tensor(lq)}
        for key, channels in spec.extra_inputs.items():
            tensors[key] = _extra(frame, key, (*lq.shape[:2], channels), place)
        yield tensors


def _extra(frame: Frame, key: str, shape: tuple[int, ...], place: str) -> Tensor:
    """Return an extra input as (C, H, W) float32, or raise a DataError."""
    if key not in frame:
        raise DataError(f"{place}: the network wants {key!r}; this frame has {', '.join(frame)}")
    found = frame[key]
    if found.shape != shape:
        raise DataError(f"{place}: {key} is {found.shape}, expected {shape} (H, W, channels)")
    if not np.isfinite(found).all():
        raise DataError(f"{place}: {key} holds values that are not finite")
    return torch.from_numpy(np.require(found, np.float32, ["C", "W"])).permute(2, 0, 1)
