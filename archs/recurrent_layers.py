"""What BasicVSR and BasicVSR++ share: flow between frames, residual blocks, upsampling.

Names in the state dict are those of https://github.com/open-mmlab/mmagic, except for the flow
network's (see `sr_train.ops.spynet`); those of https://github.com/XPixelGroup/BasicSR, where both
programs publish the same weights, are accepted.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from archs.common import check_choice, check_count, run_block
from sr_train.api.names import accept_other_names
from sr_train.ops.spynet import make_spynet

SCALES = (1, 2, 4)

TAIL_CHANNELS = 64
"""Channels at the size of the result, whatever those of the features."""

OTHER_NAMES = {
    "backward_trunk.": "backward_resblocks.",
    "forward_trunk.": "forward_resblocks.",
    "upconv1.": "upsample1.upsample_conv.",
    "upconv2.": "upsample2.upsample_conv.",
}
"""Beginnings of names in BasicSR, and what stands for them here."""


def lrelu(x: Tensor) -> Tensor:
    """Rectify in place, keeping a tenth of what is below zero."""
    return functional.leaky_relu(x, 0.1, inplace=True)


def _init_scaled(conv: nn.Conv2d, gain: float) -> None:
    """Initialise for a rectifier, damped by `gain`, without a bias."""
    nn.init.kaiming_normal_(conv.weight)
    with torch.no_grad():
        conv.weight.mul_(gain)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


class ResidualBlock(nn.Module):
    """Two convolutions, added to their input; starts near the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        _init_scaled(self.conv1, 0.1)
        _init_scaled(self.conv2, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.relu(self.conv1(x), inplace=True))


class ResidualBlocks(nn.Module):
    """A convolution to the wanted channels and residual blocks on those."""

    def __init__(self, in_channels: int, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Sequential(*[ResidualBlock(channels) for _ in range(num_blocks)]),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x)


class Doubling(nn.Module):
    """Double both sides by a convolution and a pixel shuffle."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample_conv = nn.Conv2d(in_channels, out_channels * 4, 3, padding=1)
        _init_scaled(self.upsample_conv, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.upsample_conv(x), 2)


class RecurrentNet(nn.Module):
    """The flow network and the upsampling tail, under the names they have in both networks."""

    def __init__(
        self,
        num_doublings: int,
        mid_channels: int,
        spynet: str | Path | None,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.gradient_checkpointing = gradient_checkpointing
        self.spynet = make_spynet(spynet)
        channels = mid_channels
        self.doublings = [f"upsample{number}" for number in range(1, num_doublings + 1)]
        for name in self.doublings:
            last = name == self.doublings[-1]
            self.add_module(name, Doubling(channels, TAIL_CHANNELS if last else channels))
            channels = TAIL_CHANNELS if last else channels
        self.conv_hr = nn.Conv2d(channels, TAIL_CHANNELS, 3, padding=1)
        self.conv_last = nn.Conv2d(TAIL_CHANNELS, 3, 3, padding=1)
        accept_other_names(self)

    def own_name(self, name: str) -> str:
        """Return the name here of what BasicSR calls `name`."""
        for other, own in OTHER_NAMES.items():
            if name.startswith(other):
                return own + name.removeprefix(other)
        return name

    def run(self, block: Callable[..., Tensor], *args: Tensor | None) -> Tensor:
        """Call `block(*args)`; with gradient checkpointing, store nothing else for training."""
        return run_block(block, *args, recompute=self.gradient_checkpointing and self.training)

    def flows(self, colours: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Estimate the flow between neighbours.

        Args:
            colours: (B, T, 3, H, W) in [0, 1].

        Returns:
            T - 1 flows (B, 2, H, W) each: from a frame to the next one, to propagate backwards
            in time, and from a frame to the one before it, to propagate forwards.
        """
        batch, num_frames = colours.shape[:2]
        if num_frames == 1:
            return [], []
        earlier, later = colours[:, :-1].flatten(0, 1), colours[:, 1:].flatten(0, 1)
        to_next = self.run(self.spynet, earlier, later).unflatten(0, (batch, -1))
        to_last = self.run(self.spynet, later, earlier).unflatten(0, (batch, -1))
        return list(to_next.unbind(1)), list(to_last.unbind(1))

    def upsample(self, x: Tensor) -> Tensor:
        """Turn features (B, mid_channels, H, W) into an image to add to the upsampled input."""
        for name in self.doublings:
            x = lrelu(getattr(self, name)(x))
        return self.conv_last(lrelu(self.conv_hr(x)))


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Upsample (B, C, H, W) bilinearly, or return it as it is for a scale of 1."""
    if scale == 1:
        return image
    return functional.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)


def check_sizes(network: str, scale: int, mid_channels: int, num_blocks: int) -> None:
    """Raise a ConfigError for an unsupported scale, or a count below 1."""
    check_choice(network, "scale", scale, SCALES)
    check_count(network, "mid_channels", mid_channels)
    check_count(network, "num_blocks", num_blocks)
