"""Pad images of any size to the sizes a network works on."""

import torch
from torch import Tensor
from torch.nn import functional


def _reflect_index(size: int, padded: int, device: torch.device) -> Tensor:
    """Return source positions 0..padded-1 mirrored without repeating the border pixel."""
    position = torch.arange(padded, device=device)
    if size == 1:
        return torch.zeros_like(position)
    period = 2 * (size - 1)
    position = position % period
    return torch.where(position < size, position, period - position)


def pad_to(x: Tensor, multiple: int, minimum: int = 1) -> Tensor:
    """Mirror the right and bottom edges until both sides suit the network.

    The mirror repeats as often as needed, so that a 1x1 image can become a window of 8x8.

    Args:
        x: (..., C, H, W), any size of at least one pixel.
        multiple: both sides of the result are multiples of this; neutral 1.
        minimum: both sides of the result are at least this; neutral 1.

    Returns:
        `x` itself where nothing is to be done, else a padded copy; crop with `[..., :h, :w]`.
    """
    height, width = x.shape[-2:]
    new_height = -(-max(height, minimum) // multiple) * multiple
    new_width = -(-max(width, minimum) // multiple) * multiple
    if (new_height, new_width) == (height, width):
        return x
    one_mirror = new_height < 2 * height and new_width < 2 * width
    if one_mirror and x.ndim == 4 and x.is_floating_point():
        return functional.pad(x, (0, new_width - width, 0, new_height - height), mode="reflect")
    x = x.index_select(-2, _reflect_index(height, new_height, x.device))
    return x.index_select(-1, _reflect_index(width, new_width, x.device))
