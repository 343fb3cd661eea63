"""Upscale decoded pictures with a network: pixels in, pixels of the same kind out."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sr_train.inference.tiling import BLEND_OVERLAP, Patch, Tiler
from sr_train.ops.colour import YCbCr
from sr_train.ops.errors import ConfigError, DataError, SRTrainError
from sr_train.ops.resize import imresize
from sr_train.ops.spec import NetSpec

log = logging.getLogger(__name__)

Pixels = npt.NDArray[Any]

_WIDE_FIELD = 64
"""Receptive field, in LQ pixels, from which exact tiles are too costly to be the default."""
_LUMA_BLACK = 16 / 255
_LUMA_SPAN = 219 / 255


class Upscaler:
    """Upscale pictures in tiles, keeping depth and number of channels.

    Values are divided by 255 (or 65535), and the prediction is clipped and rounded half up. For a
    network of luma alone, Cb and Cr are upscaled by MATLAB's bicubic. A grey picture goes through
    an RGB network as R = G = B, and the luma of the prediction is the result; through a luma
    network it goes without chroma.

    Args:
        net: the generator, already on `device`; it is in eval mode during a call only.
        spec: what the network says about itself.
        device: where tiles are sent.
        autocast: makes the context in which the network runs.
        tile: LQ pixels on each side; None runs every picture whole. `auto` runs small pictures
            whole and cuts larger ones: into exact tiles if the receptive field is at most 64
            pixels, else into tiles of 256 that share 32 and are blended.
        overlap: LQ pixels, see `Tiler`; None for what is said there and above.
        tile_batch: tiles that are run together.

    Raises:
        ConfigError: if the network takes neither RGB nor luma, or a number makes no sense.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: NetSpec,
        device: str | torch.device = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        tile: int | Literal["auto"] | None = "auto",
        overlap: int | None = None,
        tile_batch: int = 1,
    ) -> None:
        channels = 1 if spec.colour == "y" else 3
        if (spec.in_channels, spec.out_channels) != (channels, channels):
            raise ConfigError(
                f"pictures need a network from {channels} to {channels} channels (colour "
                f"{spec.colour!r}); this one goes from {spec.in_channels} to {spec.out_channels}"
            )
        if isinstance(tile, str) and tile != "auto":
            raise ConfigError(f"tile must be 'auto', a number of pixels or null, got {tile!r}")
        self.net = net
        self.spec = spec
        self.device = torch.device(device)
        self._autocast = autocast
        self._ycbcr = YCbCr().to(self.device)
        self._ycbcr_cpu = YCbCr()
        self._largest_whole = 0
        if tile == "auto":
            tile, overlap, self._largest_whole = _auto(spec, self.device, overlap)
        self._tiles = Tiler(spec, self.device, tile, overlap, tile_batch)
        self._whole = Tiler(spec, self.device, None, overlap, tile_batch)

    def __call__(self, pixels: Pixels, name: str = "the picture") -> Pixels:
        """Return the upscaled picture.

        Args:
            pixels: (H, W, 3) RGB or (H, W, 1) grey, uint8 or uint16.
            name: how errors call the picture, e.g. its path.

        Returns:
            (H * scale, W * scale, C) of the same dtype.

        Raises:
            DataError: if the pixels are of another kind.
            SRTrainError: if the prediction is not finite, or the device has too little memory.
        """
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
            raise DataError(f"{name}: expected (H, W, 3) or (H, W, 1) pixels, got {pixels.shape}")
        if pixels.dtype not in (np.uint8, np.uint16):
            raise DataError(f"{name}: expected uint8 or uint16 pixels, got {pixels.dtype}")
        height, width, channels = pixels.shape
        scale = self.spec.scale
        out = np.empty((height * scale, width * scale, channels), pixels.dtype)
        stored = pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)
        writable = np.require(stored, requirements=["C", "W"])
        lq = torch.from_numpy(writable).permute(2, 0, 1)[None]
        forward = partial(self._forward, white=int(np.iinfo(pixels.dtype).max))
        is_small = height * width <= self._largest_whole
        with torch.no_grad(), evaluating(self.net):
            chroma = _chroma(pixels) if self.spec.colour == "y" and channels == 3 else None
            for patch in (self._whole if is_small else self._tiles).patches(forward, lq):
                _check_finite(patch, name)
                rows, columns = patch.pixels.shape[-2:]
                target = out[patch.top : patch.top + rows, patch.left : patch.left + columns]
                target[...] = _quantised(self._finished(patch, channels, chroma), out.dtype)
        return out

    def upscale_alpha(self, alpha: Pixels) -> Pixels:
        """Return (H * scale, W * scale) of (H, W) alpha, by MATLAB's bicubic, same dtype."""
        return imresize(alpha, self.spec.scale)

    def _forward(self, window: Tensor, white: int) -> Tensor:
        """Return (B, 3, h, w) RGB or (B, 1, h, w) luma / 255 of stored values up to `white`."""
        lq = window.float() / white
        is_grey = lq.shape[1] == 1
        if is_grey:
            lq = lq.expand(-1, 3, -1, -1)
        if self.spec.colour == "y":
            lq = self._ycbcr.to_y(lq)
        with self._autocast():
            pred: Tensor = self.net(lq)
        return self._ycbcr.to_y(pred.float()) if is_grey and self.spec.colour == "rgb" else pred

    def _finished(self, patch: Patch, channels: int, chroma: Pixels | None) -> Tensor:
        """Return a patch as (channels, h, w), in [0, 1] where it is to be black to white."""
        pred = patch.pixels[0]
        if channels == 1:
            return (pred - _LUMA_BLACK) / _LUMA_SPAN
        if chroma is None:
            return pred
        window = (patch.top, patch.left, pred.shape[1], pred.shape[2])
        upscaled = torch.from_numpy(imresize(chroma, self.spec.scale, window=window))
        return self._ycbcr_cpu.to_rgb(torch.cat([pred, upscaled.permute(2, 0, 1)]))


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


