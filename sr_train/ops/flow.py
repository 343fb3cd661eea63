"""Optical flow: where each pixel of an image lies in another one."""

import torch
from torch import Tensor
from torch.nn import functional


def flow_warp(
    image: Tensor, flow: Tensor, mode: str = "bilinear", padding: str = "zeros"
) -> Tensor:
    """Look up each pixel where its flow points to; in the dtype of `image`, positions in fp32.

    Args:
        image: (B, C, H, W).
        flow: (B, 2, H, W), in pixels: how far to the right and how far down to look.
        mode: `bilinear` or `nearest`.
        padding: beyond the borders, `zeros` or `border` (the nearest pixel).

    Returns:
        (B, C, H, W).
    """
    height, width = image.shape[-2:]
    flow = flow.float()
    x = torch.arange(width, device=flow.device, dtype=torch.float32) + flow[:, 0]
    y = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None] + flow[:, 1]
    grid = torch.stack([_to_unit(x, width), _to_unit(y, height)], dim=-1)
    with torch.autocast(image.device.type, enabled=False):
        warped = functional.grid_sample(image.float(), grid, mode, padding, align_corners=True)
    return warped.to(image.dtype)


def _to_unit(position: Tensor, length: int) -> Tensor:
    """Map 0 .. length - 1 to -1 .. 1, as grid_sample counts."""
    return 2.0 * position / max(length - 1, 1) - 1.0
