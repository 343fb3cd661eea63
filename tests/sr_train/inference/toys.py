"""Small networks whose result is known without running them."""

import torch
from torch import nn
from torch.nn import functional

from sr_train.ops.spec import NetSpec


class Nearest(nn.Module):
    """Repeat every pixel `scale` times, then multiply and add."""

    def __init__(self, scale=2, colour="rgb", gain=1.0, offset=0.0, field=0):
        super().__init__()
        channels = 1 if colour == "y" else 3
        self.spec = NetSpec(
            scale=scale,
            in_channels=channels,
            out_channels=channels,
            colour=colour,
            receptive_field=field,
        )
        self.gain = nn.Parameter(torch.tensor(gain))
        self.offset = offset
        self.drop = nn.Dropout(0.5)
        self.shapes = []

    def forward(self, lq):
        self.shapes.append(tuple(lq.shape))
        assert lq.shape[1] == self.spec.in_channels
        x = self.drop(lq) * self.gain + self.offset
        return functional.interpolate(x, scale_factor=self.spec.scale, mode="nearest")
