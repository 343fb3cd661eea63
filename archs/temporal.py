"""TemporalWindow: an image network that sees each frame together with its neighbours.

The window of frames goes along the channel axis, as in the early fusion of Real-Time Video
Super-Resolution with Spatio-Temporal Networks and Motion Compensation, J. Caballero et al.,
CVPR 2017, https://arxiv.org/abs/1611.05250, section 3.1.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from archs.common import check_count, colour_of
from sr_train.api.errors import ConfigError
from sr_train.api.network import NetSpec


class TemporalWindow(nn.Module):
    """Turn an image network of `frames` times the channels of one frame into a clip network.

    The image network's input holds the centre frame first, then the others in their order; so
    one that adds its first channels to its result starts from the frame it restores. At the ends
    of a clip the first or last frame stands in for those that are missing.

    Args:
        net: an image network with a `spec`.
        frames: length of the window; odd.
        extra_inputs: further inputs by name and their channels, which follow the colours of
            their frame.

    Raises:
        ConfigError: an even window, a network that takes clips or says nothing about itself, or
            channels that do not divide by `frames`.
    """

    offsets: Tensor

    def __init__(
        self, net: nn.Module, frames: int, extra_inputs: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        check_count("TemporalWindow", "frames", frames)
        if frames % 2 == 0:
            raise ConfigError(
                f"TemporalWindow: frames must be odd, with the frame to restore in the middle; "
                f"got {frames}, nearest: {frames - 1}, {frames + 1}"
            )
        inner = _spec_of(net)
        extra_inputs = dict(extra_inputs or {})
        for name, channels in extra_inputs.items():
            check_count("TemporalWindow", f"extra_inputs.{name}", channels)
        colours = inner.in_channels // frames - sum(extra_inputs.values())
        if inner.in_channels % frames or colours < 1:
            per_frame = " + ".join(map(str, (3, *extra_inputs.values())))
            raise ConfigError(
                f"TemporalWindow: net.in_channels must be {frames} frames of so many channels "
                f"each, for RGB {frames} * ({per_frame}) = "
                f"{frames * (3 + sum(extra_inputs.values()))}; got {inner.in_channels}"
            )
        self.spec = replace(
            inner,
            in_channels=colours,
            colour=colour_of(colours, inner.out_channels),
            takes_clips=True,
            time_field=frames // 2,
            extra_inputs=extra_inputs,
        )
        radius = frames // 2
        offsets = torch.tensor([0, *range(-radius, 0), *range(1, radius + 1)])
        self.register_buffer("offsets", offsets, persistent=False)
        self.net = net

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, T, out_channels, H*scale, W*scale) for `lq` (B, T, C, H, W)."""
        batch, length = lq.shape[:2]
        position = torch.arange(length, device=lq.device)
        window = (position[:, None] + self.offsets).clamp(0, length - 1)
        stacked = lq[:, window].flatten(0, 1).flatten(1, 2)
        return self.net(stacked).unflatten(0, (batch, length))


def _spec_of(net: nn.Module) -> NetSpec:
    """Return what an image network says about itself."""
    spec = getattr(net, "spec", None)
    kind = type(net).__name__
    if not isinstance(spec, NetSpec):
        raise ConfigError(f"TemporalWindow: net must have a spec (NetSpec); {kind} has none")
    if spec.takes_clips:
        raise ConfigError(f"TemporalWindow: net must take images; {kind} takes clips already")
    return spec
