"""RGB, YCbCr and luma in the one convention of the super-resolution papers.

Convention: BT.601 with studio range, as MATLAB's `rgb2ycbcr` computes it. With R, G, B in [0, 1]
and results in units of one 8-bit level:

    Y  =  65.481 R + 128.553 G +  24.966 B +  16      (16 to 235)
    Cb = -37.797 R -  74.203 G + 112.000 B + 128      (16 to 240)
    Cr = 112.000 R -  93.786 G -  18.214 B + 128      (16 to 240)

Tensors carry these values divided by 255. Nothing is rounded or clipped.
"""

from collections.abc import Callable
from typing import Any, Self

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_MATRIX = (
    (65.481, 128.553, 24.966),
    (-37.797, -74.203, 112.0),
    (112.0, -93.786, -18.214),
)
_OFFSET = (16.0, 128.0, 128.0)


def _constants() -> tuple[Tensor, Tensor, Tensor]:
    """Return forward matrix, inverse matrix and offset in [0, 1] units, each rounded once."""
    matrix = torch.tensor(_MATRIX, dtype=torch.float64) / 255.0
    offset = torch.tensor(_OFFSET, dtype=torch.float64) / 255.0
    return matrix.float(), torch.linalg.inv(matrix).float(), offset.float()


def _weighted(x: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of the three channels, (..., 3, H, W) -> (..., H, W).

    Products and sums rather than a matrix product: the latter may run in TF32 on a GPU.
    """
    first, second, third = x.unbind(-3)
    return first * weights[0] + second * weights[1] + third * weights[2]


class YCbCr(nn.Module):
    """Convert between RGB and YCbCr in fp32, whatever autocast says; differentiable.

    The matrices are buffers: they move with the module, stay fp32 when the module is cast, and
    are not part of a state dict. Every method takes (..., 3, H, W) of a floating dtype and returns
    that dtype. The arithmetic never costs precision, but storing the result in a half type does:
    bf16 keeps luma to half an 8-bit level only, so convert `rgb.float()` where YCbCr is kept.

    Reference: ITU-R BT.601-7, section 3.5, https://www.itu.int/rec/R-REC-BT.601
    """

    matrix: Tensor
    inverse: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        matrix, inverse, offset = _constants()
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("inverse", inverse, persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Follow a move to another device, but neither a cast nor an emptied buffer."""
        super()._apply(fn, recurse)
        device = self.matrix.device
        self.matrix, self.inverse, self.offset = (x.to(device) for x in _constants())
        return self

    def to_ycbcr(self, rgb: Tensor) -> Tensor:
        """Return (..., 3, H, W) YCbCr / 255 of RGB in [0, 1]."""
        with torch.autocast(rgb.device.type, enabled=False):
            x = rgb.float()
            planes = [_weighted(x, self.matrix[i]) + self.offset[i] for i in range(3)]
            return torch.stack(planes, dim=-3).to(rgb.dtype)

    def to_y(self, rgb: Tensor) -> Tensor:
        """Return (..., 1, H, W) luma / 255, from 16/255 to 235/255, of RGB in [0, 1]."""
        with torch.autocast(rgb.device.type, enabled=False):
            luma_plane = _weighted(rgb.float(), self.matrix[0]) + self.offset[0]
            return luma_plane.unsqueeze(-3).to(rgb.dtype)

    def to_rgb(self, ycbcr: Tensor) -> Tensor:
        """Return (..., 3, H, W) RGB of YCbCr / 255; outside [0, 1] where no colour matches."""
        with torch.autocast(ycbcr.device.type, enabled=False):
            x = ycbcr.float() - self.offset.view(3, 1, 1)
            planes = [_weighted(x, self.inverse[i]) for i in range(3)]
            return torch.stack(planes, dim=-3).to(ycbcr.dtype)


def luma(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the luma of an image in 8-bit units, 16 to 235, unrounded.

    Args:
        pixels: (H, W, 3) RGB, or (H, W) or (H, W, 1) grey, which counts as R = G = B. uint8 in
            0..255, uint16 in 0..65535 or floating in 0..1.

    Returns:
        (H, W) float32. The unit does not depend on the dtype: white is 235 in 16 bits, too.

    Raises:
        ValueError: if the shape or the dtype is none of these.
    """
    if pixels.dtype in (np.uint8, np.uint16):
        white = float(np.iinfo(pixels.dtype).max)
    elif np.issubdtype(pixels.dtype, np.floating):
        white = 1.0
    else:
        raise ValueError(f"luma wants uint8, uint16 or floating pixels, got {pixels.dtype}")
    weights = np.array(_MATRIX[0]) / white
    x = pixels.astype(np.float32)
    if x.ndim == 2 or (x.ndim == 3 and x.shape[2] == 1):
        grey = x.reshape(x.shape[:2])
        return grey * np.float32(weights.sum()) + np.float32(_OFFSET[0])
    if x.ndim != 3 or x.shape[2] != 3:
        raise ValueError(f"luma wants (H, W, 3) or a grey image, got shape {pixels.shape}")
    row = np.append(weights, _OFFSET[0])[None]
    return np.asarray(cv2.transform(x, row), dtype=np.float32).reshape(x.shape[:2])
