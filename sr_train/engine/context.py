"""What a loss may ask for, computed at most once per micro-batch and only if asked."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec
from sr_train.engine.averages import AveragedWeights
from sr_train.engine.guarding import called, checked_features, checked_logits
from sr_train.engine.learner import Learner
from sr_train.engine.precision import Precision
from sr_train.inference.calling import run_generator
from sr_train.ops.colour import YCbCr
from sr_train.ops.resize import resize_tensor

Logits = Tensor | Sequence[Tensor]
"""What a discriminator returns: one tensor, or one for each scale."""

_DISCRIMINATOR = "discriminator.arch"

_RANGE = {torch.uint8: 255.0, torch.uint16: 65535.0}


def _generator(net: nn.Module, fed: Tensor) -> object:
    return called(net, fed, "arch")


def to_unit_range(pixels: Tensor) -> Tensor:
    """Turn stored pixels into float32 in [0, 1]; float input is returned as float32 unchanged."""
    if pixels.dtype in _RANGE:
        return pixels.float().div_(_RANGE[pixels.dtype])
    return pixels.float()


def images_of(batch: Tensor) -> Tensor:
    """Return (..., C, H, W) as images (N, C, H, W), frame after frame."""
    return batch if batch.ndim == 4 else batch.flatten(0, -4)


class LossInputs(Protocol):
    """The values of a micro-batch as the losses of one learner see them."""

    @property
    def device(self) -> torch.device: ...

    @property
    def step(self) -> int: ...

    def image(self, name: str, colour: str) -> Tensor: ...


class ModelLike(Protocol):
    """What a context takes from the model."""

    generator: Learner
    precision: Precision
    spec: NetSpec
    ycbcr: YCbCr
    device: torch.device
    wants_features: bool
    discriminator_frames: int | None
    averages: dict[str, AveragedWeights]

    @property
    def discriminator(self) -> Learner | None: ...

    def layout(self, image: Tensor) -> Tensor: ...


class StepContext:
    """The lazy values of one micro-batch: `(N, C, H, W)`, float32, [0, 1], on the device.

    The networks get the batch as it is, clips as `(B, T, C, H, W)`; everybody else sees images,
    N = B * T, clip by clip. Only `pred`, and what a discriminator says of it, carries a graph. For
    a network of colour space `y` all images are luma.
    """

    def __init__(self, model: ModelLike, batch: Mapping[str, Tensor]) -> None:
        self._model = model
        self._batch = batch
        self._converted: dict[tuple[str, str], Tensor] = {}
        self.device = model.device

    @cached_property
    def net_input(self) -> Tensor:
        """What the generator is fed: `lq`, then its extra inputs, along the channels."""
        planes = [self._stored("lq")]
        planes += [self._extra(name) for name in self._model.spec.extra_inputs]
        return self._model.layout(planes[0] if len(planes) == 1 else torch.cat(planes, dim=-3))

    @cached_property
    def lq(self) -> Tensor:
        return images_of(self.net_input)[:, : self._model.spec.in_channels]

    @cached_property
    def gt(self) -> Tensor:
        return images_of(self._stored("gt"))

    @property
    def num_frames(self) -> int:
        """T of the clips; 1 for images."""
        shape = self._batch["lq"].shape
        return int(shape[1]) if len(shape) == 5 else 1

    @cached_property
    def pred(self) -> Tensor:
        """The generator's output, forward under autocast, handed on in float32."""
        return images_of(self._generated(self._model.generator.wrapped))

    @cached_property
    def ema_pred(self) -> Tensor:
        """The averaged generator's output."""
        if "ema" not in self._model.averages:
            raise ConfigError("a loss asks for ema_pred, but ema.enabled=false; expected true")
        with torch.no_grad():
            return images_of(self._generated(self._model.averages["ema"].net))

    def _generated(self, net: nn.Module) -> Tensor:
        """Return (B, C, H, W) or (B, T, C, H, W) float32 that a generator makes of the input."""
        with self._model.precision.autocast():
            return run_generator(net, self.net_input, self._model.spec, _generator).float()

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
        return self._discriminate(self.seen_by_discriminator(self.pred))

    @cached_property
    def _real(self) -> tuple[Logits, list[Tensor]]:
        with torch.no_grad():
            return self._discriminate(self.seen_by_discriminator(self.gt))

    def seen_by_discriminator(self, images: Tensor) -> Tensor:
        """Return those of a micro-batch that the discriminator sees: the same of each kind."""
        shown = self._shown
        return images if shown is None else images.index_select(0, shown)

    @cached_property
    def _shown(self) -> Tensor | None:
        """Numbers of the frames drawn from each clip; None: all."""
        wanted, frames = self._model.discriminator_frames, self.num_frames
        if wanted is None or wanted >= frames:
            return None
        draws = torch.rand(len(self._batch["lq"]), frames, device=self.device)
        drawn = draws.argsort(dim=1)[:, :wanted].sort(dim=1).values
        return (drawn + frames * torch.arange(len(drawn), device=self.device)[:, None]).flatten()

    def _discriminate(self, image: Tensor) -> tuple[Logits, list[Tensor]]:
        # The bare module: the wrapper of several ranks waits for gradients that never come here.
        assert self._model.discriminator is not None
        net = self._model.discriminator.net
        fed = self._model.layout(image)
        with self._model.precision.autocast():
            if not self._model.wants_features:
                return in_float(checked_logits(called(net, fed, _DISCRIMINATOR), net, fed)), []
            made = called(net, fed, _DISCRIMINATOR, with_features=True)
            logits, features = checked_features(made, net, fed)
            return in_float(logits), [feature.float() for feature in features]

    def image(self, name: str, colour: str) -> Tensor:
        """Return `pred`, `gt`, ... in a colour space: `rgb` (the network's own), `y`, `cbcr`."""
        image: Tensor = getattr(self, name)
        if colour == "rgb" or (colour == "y" and self._model.spec.colour == "y"):
            return image
        key = (name, colour)
        if key not in self._converted:
            ycbcr = self._model.ycbcr
            self._converted[key] = (
                ycbcr.to_y(image) if colour == "y" else ycbcr.to_ycbcr(image)[:, 1:]
            )
        return self._converted[key]

    def _stored(self, name: str) -> Tensor:
        """Return pixels of the batch in the network's colour space, with all their axes."""
        stored = self._batch[name].to(self._model.device, non_blocking=True)
        image = to_unit_range(stored)
        return self._model.ycbcr.to_y(image) if self._model.spec.colour == "y" else image

    def _extra(self, name: str) -> Tensor:
        """Return a tensor of the batch that is no image: its values as they are."""
        return self._batch[name].to(self._model.device, non_blocking=True).float()


