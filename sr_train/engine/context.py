"""What a loss may ask for, computed at most once per micro-batch and only if asked."""

from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sr_train.engine.ema import Ema
from sr_train.engine.learner import Learner
from sr_train.engine.precision import Precision
from sr_train.ops.colour import YCbCr
from sr_train.ops.errors import ConfigError
from sr_train.ops.resize import resize_tensor
from sr_train.ops.spec import NetSpec

ASKABLE = ("pred", "target", "gt", "lq", "lq_up", "ema_pred", "step")
"""Parameter names by which a loss gets a value; `target` is `gt` or `lq_up` as its term says."""

_RANGE = {torch.uint8: 255.0, torch.uint16: 65535.0}


def to_unit_range(pixels: Tensor) -> Tensor:
    """Turn stored pixels into float32 in [0, 1]; float input is returned as float32 unchanged."""
    if pixels.dtype in _RANGE:
        return pixels.float().div_(_RANGE[pixels.dtype])
    return pixels.float()


class Parts(Protocol):
    """What a context takes from the model."""

    generator: Learner
    ema: Ema | None
    precision: Precision
    spec: NetSpec
    ycbcr: YCbCr
    device: torch.device

    def layout(self, picture: Tensor) -> Tensor: ...


class StepContext:
    """The lazy values of one micro-batch: `(B, C, H, W)`, float32, [0, 1], on the device.

    Only `pred` carries a graph. For a network of colour space `y` all pictures are luma.
    """

    def __init__(self, model: Parts, batch: Mapping[str, Tensor]) -> None:
        self._model = model
        self._batch = batch
        self._converted: dict[tuple[str, str], Tensor] = {}

    @cached_property
    def lq(self) -> Tensor:
        return self._model.layout(self._picture("lq"))

    @cached_property
    def gt(self) -> Tensor:
        return self._picture("gt")

    @cached_property
    def pred(self) -> Tensor:
        """The generator's output, forward under autocast, handed on in float32."""
        with self._model.precision.autocast():
            return self._model.generator.net(self.lq).float()

    @cached_property
    def ema_pred(self) -> Tensor:
        """The averaged generator's output."""
        if self._model.ema is None:
            raise ConfigError("a loss asks for ema_pred, but ema.enabled=false; expected true")
        with torch.no_grad(), self._model.precision.autocast():
            return self._model.ema.net(self.lq).float()

    @cached_property
    def lq_up(self) -> Tensor:
        """`lq` upscaled by antialiased bicubic to the size of `gt`."""
        height, width = self.gt.shape[-2:]
        with torch.no_grad():
            return resize_tensor(self.lq, (height, width))

    @property
    def step(self) -> int:
        """The step under way; 1 for the first."""
        return self._model.generator.steps + 1

    def picture(self, name: str, colour: str) -> Tensor:
        """Return `pred`, `gt`, ... in a colour space: `native`, `y` or `cbcr`."""
        picture: Tensor = getattr(self, name)
        if colour == "native" or (colour == "y" and self._model.spec.colour == "y"):
            return picture
        key = (name, colour)
        if key not in self._converted:
            ycbcr = self._model.ycbcr
            self._converted[key] = (
                ycbcr.to_y(picture) if colour == "y" else ycbcr.to_ycbcr(picture)[:, 1:]
            )
        return self._converted[key]

    def _picture(self, name: str) -> Tensor:
        stored = self._batch[name].to(self._model.device, non_blocking=True)
        picture = to_unit_range(stored)
        return self._model.ycbcr.to_y(picture) if self._model.spec.colour == "y" else picture
