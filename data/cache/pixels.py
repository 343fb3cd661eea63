"""Pixels on their way into a record, and out of it: depth, order of axes, windows."""

import numpy as np

from data.cache.frame_cache import Record
from data.index.segments import Track

Window = tuple[int, int, int]
"""Top, left and side of a square on the LQ grid."""


def deepened(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return pixels of 8 bit as 16 bit where those are wanted."""
    if pixels.dtype == dtype:
        return pixels
    # 255 * 257 = 65535, so white stays white.
    return pixels.astype(np.uint16) * np.uint16(257)


def planes(track: Track, pixels: np.ndarray) -> np.ndarray:
    """Return a frame of a further input as (S, h, w)."""
    if track.header.is_tensor:
        return pixels
    return np.moveaxis(deepened(pixels, np.dtype(track.header.dtype)), -1, 0)


def cropped(record: Record, window: Window, scale: int) -> Record:
    """Return the views of a window in a record; its arrays may have an axis of time in front."""
    top, left, side = window
    lq, gt, *extras = record
    rows, columns = slice(top, top + side), slice(left, left + side)
    end = slice(top * scale, (top + side) * scale), slice(left * scale, (left + side) * scale)
    return (
        lq[..., rows, columns, :],
        gt[..., end[0], end[1], :],
        *(extra[..., rows, columns] for extra in extras),
    )
