"""Few items of a validation set that stand for all: none is smaller, none has fewer frames."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from sr_train.api.dataset import ClipInMemory, TrainDataset, as_clip
from sr_train.api.errors import DataError
from sr_train.api.network import NetSpec
from sr_train.inference.probing import moderate
from sr_train.utils.failures import naming

log = logging.getLogger(__name__)

Size = tuple[int, int, int]
"""Frames, height and width, LQ pixels."""

About = Callable[[str, str], AbstractContextManager[None]]
"""Notes what fails in a block, by config path and what it is about."""

_FRAMES = 3
"""Frames of a clip that are looked at, or as many as the network wants."""

_LARGEST = 256
"""LQ pixels of a side that are looked at, or a little less."""

_PIXELS = (np.uint8, np.uint16)

_MOST = 6
_MOST_UNTOLD = 8
"""Items that are read of a set that does not report its sizes."""


class Item(ClipInMemory):
    """An image or clip in memory, as validation takes it."""

    def __str__(self) -> str:
        height, width = self.lq(0).shape[:2]
        return f"{width}x{height}" + (f", {len(self)} frames" if len(self) > 1 else "")


def sizes_of(path: str, dataset: TrainDataset) -> list[Size] | None:
    """Return the size of each item, from headers; None where the set does not report them.

    Raises:
        PluginError: naming a set of a user's own, where it fails.
    """
    with naming(path, dataset, lambda: "whole_sizes()"):
        told = dataset.whole_sizes()
        return None if told is None else [(frames, height, width) for frames, height, width in told]


def smallest(sizes: Iterable[Size]) -> list[Size]:
    """Return the sizes beside which no other is smaller or equal in all."""
    kept: list[Size] = []
    for size in sorted(set(sizes)):
        if not any(all(a <= b for a, b in zip(each, size, strict=True)) for each in kept):
            kept.append(size)
    return kept


def first_items(path: str, dataset: Any, spec: NetSpec, about: About) -> list[Item]:
    """Read the items of a set that stand for all of them.

    Args:
        path: config path of the set.
        dataset: for validation.
        spec: of the network.
        about: notes what is wrong with an item, which is then left out.
    """
    frames = max(_FRAMES, spec.min_frames)
    items = []
    for index in _chosen(path, dataset, frames, about):
        with about(path, f"whole({index})"):
            items.append(_read(dataset.whole(index), frames, spec))
    return items


def _chosen(path: str, dataset: Any, frames: int, about: About) -> list[int]:
    sizes = None
    with about(path, ""):
        sizes = sizes_of(path, dataset)
    if sizes is None:
        count = min(len(dataset), _MOST_UNTOLD)
        if count < len(dataset):
            log.info(
                "%s: reports no sizes (whole_sizes), so that %d of %d items are looked at",
                path,
                count,
                len(dataset),
            )
        return list(range(count))
    cut = [(min(length, frames), height, width) for length, height, width in sizes]
    least = smallest(cut)
    if len(least) > _MOST:
        log.info("%s: %d sizes are the smallest; %d are looked at", path, len(least), _MOST)
    return [cut.index(size) for size in least[:_MOST]]


def _read(whole: Any, frames: int, spec: NetSpec) -> Item:
    """Return an item with a few frames, cut to a moderate size.

    Raises:
        DataError: if it is not what a validation set gives.
    """
    clip = as_clip(whole)
    count = min(len(clip), frames)
    found = [{"lq": clip.lq(t), "gt": clip.gt(t), **clip.extras(t)} for t in range(count)]
    names = [clip.frame_name(t) for t in range(count)]
    if not found:
        raise DataError(f"{clip.name}: has no frame")
    for frame in found:
        _check(frame, str(clip.name), spec)
    return Item(str(clip.name), [_cut(frame, spec.scale) for frame in found], names)


def _check(frame: Mapping[str, Any], name: str, spec: NetSpec) -> None:
    for key, pixels in frame.items():
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 3:
            kind = getattr(pixels, "shape", type(pixels).__name__)
            raise DataError(f"{name}: {key} is {kind}, expected an array (H, W, C)")
        if key in {"lq", "gt"} and (pixels.dtype not in _PIXELS or pixels.shape[2] != 3):
            raise DataError(
                f"{name}: {key} is {pixels.shape} {pixels.dtype}, expected (H, W, 3) of uint8 or "
                "uint16"
            )
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise DataError(f"{name}: {key} holds values that are not finite")
    lq, gt = frame["lq"], frame["gt"]
    wanted = tuple(side * spec.scale for side in lq.shape[:2])
    if gt.shape[:2] != wanted or gt.dtype != lq.dtype:
        raise DataError(
            f"{name}: gt is {gt.shape} {gt.dtype}, but lq is {lq.shape} {lq.dtype}; expected a gt "
            f"of {wanted[1]}x{wanted[0]} pixels of the same dtype at scale {spec.scale}"
        )


def _cut(frame: Mapping[str, np.ndarray], scale: int) -> dict[str, np.ndarray]:
    height, width = (moderate(side, _LARGEST) for side in frame["lq"].shape[:2])
    cut = {key: value[:height, :width] for key, value in frame.items() if key != "gt"}
    return {**cut, "gt": frame["gt"][: height * scale, : width * scale]}
