"""What makes one doubt that a set is what its config means, though it can be used.

All of it is seen in a few samples. Limits are wide enough that honest sets pass: they were chosen
on photographs under blur, motion blur, noise, compression, haze, darkness, rain and median filters,
whose worst values stand beside them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from data.index.damage import BadFileError
from sr_train.api.text import one_line

_THUMB = 64
_WINDOW = 512
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_LEAST_CONTRAST = 5.0
_UNLIKE = 0.25
"""Correlation of thumbnails: of unrelated ones 0.01 (90 % below 0.25), of honest pairs 0.6."""
_NO_PEAK = 0.3
"""Height of the phase correlation's peak, which fine texture has although thumbnails differ."""
_LIKE = 0.9
_SHIFT = 1.5
_SURE_SHIFT = 0.55
"""The same height: 0.65 or more under all but long motion blur, which has 0.42 or less."""
_SHARPER, _AT_EDGES = 1.5, 0.45
"""Details of the LQ over those of the GT, and how far the surplus goes with the GT's edges: 1.5 to
20 and 0.5 to 0.7 where blurred and sharp images are swapped; noise has 0.0, coarse quantisation
2.0 and 0.38, gamma 1.3 and 0.26."""
_FEWEST = 3
_MOST_SIZES = 300


class Pair(NamedTuple):
    """A sample, uncropped."""

    name: str
    lq: np.ndarray
    """(h, w, 3), uint8 or uint16."""
    gt: np.ndarray
    """(h * scale, w * scale, 3), of the same dtype."""


@dataclass(frozen=True)
class Sized:
    """An image or sequence, by its GT."""

    name: str
    """Path below the root, without suffix."""
    height: int
    width: int


def spread(count: int, wanted: int) -> list[int]:
    """Return up to `wanted` places spread evenly over `count`."""
    wanted = min(count, max(0, wanted))
    return [(2 * place + 1) * count // (2 * wanted) for place in range(wanted)]


def doubts(
    pairs: Iterable[Pair],
    scale: int,
    items: Sequence[Sized],
    read: Callable[[int], np.ndarray],
) -> list[str]:
    """Return one line for each thing that is odd about a set.

    Args:
        pairs: a few samples whose LQ comes from files.
        scale: between LQ and GT.
        items: all images or sequences of the set.
        read: returns the GT of the item at a place, (H, W, 3).
    """
    try:
        return [*doubts_about_pairs(list(pairs), scale), *doubts_about_sizes(items, read)]
    except BadFileError as error:
        return [f"samples could not be compared: {error}"]


def doubts_about_pairs(pairs: Sequence[Pair], scale: int) -> list[str]:
    """Return what is odd about LQ and GT that come from files, one line each.

    Args:
        pairs: a few samples.
        scale: between LQ and GT.
    """
    if not pairs:
        return []
    if scale == 1 and all(np.array_equal(pair.lq, pair.gt) for pair in pairs):
        return [f"lq and gt are the same in all of {len(pairs)} samples: nothing is to be learned"]
    offsets = [_offset(pair, scale) for pair in pairs]
    shift = _shift([offset for offset in offsets if offset is not None])
    if shift:
        return [shift]
    unlike = [
        pair.name
        for pair, offset in zip(pairs, offsets, strict=True)
        if _likeness(pair.lq, pair.gt) < _UNLIKE and (offset is None or offset.peak < _NO_PEAK)
    ]
    if unlike:
        return [
            f"lq and gt show different things in {len(unlike)} of {len(pairs)} samples, such as "
            f"{one_line(unlike[0])}: are the names of the two folders paired as meant?"
        ]
    return [*_swapped(pairs, scale), *_grey(pairs)]


def doubts_about_sizes(items: Sequence[Sized], read: Callable[[int], np.ndarray]) -> list[str]:
    """Return a line where the GT holds images and smaller versions of them.

    Args:
        items: all images or sequences of the set.
        read: returns the GT of the item at a place, (H, W, 3).
    """
    if not _may_be_versions(items):
        return []
    for depth in (2, 1):
        versions = _versions(items, depth)
        for (large, small, factor), places in versions.items():
            tried = [places[place] for place in spread(len(places), 3)]
            if all(_likeness(read(a), read(b)) > _LIKE for a, b in tried):
                large, small = one_line(large) or ".", one_line(small) or "."
                return [
                    f"gt holds {len(places)} images of {large!r} again in {small!r}, {factor} "
                    "times smaller, so that these are ground truth too; name the folder of the "
                    f"large ones, or add exclude=['{small}/*']"
                ]
    return []


def _may_be_versions(items: Sequence[Sized]) -> bool:
    """Return whether some size is a whole number of times another; a quick look at many."""
    sizes = [Sized("", *size) for size in {(item.height, item.width) for item in items}]
    if len(sizes) > _MOST_SIZES:
        return True
    return any(_factor(large, small) for large in sizes for small in sizes)


def _versions(
    items: Sequence[Sized], depth: int
) -> dict[tuple[str, str, int], list[tuple[int, int]]]:
    """Return places of (large, small) by their folders and factor, most first.

    Args:
        items: all of the set.
        depth: how many last parts of a name the two have in common.
    """
    by_end: dict[str, list[tuple[str, int]]] = {}
    for place, item in enumerate(items):
        folders, name = item.name.split("/")[:-depth], item.name.split("/")[-depth:]
        for key in {"/".join(name), _without_ending("/".join(name))}:
            by_end.setdefault(key, []).append(("/".join(folders), place))
    found: dict[tuple[str, str, int], list[tuple[int, int]]] = {}
    for each in by_end.values():
        if not 2 <= len(each) <= 8:
            continue  # names such as 0001, which every folder has
        for large, a in each:
            for small, b in each:
                factor = _factor(items[a], items[b])
                if factor is not None and large != small:
                    found.setdefault((large, small, factor), []).append((a, b))
    return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))


