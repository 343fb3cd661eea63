"""Cropped frames into the arrays of a batch: mirrored, turned, channels first.

A symmetry is a number from 0 to 7: bit 2 transposes, then bit 0 mirrors columns and bit 1 mirrors
rows.
"""

from collections.abc import Sequence

import cv2
import numpy as np

Crops = np.ndarray | Sequence[np.ndarray]
"""(T, ...) in one array of any stride, or as many arrays."""

# cv2.flip's code for mirrored columns (bit 0) and rows (bit 1).
_FLIP_CODE = {1: 1, 2: 0, 3: -1}
# Below, the calls cost more than the bytes.
_LEAST_FOR_CV2 = 48


def place_image(crop: np.ndarray, symmetry: int, out: np.ndarray) -> None:
    """Write an (n, n, 3) crop, of any row stride, into a contiguous (3, n, n) array."""
    if symmetry & 4:
        crop = cv2.transpose(crop)
    if symmetry & 3:
        crop = cv2.flip(crop, _FLIP_CODE[symmetry & 3])
    cv2.split(crop, [out[0], out[1], out[2]])


def place_images(crops: Crops, symmetry: int, out: np.ndarray) -> None:
    """Write (T, n, n, 3) into contiguous (T, 3, n, n)."""
    if isinstance(crops, np.ndarray) and (crops.shape[1] < _LEAST_FOR_CV2 or crops.itemsize > 1):
        out[...] = _mirrored(crops, symmetry).transpose(0, 3, 1, 2)
        return
    for crop, place in zip(crops, out, strict=True):
        place_image(crop, symmetry, place)


def place_tensors(crops: Crops, symmetry: int, out: np.ndarray) -> None:
    """Write (T, S, n, n) into (T, S, n, n)."""
    if isinstance(crops, np.ndarray):
        out[...] = _mirrored(crops.transpose(0, 2, 3, 1), symmetry).transpose(0, 3, 1, 2)
        return
    for crop, place in zip(crops, out, strict=True):
        place_tensors(crop[None], symmetry, place[None])


def _mirrored(crops: np.ndarray, symmetry: int) -> np.ndarray:
    """Return a view of (T, n, n, C)."""
    if symmetry & 4:
        crops = crops.swapaxes(1, 2)
    return crops[:, :: -1 if symmetry & 2 else 1, :: -1 if symmetry & 1 else 1]
