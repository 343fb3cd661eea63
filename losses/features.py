"""Frozen ImageNet classifiers, whose layers several losses compare images by.

One instance serves all losses of a process that ask for the same backbone, file and precision.
Nothing is ever downloaded: weights are torchvision's own files, named or in torch hub's cache.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from losses.common import check_pair
from sr_train.api.errors import did_you_mean
from sr_train.io.pretrained import find_weights, read_state, stored_tensor
from sr_train.ops.padding import pad_to

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
Pool = Callable[[Tensor], Tensor]

PLANES = (1, 3)
"""Planes of an image that the classifiers take: grey, and RGB."""

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class _Conv:
    """One convolution, with its place in torchvision's `features`."""

    index: int
    fan_in: int
    fan_out: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class _Backbone:
    file: str
    layers: dict[str, _Conv | None]
    """Name of each layer in order: a convolution, or None for a relu or a pool."""
    pool_kernel: int = 2
    least_side: int = 1
    """Smaller images are mirrored up to this side."""


def _vgg(file: str, depths: tuple[int, ...]) -> _Backbone:
    layers: dict[str, _Conv | None] = {}
    channels = 3
    for block, (depth, width) in enumerate(
        zip(depths, (64, 128, 256, 512, 512), strict=True), start=1
    ):
        for number in range(1, depth + 1):
            layers[f"conv{block}_{number}"] = _Conv(len(layers), channels, width)
            layers[f"relu{block}_{number}"] = None
            channels = width
        layers[f"pool{block}"] = None
    return _Backbone(file, layers)


BACKBONES = {
    "vgg16": _vgg("vgg16-397923af.pth", (2, 2, 3, 3, 3)),
    "vgg19": _vgg("vgg19-dcbb9e9d.pth", (2, 2, 4, 4, 4)),
    "alex": _Backbone(
        "alexnet-owt-7be5be79.pth",
        {
            "conv1": _Conv(0, 3, 64, kernel=11, stride=4, padding=2),
            "relu1": None,
            "pool1": None,
            "conv2": _Conv(3, 64, 192, kernel=5, padding=2),
            "relu2": None,
            "pool2": None,
            "conv3": _Conv(6, 192, 384),
            "relu3": None,
            "conv4": _Conv(8, 384, 256),
            "relu4": None,
            "conv5": _Conv(10, 256, 256),
            "relu5": None,
            "pool5": None,
        },
        pool_kernel=3,
        least_side=11,
    ),
}


class Features(nn.Module):
    """Layers of a frozen classifier: VGG16, VGG19 or AlexNet, as torchvision builds them.

    Layers are named as in the VGG papers: `conv3_4` is the fourth convolution of the third block
    before its ReLU, `relu3_4` the same after it, `pool3` the end of the block; AlexNet has
    `conv1`, `relu1`, `pool1` and so on.

    The weights are buffers, so that they move with the module but are in no optimizer, no
    gradient and no state dict. The network has no mode: `train()` changes nothing.

    In `bf16` and `fp16` the weights and the layers are of that dtype, and the results are fp32.
    In `fp16` the gradient is brought to a size that fits before it enters the network and put
    back after it, so that no weight of a term and no loss scale can underflow there; images are
    clamped to [-4, 5] first, for the activations to stay below 65504.

    Args:
        backbone: `vgg16`, `vgg19` or `alex`.
        state: torchvision's state dict; None for random weights, the same in every process.
        precision: of weights and layers.
        source: what to call the state dict in an error.

    Raises:
        CheckpointError: if the state dict is that of another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str,
        state: Mapping[str, Any] | None,
        precision: Precision = "fp32",
        source: str = "the state dict",
    ) -> None:
        super().__init__()
        self.backbone = BACKBONES[backbone]
        dtype = PRECISIONS[precision]
        generator = torch.Generator().manual_seed(0)
        for conv in filter(None, self.backbone.layers.values()):
            kernels = (conv.fan_out, conv.fan_in, conv.kernel, conv.kernel)
            if state is None:
                deviation = (2 / (conv.fan_out * conv.kernel**2)) ** 0.5
                weight = torch.randn(kernels, generator=generator) * deviation
                bias = torch.zeros(conv.fan_out)
            else:
                weight = stored_tensor(state, f"features.{conv.index}.weight", kernels, source)
                bias = stored_tensor(state, f"features.{conv.index}.bias", (conv.fan_out,), source)
            self.register_buffer(f"weight{conv.index}", weight.to(dtype), persistent=False)
            self.register_buffer(f"bias{conv.index}", bias.to(dtype), persistent=False)
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "Features":
        """Stay in evaluation mode, whatever the modules around do."""
        return super().train(False)

    def forward(
        self, image: Tensor, layers: Iterable[str], pool: Pool | None = None
    ) -> dict[str, Tensor]:
        """Return the named layers, in the network's order; later ones are not computed.

        Where a side is smaller than a pool's window the window shrinks, so that an image of one
        pixel passes; AlexNet's first convolution needs 11 pixels, and the image is mirrored.

        Args:
            image: (B, 3, H, W) or grey (B, 1, H, W), which counts as R = G = B; [0, 1]. Luma of
                studio range is grey with less contrast, 16 to 235 of 255, to the classifier.
            layers: names of layers.
            pool: taken in place of the max pools.

        Returns:
            (B, C, h, w) for each layer, fp32 (float64 for a network cast to it).

        Raises:
            ValueError: if the image has neither 1 nor 3 channels.
        """
        if image.ndim != 4 or image.shape[1] not in PLANES:
            raise ValueError(
                f"expected images of 1 or 3 channels, (B, C, H, W), got {tuple(image.shape)}"
            )
        dtype = self.get_buffer("weight0").dtype
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        exchange: list[Tensor] = []
        with torch.autocast(image.device.type, enabled=False):
            x = pad_to(image.to(wide), 1, self.backbone.least_side)
            if dtype == torch.float16:
                x = _RestoreGradient.apply(x.clamp(-4, 5), exchange)
            x = ((x - self.mean) / self.std).to(dtype)
            taps = self._run(x, set(layers), pool or self._max_pool)
            values: tuple[Tensor, ...] = tuple(tap.to(wide) for tap in taps.values())
            if dtype == torch.float16:
                values = _NormaliseGradient.apply(exchange, *values)
        return dict(zip(taps, values, strict=True))

    def pair(
        self, pred: Tensor, target: Tensor, layers: Iterable[str], pool: Pool | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the named layers of both images, see `forward`; those of `target` fixed.

        Raises:
            ValueError: if the shapes differ.
        """
        check_pair(pred, target)
        names = list(layers)
        found = self(pred, names, pool)
        with torch.no_grad():
            return found, self(target, names, pool)

    def _run(self, x: Tensor, wanted: set[str], pool: Pool) -> dict[str, Tensor]:
        taps: dict[str, Tensor] = {}
        before = ""
        for name, conv in self.backbone.layers.items():
            if conv is not None:
                weight, bias = self._weights(conv)
                x = F.conv2d(x, weight, bias, conv.stride, conv.padding)
            elif name.startswith("relu"):
                x = F.relu(x, inplace=before not in taps)
            else:
                x = pool(x)
            if name in wanted:
                taps[name] = x
                if len(taps) == len(wanted):
                    break
            before = name
        return taps

    def _weights(self, conv: _Conv) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"weight{conv.index}"), self.get_buffer(f"bias{conv.index}")

    def _max_pool(self, x: Tensor) -> Tensor:
        window = [min(self.backbone.pool_kernel, side) for side in x.shape[-2:]]
        return F.max_pool2d(x, window, stride=2)