class AdversaryContext:
    """The same micro-batch as the discriminator's losses see it.

    Its images are detached and float32, whatever the generator ran in; its logits carry a graph
    to the discriminator's weights.
    """

    def __init__(self, ctx: StepContext, learner: Learner, model: ModelLike) -> None:
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
        return self._ctx.seen_by_discriminator(self._ctx.pred.detach())

    @cached_property
    def real(self) -> Tensor:
        return self._ctx.seen_by_discriminator(self._ctx.gt)

    @cached_property
    def fake_logits(self) -> Logits:
        return self._discriminate(self.fake)

    @cached_property
    def real_logits(self) -> Logits:
        return self._discriminate(self.real)

    def image(self, name: str, colour: str) -> Tensor:
        """Return `fake` or `real`; a discriminator sees only the network's own planes."""
        assert colour == "rgb", colour
        image: Tensor = getattr(self, name)
        return image

    def _discriminate(self, image: Tensor) -> Logits:
        net, fed = self._learner.wrapped, self._model.layout(image)
        with self._model.precision.autocast():
            return in_float(checked_logits(called(net, fed, _DISCRIMINATOR), net, fed))


def in_float(logits: Logits) -> Logits:
    """Return logits in float32."""
    return logits.float() if isinstance(logits, Tensor) else [each.float() for each in logits]
