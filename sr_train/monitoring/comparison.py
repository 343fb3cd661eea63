"""A sheet of crops that shows a network beside bicubic and the truth."""

from collections.abc import Sequence

import cv2
import numpy as np

CROP = 160
"""Largest side of a crop, in GT pixels."""

_ZOOM = 2
_CAPTION = 28


def hardest_corner(bicubic: np.ndarray, gt: np.ndarray, size: int) -> tuple[int, int]:
    """Return (top, left) of the window where bicubic is farthest off, on a grid of size/4."""
    error = np.abs(bicubic.astype(np.float32) - gt).reshape(*gt.shape[:2], -1).mean(axis=2)
    rows, columns = error.shape
    step = max(1, size // 4)
    corners = [
        (top, left)
        for top in range(0, max(1, rows - size + 1), step)
        for left in range(0, max(1, columns - size + 1), step)
    ]
    return max(corners, key=lambda c: float(error[c[0] : c[0] + size, c[1] : c[1] + size].mean()))


def panel(bicubic: np.ndarray, pred: np.ndarray, gt: np.ndarray, size: int = CROP) -> np.ndarray:
    """Return one row: the same crop of bicubic, SR and GT side by side.

    Args:
        bicubic: (H, W, C), uint8 or uint16.
        pred: like `bicubic`.
        gt: like `bicubic`.
        size: largest side of the crop.

    Returns:
        (h, 3*w + gaps, 3), uint8.
    """
    top, left = hardest_corner(bicubic, gt, size)
    crops = [_as_rgb8(p[top : top + size, left : left + size]) for p in (bicubic, pred, gt)]
    gap = np.full((crops[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([crops[0], gap, crops[1], gap, crops[2]], axis=1)


def sheet(rows: Sequence[np.ndarray], captions: Sequence[str]) -> np.ndarray:
    """Stack panels, enlarged without smoothing, each under its caption.

    Args:
        rows: panels.
        captions: one line of text each.

    Returns:
        (H, W, 3), uint8, white ground.
    """
    zoomed = [np.repeat(np.repeat(row, _ZOOM, axis=0), _ZOOM, axis=1) for row in rows]
    width = max(row.shape[1] for row in zoomed)
    parts = []
    for row, caption in zip(zoomed, captions, strict=True):
        label = np.full((_CAPTION, width, 3), 255, np.uint8)
        cv2.putText(
            label, caption, (4, _CAPTION - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1,
            cv2.LINE_AA,
        )  # fmt: skip
        side = np.full((row.shape[0], width - row.shape[1], 3), 255, np.uint8)
        parts += [label, np.concatenate([row, side], axis=1)]
    return np.concatenate(parts, axis=0)


def _as_rgb8(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