def _auto(spec: NetSpec, device: torch.device, overlap: int | None) -> tuple[int, int | None, int]:
    """Return tile, overlap and the largest number of LQ pixels that is run whole.

    A tile of 480 costs about as much time as the whole picture, and half its memory.
    """
    field = spec.receptive_field
    if field is not None and field <= (_WIDE_FIELD if overlap is None else overlap):
        tile, largest = (480, 512**2) if device.type == "cpu" else (512, 1024**2)
        return max(tile, 2 * field), overlap, largest
    if overlap is None:
        overlap = BLEND_OVERLAP
        if field is not None:
            log.info(
                "each pixel sees %d pixels around it: tiles of large pictures share %d and are "
                "blended; give overlap=%d for the exact result",
                field,
                overlap,
                field,
            )
    return max(256, 2 * overlap), overlap, 512**2


def _chroma(pixels: Pixels) -> Pixels:
    """Return (H, W, 2) float32 Cb and Cr / 255 of an RGB picture."""
    rgb = torch.from_numpy(pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max))
    planes = YCbCr().to_ycbcr(rgb.permute(2, 0, 1))[1:]
    return planes.permute(1, 2, 0).contiguous().numpy()


def _check_finite(patch: Patch, name: str) -> None:
    """Raise where the prediction holds NaN or infinity, which would be stored as black."""
    if not torch.isfinite(patch.pixels).all():
        raise SRTrainError(
            f"{name}: the network's prediction is not finite around row {patch.top}, column "
            f"{patch.left}; with half precision, try fp32, else the weights are damaged"
        )


def _quantised(planes: Tensor, dtype: np.dtype[Any]) -> Pixels:
    """Return (h, w, C) integers of (C, h, w) in [0, 1], clipped and rounded half up."""
    white = np.iinfo(dtype).max
    scaled = (planes * white + 0.5).floor_().clamp_(0, white)
    return scaled.permute(1, 2, 0).numpy().astype(dtype)
