"""Upscale decoded images with a network: pixels in, pixels of the same kind out."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from sr_train.api.errors import ConfigError, DataError
from sr_train.api.network import NetSpec
from sr_train.inference.calling import run_generator
from sr_train.inference.sizing import SizedTiler
from sr_train.inference.tiling import Patch
from sr_train.inference.wrapping import (
    Pixels,
    check_finite,
    check_kind,
    evaluating,
    quantised,
    stored_tensor,
)
from sr_train.ops.colour import YCbCr
from sr_train.ops.resize import imresize

_LUMA_BLACK = 16 / 255
_LUMA_SPAN = 219 / 255


class Upscaler:
    """Upscale images in tiles, keeping depth and number of channels.

    Values are divided by 255 (or 65535), and the prediction is clipped and rounded half up. For a
    network of luma only, Cb and Cr are upscaled by MATLAB's bicubic. A grey image goes through
    an RGB network as R = G = B, and the luma of the prediction is the result; through a luma
    network it goes without chroma.

    Args:
        net: the generator, already on `device`; it is in eval mode during a call only.
        spec: what the network is; None: what its `spec` says.
        device: where tiles are sent; None: where the network's parameters are.
        autocast: makes the context in which the network runs.
        tile: LQ pixels on each side; None runs every image whole; `auto`: see `SizedTiler`.
        overlap: LQ pixels, see `Tiler`; None for what is said there and in `SizedTiler`.
        tile_batch: tiles that are run together.
        measure: how far tiles are from the whole, see `SizedTiler`.

    Raises:
        ConfigError: if the network takes neither RGB nor luma, or a number makes no sense.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: NetSpec | None = None,
        device: str | torch.device | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        tile: int | Literal["auto"] | None = "auto",
        overlap: int | None = None,
        tile_batch: int = 1,
        measure: bool = False,
    ) -> None:
        spec = _spec_of(net) if spec is None else spec
        channels = 1 if spec.colour == "y" else 3
        if (spec.in_channels, spec.out_channels) != (channels, channels):
            raise ConfigError(
                f"images need a network from {channels} to {channels} channels (colour "
                f"{spec.colour!r}); this one goes from {spec.in_channels} to {spec.out_channels}"
            )
        if spec.takes_clips:
            raise ConfigError("this network takes clips, not single images")
        if spec.extra_inputs:
            names = ", ".join(spec.extra_inputs)
            raise ConfigError(f"images have no further inputs; this network wants {names}")
        self.net = net
        self.spec = spec
        self.device = _device_of(net) if device is None else torch.device(device)
        self._autocast = autocast
        self._ycbcr = YCbCr().to(self.device)
        self._ycbcr_cpu = YCbCr()
        self._tiler = SizedTiler(spec, self.device, tile, overlap, tile_batch, measure)

    def __call__(self, pixels: Pixels, name: str = "the image") -> Pixels:
        """Return the upscaled image.

        Args:
            pixels: (H, W, 3) RGB or (H, W, 1) grey, uint8 or uint16.
            name: how errors call the image, e.g. its path.

        Returns:
            (H * scale, W * scale, C) of the same dtype.

        Raises:
            DataError: if the pixels are of another kind.
            SRTrainError: if the prediction is not finite, or the device has too little memory.
        """
        if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.size == 0:
            raise DataError(f"{name}: expected (H, W, 3) or (H, W, 1) pixels, got {pixels.shape}")
        check_kind(pixels, name)
        height, width, channels = pixels.shape
        scale = self.spec.scale
        out = np.empty((height * scale, width * scale, channels), pixels.dtype)
        lq = stored_tensor(pixels)[None]
        forward = partial(self._forward, white=int(np.iinfo(pixels.dtype).max))
        with torch.no_grad(), evaluating(self.net):
            chroma = _chroma(pixels) if self.spec.colour == "y" and channels == 3 else None
            for patch in self._tiler.patches(forward, lq, name):
                check_finite(patch, name)
                rows, columns = patch.pixels.shape[-2:]
                target = out[patch.top : patch.top + rows, patch.left : patch.left + columns]
                target[...] = quantised(self._finished(patch, channels, chroma), out.dtype)
        return out

    def upscale_alpha(self, alpha: Pixels) -> Pixels:
        """Return (H * scale, W * scale) of (H, W) alpha, by MATLAB's bicubic, same dtype."""
        return imresize(alpha, self.spec.scale)

    def _forward(self, window: Tensor, white: int) -> Tensor:
        """Return (B, 3, h, w) RGB or (B, 1, h, w) luma / 255 of stored values up to `white`."""
        lq = window.float() / white
        is_grey = lq.shape[1] == 1
        if is_grey:
            lq = lq.repeat(1, 3, 1, 1)  # a network may write into it
        if self.spec.colour == "y":
            lq = self._ycbcr.to_y(lq)
        with self._autocast():
            pred = run_generator(self.net, lq, self.spec)
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


def _spec_of(net: nn.Module) -> NetSpec:
    spec = getattr(net, "spec", None)
    if not isinstance(spec, NetSpec):
        raise ConfigError(
            f"{type(net).__name__} declares no spec; expected spec=NetSpec(scale=...)"
        )
    return spec


def _device_of(net: nn.Module) -> torch.device:
    return next((parameter.device for parameter in net.parameters()), torch.device("cpu"))


def _chroma(pixels: Pixels) -> Pixels:
    """Return (H, W, 2) float32 Cb and Cr / 255 of an RGB image."""
    rgb = torch.from_numpy(pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max))
    planes = YCbCr().to_ycbcr(rgb.permute(2, 0, 1))[1:]
    return planes.permute(1, 2, 0).contiguous().numpy()
