"""What a loss may ask for, computed at most once per micro-batch and only if asked."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from sr_train.engine.ema import Shadow
from sr_train.engine.learner import Learner
from sr_train.engine.precision import Precision
from sr_train.ops.colour import YCbCr
from sr_train.ops.errors import ConfigError
from sr_train.ops.resize import resize_tensor
from sr_train.ops.spec import NetSpec

Logits = Tensor | Sequence[Tensor]
"""What a discriminator returns: one tensor, or one for each scale."""

_RANGE = {torch.uint8: 255.0, torch.uint16: 65535.0}


def to_unit_range(pixels: Tensor) -> Tensor:
    """Turn stored pixels into float32 in [0, 1]; float input is returned as float32 unchanged."""
    if pixels.dtype in _RANGE:
        return pixels.float().div_(_RANGE[pixels.dtype])
    return pixels.float()


class View(Protocol):
    """The values of a micro-batch as the losses of one learner see them."""

    @property
    def device(self) -> torch.device: ...

    @property
    def step(self) -> int: ...

    def picture(self, name: str, colour: str) -> Tensor: ...


class Parts(Protocol):
    """What a context takes from the model."""

    generator: Learner
    precision: Precision
    spec: NetSpec
    ycbcr: YCbCr
    device: torch.device
    wants_features: bool

    @property
    def ema(self) -> Shadow | None: ...

    @property
    def discriminator(self) -> Learner | None: ...

    def layout(self, picture: Tensor) -> Tensor: ...


class StepContext:
    """The lazy values of one micro-batch: `(B, C, H, W)`, float32, [0, 1], on the device.

    Only `pred`, and what a discriminator says of it, carries a graph. For a network of colour
    space `y` all pictures are luma.
    """

    def __init__(self, model: Parts, batch: Mapping[str, Tensor]) -> None:
        self._model = model
        self._batch = batch
        self._converted: dict[tuple[str, str], Tensor] = {}
        self.device = model.device

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
            return self._model.generator.wrapped(self.lq).float()

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

    @property
    def fake_logits(self) -> Logits:
        return self._fake[0]

    @property
    def fake_features(self) -> list[Tensor]:
        return self._fake[1]

    @property
    def real_logits(self) -> Logits:
        return self._real[0]

    @property
    def real_features(self) -> list[Tensor]:
        return self._real[1]

    @cached_property
    def _fake(self) -> tuple[Logits, list[Tensor]]:
        return self._judged(self.pred)

    @cached_property
    def _real(self) -> tuple[Logits, list[Tensor]]:
        with torch.no_grad():
            return self._judged(self.gt)

    def _judged(self, picture: Tensor) -> tuple[Logits, list[Tensor]]:
        # The bare module: the wrapper of several ranks waits for gradients that never come here.
        assert self._model.discriminator is not None
        net = self._model.discriminator.net
        with self._model.precision.autocast():
            if not self._model.wants_features:
                return in_float(net(self._model.layout(picture))), []
            logits, features = net(self._model.layout(picture), with_features=True)
            return in_float(logits), [feature.float() for feature in features]

    def picture(self, name: str, colour: str) -> Tensor:
        """Return `pred`, `gt`, ... in a colour space: `rgb` (the network's own), `y`, `cbcr`."""
        picture: Tensor = getattr(self, name)
        if colour == "rgb" or (colour == "y" and self._model.spec.colour == "y"):
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


class AdversaryContext:
    """The same micro-batch as the discriminator's losses see it.

    Its pictures are detached and float32, whatever the generator ran in; its logits carry a graph
    to the discriminator's weights.
    """

    def __init__(self, ctx: StepContext, learner: Learner, model: Parts) -> None:
        self._ctx = ctx
        self._learner = learner
        self._model = model
        self.device = ctx.device

    @property
    def step(self) -> int:
        """The discriminator's own step under way; 1 for the first, however seldom it learns."""
        return self._learner.steps + 1

    @property
    def net_d(self) -> nn.Module:
        return self._learner.net

    @cached_property
    def fake(self) -> Tensor:
        return self._ctx.pred.detach()

    @cached_property
    def real(self) -> Tensor:
        return self._ctx.gt.detach()

    @cached_property
    def fake_logits(self) -> Logits:
        return self._judged(self.fake)

    @cached_property
    def real_logits(self) -> Logits:
        return self._judged(self.real)

    def picture(self, name: str, colour: str) -> Tensor:
        """Return `fake` or `real`; a discriminator sees the network's own planes alone."""
        assert colour == "rgb", colour
        picture: Tensor = getattr(self, name)
        return picture

    def _judged(self, picture: Tensor) -> Logits:
        with self._model.precision.autocast():
            return in_float(self._learner.wrapped(self._model.layout(picture)))


def in_float(logits: Logits) -> Logits:
    """Return logits in float32."""
    return logits.float() if isinstance(logits, Tensor) else [each.float() for each in logits]