_shared: WeakValueDictionary[tuple[str, Path | None, str], Features] = WeakValueDictionary()


def shared_features(
    backbone: str,
    weights: str | Path | None = None,
    random_init: bool = False,
    precision: Precision = "fp32",
) -> Features:
    """Return the extractor of this process for a backbone, a file and a precision.

    Args:
        backbone: `vgg16`, `vgg19` or `alex`.
        weights: torchvision's state dict; None looks in torch hub's cache
            (`$TORCH_HOME/hub/checkpoints`) for the file under torchvision's own name.
        random_init: leave the backbone untrained; for tests.
        precision: of weights and layers, see `Features`.

    Raises:
        CheckpointError: if the weights are not there or are something else.
        ValueError: if the backbone or the precision is unknown.
    """
    for word, valid in ((backbone, BACKBONES), (precision, PRECISIONS)):
        if word not in valid:
            raise ValueError(f"expected one of {', '.join(valid)}, got {word!r}")
    path = None if random_init else find_weights(backbone, BACKBONES[backbone].file, weights)
    key = (backbone, path and path.resolve(), precision)
    if path is None:  # said anew for each run of a process, though they share the extractor
        log.warning("%s runs with RANDOM weights: losses on it mean little", backbone)
    features = _shared.get(key)
    if features is None:
        state = None if path is None else read_state(path)
        features = _shared[key] = Features(backbone, state, precision, str(path))
    return features


def check_layers(backbone: str, layers: Iterable[str]) -> None:
    """Check names of layers.

    Raises:
        ValueError: if there is none, or one is unknown.
    """
    names = list(layers)
    known = BACKBONES[backbone].layers
    if not names:
        raise ValueError(f"expected at least one layer of {backbone}, got none")
    for name in names:
        if name not in known:
            raise ValueError(f"{backbone} has no layer {name!r}{did_you_mean(name, known)}")


class _NormaliseGradient(torch.autograd.Function):
    """Pass values on; scale the gradients together to a greatest size between 1 and 2.

    The scale, a power of two, is left in `exchange` for `_RestoreGradient`. It is a tensor: the
    host never waits for it.
    """

    @staticmethod
    def forward(ctx: Any, exchange: list[Tensor], *values: Tensor) -> tuple[Tensor, ...]:
        ctx.exchange = exchange
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        peak = torch.stack([grad.abs().amax() for grad in grads]).amax().clamp(min=1e-30)
        scale = torch.exp2(-torch.floor(torch.log2(peak)))
        ctx.exchange[:] = [scale]
        return (None, *(grad * scale for grad in grads))


class _RestoreGradient(torch.autograd.Function):
    """Pass an image on; take the scale of `_NormaliseGradient` off its gradient."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, exchange: list[Tensor]) -> Tensor:
        ctx.exchange = exchange
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad / ctx.exchange[0], None
