"""Bicubic resizing as MATLAB's imresize does it, for arrays and for tensors.

The kernel is Keys' cubic with a = -0.5; when shrinking it is stretched by 1 / scale against
aliasing. Borders are mirrored with the border pixel repeated. Sizes are (height, width).
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_KERNEL_WIDTH = 4
# A block of rows and its sums stay in the processor's cache.
_BLOCK_BYTES = 1 << 18


def imresize(
    image: np.ndarray,
    scale: float | Fraction | None = None,
    out_size: tuple[int, int] | None = None,
    antialias: bool = True,
    window: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """Resize an image bit for bit like MATLAB's `imresize(image, scale, 'bicubic')`.

    Height and width are resized one after the other (height first, unless the width shrinks
    more). Integer images are rounded half up and clipped after each pass; floating ones are
    neither.

    Args:
        image: (H, W) or (H, W, C); uint8, uint16 or floating, any range.
        scale: output over input length, e.g. 1 / 4; the output has ceil(length * scale) pixels.
        out_size: (height, width) of the output; exactly one of `scale` and `out_size` is given.
        antialias: False keeps the kernel 4 pixels wide when shrinking.
        window: (top, left, height, width) on the output; only this part is computed, and it
            equals the same part of the whole output bit for bit.

    Returns:
        The output, or its window, contiguous, of the image's dtype.

    Raises:
        ValueError: both or none of scale and size, an empty size, a window outside the output or
            a dtype that is none of those above.

    Reference: Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP
        1981, eq. 15, https://doi.org/10.1109/TASSP.1981.1163711
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise ValueError(f"image must be (H, W) or (H, W, C) and not empty, got {image.shape}")
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise ValueError(f"image must be uint8, uint16 or floating, got {image.dtype}")
    height, width = image.shape[:2]
    (out_height, scale_h), (out_width, scale_w) = _sizes(height, width, scale, out_size)
    top, left, rows, columns = window or (0, 0, out_height, out_width)
    if min(top, left) < 0 or top + rows > out_height or left + columns > out_width:
        raise ValueError(f"window {window} lies outside of ({out_height}, {out_width})")
    taps_h = _taps(height, out_height, scale_h, antialias)
    taps_w = _taps(width, out_width, scale_w, antialias)
    part_h = (taps_h[0][top : top + rows], taps_h[1][top : top + rows])
    part_w = (taps_w[0][left : left + columns], taps_w[1][left : left + columns])
    if scale_w < scale_h:
        return _transposed(_two_passes(_transposed(image), part_w, part_h))
    return _two_passes(image, part_h, part_w)


def resize_tensor(x: Tensor, out_size: tuple[int, int]) -> Tensor:
    """Resize the last two axes with the kernel of `imresize`, without rounding or clipping.

    Computed in float32 whatever autocast says, as two products with matrices that are made once
    per pair of lengths and device; meant for crops and screens, since the cost grows with the
    input length times the output length. Differentiable, deterministic.

    Args:
        x: (..., H, W), floating, any range.
        out_size: (height, width) of the output.

    Returns:
        (..., *out_size) of x's dtype and device.
    """
    height, width = x.shape[-2:]
    with torch.autocast(x.device.type, enabled=False):
        left = _matrix(height, out_size[0], x.device)
        right = _matrix(width, out_size[1], x.device)
        return (left @ x.float() @ right.mT).to(x.dtype)


def _sizes(
    height: int,
    width: int,
    scale: float | Fraction | None,
    out_size: tuple[int, int] | None,
) -> tuple[tuple[int, float], tuple[int, float]]:
    """Return (output length, scale of the kernel) of the height and of the width."""
    if (scale is None) == (out_size is None):
        raise ValueError("give exactly one of scale and out_size")
    if out_size is not None:
        if min(out_size) < 1:
            raise ValueError(f"out_size must be at least (1, 1), got {out_size}")
        return (out_size[0], out_size[0] / height), (out_size[1], out_size[1] / width)
    assert scale is not None
    if not scale > 0:
        raise ValueError(f"scale must be above 0, got {scale}")
    # A float scale such as 0.1 must not add a pixel by its last bit.
    lengths = [math.ceil(float(length * scale) - 1e-9) for length in (height, width)]
    return (max(1, lengths[0]), float(scale)), (max(1, lengths[1]), float(scale))


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Return Keys' kernel, a = -0.5, at float64 distances in pixels."""
    x = np.abs(distance)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, inner, np.where(x <= 2, outer, 0.0))


@lru_cache(maxsize=256)
def _taps(
    in_length: int, out_length: int, scale: float, antialias: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the float64 weights and input positions, both (out_length, taps), of one axis."""
    stretch = min(scale, 1.0) if antialias else 1.0
    support = _KERNEL_WIDTH / stretch
    # Pixel centres at 1, 2, 3, ...: the grid on which MATLAB rounds.
    centre = np.arange(1, out_length + 1) / scale + 0.5 * (1 - 1 / scale)
    first = np.floor(centre - support / 2)
    position = first[:, None] + np.arange(math.ceil(support) + 2)
    weight = stretch * _cubic(stretch * (centre[:, None] - position))
    weight /= weight.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(in_length), np.arange(in_length)[::-1]])
    index = mirrored[(position.astype(np.int64) - 1) % (2 * in_length)]
    used = (weight != 0).any(axis=0)
    weight, index = weight[:, used], index[:, used]
    weight.flags.writeable = index.flags.writeable = False
    return weight, index


@lru_cache(maxsize=64)
def _matrix(in_length: int, out_length: int, device: torch.device) -> Tensor:
    """Return the (out_length, in_length) float32 matrix of one axis on a device."""
    weight, index = _taps(in_length, out_length, out_length / in_length, True)
    dense = np.zeros((out_length, in_length))
    np.add.at(dense, (np.arange(out_length)[:, None], index), weight)
    # The cached matrix must be usable in training even if first asked for in inference mode.
    with torch.inference_mode(False):
        return torch.from_numpy(dense.astype(np.float32)).to(device)


def _transposed(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image.swapaxes(0, 1))


def _two_passes(
    image: np.ndarray,
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Resize axis 0, then axis 1, by the given weights and positions."""
    # Columns that the second pass does not touch need no first pass.
    low, high = int(second[1].min()), int(second[1].max()) + 1
    between = _transposed(_resize_rows(image[:, low:high], first[0], first[1]))
    return _transposed(_resize_rows(between, second[0], second[1] - low))


def _resize_rows(image: np.ndarray, weight: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return rows that are weighted sums of the image's rows, in the image's dtype.

    The products are summed tap by tap in float64, the same way for every row, so that a row
    does not depend on which others are computed.
    """
    low, high = int(index.min()), int(index.max()) + 1
    flat = image[low:high].reshape(high - low, -1)
    out = np.empty((len(weight), *image.shape[1:]), image.dtype)
    out_flat = out.reshape(len(weight), -1)
    step = max(1, _BLOCK_BYTES // (8 * flat.shape[1]))
    total = np.empty((min(step, len(weight)), flat.shape[1]))
    product = np.empty_like(total)
    for start in range(0, len(weight), step):
        block = slice(start, min(start + step, len(weight)))
        size = block.stop - start
        total[:size] = 0
        for tap in range(weight.shape[1]):
            rows = flat[index[block, tap] - low]
            np.multiply(rows, weight[block, tap, None], out=product[:size])
            total[:size] += product[:size]
        if image.dtype.kind == "u":
            top = np.iinfo(image.dtype).max
            total[:size] = np.floor(np.clip(total[:size], 0, top) + 0.5)
        out_flat[block] = total[:size]
    return out
