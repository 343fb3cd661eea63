"""What every loss does with its images before it looks at them."""

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """Return `x` in float32, or as it is where it is float32 or float64 already."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def fixed(x: Tensor) -> Tensor:
    """Return `x` widened and without a graph: something to compare with, not to train."""
    return widened(x.detach() if x.requires_grad else x)


def check_pair(pred: Tensor, target: Tensor) -> None:
    """Raise a ValueError unless the shapes agree."""
    if pred.shape != target.shape:
        raise ValueError(
            f"pred and target must have one shape, got {tuple(pred.shape)} and "
            f"{tuple(target.shape)}"
        )


def pair(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return `pred` widened and `target` fixed.

    Raises:
        ValueError: if the shapes differ.
    """
    check_pair(pred, target)
    return widened(pred), fixed(target)