def _without_ending(name: str) -> str:
    for factor in "23468":
        for ending in (f"_x{factor}", f"x{factor}", f"X{factor}"):
            if name.endswith(ending):
                return name.removesuffix(ending)
    return name


def _factor(large: Sized, small: Sized) -> int | None:
    factor = large.height // max(1, small.height)
    sizes = large.height // max(1, factor), large.width // max(1, factor)
    return factor if factor >= 2 and sizes == (small.height, small.width) else None


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Return luma of 0 to 255, float32."""
    return (pixels.astype(np.float32) @ _LUMA) / (257.0 if pixels.dtype == np.uint16 else 1.0)


def _thumb(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(_luma(pixels), size, interpolation=cv2.INTER_AREA)


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two thumbnails; 1 where one of them shows nothing."""
    height, width = min(one.shape, other.shape)[:2]
    shrunk = min(1.0, _THUMB / max(height, width))
    size = max(1, round(width * shrunk)), max(1, round(height * shrunk))
    a, b = _thumb(one, size), _thumb(other, size)
    if min(a.std(), b.std()) < _LEAST_CONTRAST:
        return 1.0
    return _correlation(a, b)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    spread_of_both = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / max(spread_of_both, 1e-6)


def _windows(pair: Pair, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """Return luma of the middle of LQ and GT on the grid of the LQ."""
    height, width = pair.lq.shape[:2]
    top, left = max(0, height - _WINDOW) // 2, max(0, width - _WINDOW) // 2
    lq = pair.lq[top : top + _WINDOW, left : left + _WINDOW]
    rows, columns = lq.shape[:2]
    gt = pair.gt[top * scale : (top + rows) * scale, left * scale : (left + columns) * scale]
    return _luma(lq), _thumb(gt, (columns, rows))


class _Offset(NamedTuple):
    """Where the LQ lies on the GT, in LQ pixels."""

    right: float
    down: float
    peak: float
    """Of the phase correlation: 1 where both are the same but for that."""


def _offset(pair: Pair, scale: int) -> _Offset | None:
    """Return where the LQ lies on the GT; None where too little is to be seen."""
    lq, gt = _windows(pair, scale)
    if min(lq.shape) < _THUMB or min(lq.std(), gt.std()) < _LEAST_CONTRAST:
        return None
    hann = cv2.createHanningWindow(lq.shape[::-1], cv2.CV_32F)
    (right, down), peak = cv2.phaseCorrelate(gt, lq, hann)
    return _Offset(right, down, peak)


def _shift(offsets: Sequence[_Offset]) -> str | None:
    """Return a line where all samples are shifted alike."""
    if len(offsets) < _FEWEST:
        return None
    right, down, _ = np.median(offsets, axis=0)
    near = (abs(o.right - right) < 0.75 and abs(o.down - down) < 0.75 for o in offsets)
    if max(abs(right), abs(down)) < _SHIFT or not all(near):
        return None
    if min(offset.peak for offset in offsets) < _SURE_SHIFT:
        return None
    return (
        f"lq is shifted against gt by about ({right:+.1f}, {down:+.1f}) of its own pixels (right, "
        f"down) in all of {len(offsets)} samples"
    )


def _swapped(pairs: Sequence[Pair], scale: int) -> Iterable[str]:
    if scale != 1 or len(pairs) < _FEWEST:
        return
    values = [_surplus(*_windows(pair, scale)) for pair in pairs]
    sharper, at_edges = np.median(values, axis=0)
    if sharper >= _SHARPER and at_edges >= _AT_EDGES:
        yield (
            f"lq is sharper than gt along its edges ({sharper:.1f} times the details, in "
            f"{len(pairs)} samples): are gt and lq swapped?"
        )


def _surplus(lq: np.ndarray, gt: np.ndarray) -> tuple[float, float]:
    """Return how much more detail the LQ has, and how far that goes with the GT's edges.

    The second is a correlation of ranks over blocks: noise is everywhere, lost sharpness at edges.
    """
    wide_lq, wide_gt = cv2.GaussianBlur(lq, (0, 0), 4), cv2.GaussianBlur(gt, (0, 0), 4)
    covariance = float(((wide_lq - wide_lq.mean()) * (wide_gt - wide_gt.mean())).mean())
    gain = abs(covariance) / max(float(wide_gt.var()), 1e-6)
    details_lq = _blocks((lq - cv2.GaussianBlur(lq, (0, 0), 1)) ** 2) / max(gain, 1e-3) ** 2
    details_gt = _blocks((gt - cv2.GaussianBlur(gt, (0, 0), 1)) ** 2)
    smooth = cv2.GaussianBlur(gt, (0, 0), 2)
    slopes = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    edges = _blocks(slopes[0] ** 2 + slopes[1] ** 2)
    ratio = float(details_lq.mean()) / max(float(details_gt.mean()), 1e-6)
    return ratio, _correlation(_ranks(details_lq - details_gt), _ranks(edges))


def _blocks(energy: np.ndarray, side: int = 16) -> np.ndarray:
    """Return the mean of each block."""
    rows, columns = max(1, energy.shape[0] // side), max(1, energy.shape[1] // side)
    return cv2.resize(energy, (columns, rows), interpolation=cv2.INTER_AREA).ravel()


def _ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values, kind="stable")).astype(np.float64)


def _grey(pairs: Sequence[Pair]) -> Iterable[str]:
    grey = [pair for pair in pairs if not _is_coloured(pair.lq) and _is_coloured(pair.gt)]
    if grey:
        yield (
            f"lq is grey beside a colour gt in {len(grey)} of {len(pairs)} samples, such as "
            f"{one_line(grey[0].name)}"
        )


def _is_coloured(pixels: np.ndarray) -> bool:
    """Return whether planes differ by more than what rounding leaves."""
    small = cv2.resize(pixels, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA).astype(np.float32)
    difference = small.max(axis=2) - small.min(axis=2)
    return float(difference.max()) > (2 * 257 if pixels.dtype == np.uint16 else 2)
