"""What lies between stored pixels and a network, for images and clips alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sr_train.api.errors import DataError, SRTrainError
from sr_train.inference.tiling import Patch

Pixels = npt.NDArray[Any]
"""(H, W, C), uint8 or uint16."""


class NonFinitePredictionError(SRTrainError):
    """A network made NaN or infinity of finite pixels."""


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Put a network in eval mode; afterwards every module has its own mode again."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def check_finite(patch: Patch, name: str) -> None:
    """Raise where the prediction holds NaN or infinity, which would be stored as black."""
    if not torch.isfinite(patch.pixels).all():
        raise NonFinitePredictionError(
            f"{name}: the network's prediction is not finite around row {patch.top}, column "
            f"{patch.left}; with half precision, try fp32, else the weights are damaged"
        )


def quantised(planes: Tensor, dtype: np.dtype[Any]) -> Pixels:
    """Return (..., h, w, C) integers of (..., C, h, w) in [0, 1], clipped and rounded half up."""
    white = np.iinfo(dtype).max
    scaled = (planes * white + 0.5).floor_().clamp_(0, white)
    return scaled.movedim(-3, -1).numpy().astype(dtype)


def check_kind(pixels: Pixels, name: str) -> None:
    """Raise a DataError where pixels are neither uint8 nor uint16."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{name}: expected uint8 or uint16 pixels, got {pixels.dtype}")


def stored_tensor(pixels: Pixels) -> Tensor:
    """Return (C, H, W) uint8 or int32, which holds uint16, of (H, W, C) pixels."""
    stored = pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)
    writable = np.require(stored, requirements=["C", "W"])
    return torch.from_numpy(writable).permute(2, 0, 1)
