"""Small filters of image planes: Gaussian, Sobel and the variance of a window.

Each works on (B, C, H, W), plane by plane, in the floating dtype of the image whatever autocast
says, and takes images of one pixel. None uses TensorFloat-32: means of squares lose too many
digits in it.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional


@lru_cache(maxsize=64)
def _gaussian_taps(size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return `size` weights, symmetric, of sum 1."""
    # The cached taps must be usable in training even if first asked for in inference mode.
    with torch.inference_mode(False):
        position = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        weight = torch.exp(-0.5 * (position / sigma) ** 2)
        return (weight / weight.sum()).to(device=device, dtype=dtype)


@lru_cache(maxsize=64)
def _coverage(
    length: int, size: int, sigma: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return how much of the kernel lies inside of an axis, at each of its positions."""
    with torch.inference_mode(False):
        ones = torch.ones(1, 1, length, dtype=torch.float64)
        taps = _gaussian_taps(size, sigma, torch.float64, torch.device("cpu"))
        inside = functional.conv1d(ones, taps.view(1, 1, -1), padding=size // 2)
        return inside.flatten().to(device=device, dtype=dtype)


def _correlate(x: Tensor, rows: Tensor, columns: Tensor, padding: tuple[int, int]) -> Tensor:
    """Weigh the rows, then the columns, of every plane; zeros lie outside.

    All planes are channels of one image: so the GPU takes its kernel for one filter a channel,
    which multiplies in full precision.
    """
    planes = x.shape[0] * x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        y = x.reshape(1, planes, *x.shape[-2:]).contiguous()
        down = rows.view(1, 1, -1, 1).expand(planes, 1, -1, 1)
        across = columns.view(1, 1, 1, -1).expand(planes, 1, 1, -1)
        y = functional.conv2d(y, down, padding=(padding[0], 0), groups=planes)
        y = functional.conv2d(y, across, padding=(0, padding[1]), groups=planes)
    return y.view(*x.shape[:2], *y.shape[-2:])


def gaussian_inside(x: Tensor, window: int, sigma: float) -> Tensor:
    """Return the Gaussian mean of every window that lies wholly inside of the image.

    Args:
        x: (B, C, H, W), floating, any range.
        window: side of the square window in pixels, cut to the height and width of the image.
        sigma: standard deviation of the weights in pixels.

    Returns:
        (B, C, max(1, H - window + 1), max(1, W - window + 1)).
    """
    rows, columns = (min(window, side) for side in x.shape[-2:])
    down = _gaussian_taps(rows, sigma, x.dtype, x.device)
    across = _gaussian_taps(columns, sigma, x.dtype, x.device)
    return _correlate(x, down, across, (0, 0))


def gaussian_same(x: Tensor, window: int, sigma: float) -> Tensor:
    """Return the Gaussian mean around every pixel, over that part of the window which is inside.

    Args:
        x: (B, C, H, W), floating, any range.
        window: side of the square window in pixels, odd.
        sigma: standard deviation of the weights in pixels.

    Returns:
        (B, C, H, W); flat images stay as they are.

    Raises:
        ValueError: if the window is even.
    """
    if window % 2 == 0:
        raise ValueError(f"window must be odd, got {window}")
    taps = _gaussian_taps(window, sigma, x.dtype, x.device)
    sums = _correlate(x, taps, taps, (window // 2, window // 2))
    height, width = x.shape[-2:]
    down = _coverage(height, window, sigma, x.dtype, x.device)
    across = _coverage(width, window, sigma, x.dtype, x.device)
    return sums / (down.view(-1, 1) * across)


def sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return Sobel's derivatives along the width and along the height.

    Kernel (1, 2, 1) across and (-1, 0, 1) along, unscaled: a ramp of 1 per pixel gives 8. Border
    pixels are repeated outside of the image.

    Args:
        x: (B, C, H, W), floating, any range.

    Returns:
        Two tensors of the shape of `x`.
    """
    x = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
    x = torch.cat([x[..., :1, :], x, x[..., -1:, :]], dim=-2)
    tall = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]
    wide = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]
    return tall[..., 2:] - tall[..., :-2], wide[..., 2:, :] - wide[..., :-2, :]


def local_variance(x: Tensor, window: int) -> Tensor:
    """Return the unbiased variance of the square window around every pixel.

    The image is mirrored at its border, without repeating it. A window that the mirror cannot
    fill is cut to 2 * min(H, W) - 1, and one of a single pixel has variance 0.

    Args:
        x: (B, C, H, W), floating, any range.
        window: side of the window in pixels, odd.

    Returns:
        (B, C, H, W), at least 0.

    Raises:
        ValueError: if the window is even.
    """
    if window % 2 == 0:
        raise ValueError(f"window must be odd, got {window}")
    reach = min(window // 2, x.shape[-2] - 1, x.shape[-1] - 1)
    if reach == 0:
        return torch.zeros_like(x)
    # The variance does not mind the shift, and small numbers keep more of its digits.
    centred = x - x.mean(dim=(-2, -1), keepdim=True)
    side, count = 2 * reach + 1, (2 * reach + 1) ** 2
    padded = functional.pad(centred, (reach, reach, reach, reach), mode="reflect")
    mean = functional.avg_pool2d(padded, side, stride=1)
    mean_square = functional.avg_pool2d(padded * padded, side, stride=1)
    return (mean_square - mean * mean).clamp(min=0) * (count / (count - 1))
