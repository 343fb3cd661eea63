"""RRDBNet: the generator of ESRGAN, residual-in-residual dense blocks without normalisation.

Reference: ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, X. Wang et al.,
ECCVW 2018, https://arxiv.org/abs/1809.00219; the pixel-unshuffled x1 and x2 forms come from
Real-ESRGAN, ICCVW 2021, https://arxiv.org/abs/2107.10833.
Names in the state dict are those of https://github.com/XPixelGroup/BasicSR.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from archs.common import check_choice, check_count, colour_of, run_block
from sr_train.ops.padding import pad_to
from sr_train.ops.spec import NetSpec


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2, inplace=True)


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0)


class DenseBlock(nn.Module):
    """Five convolutions, each fed with everything before it, and a damped residual."""

    def __init__(self, num_feat: int, num_grow: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_grow, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat + num_grow, num_grow, 3, padding=1)
        self.conv3 = nn.Conv2d(num_feat + 2 * num_grow, num_grow, 3, padding=1)
        self.conv4 = nn.Conv2d(num_feat + 3 * num_grow, num_grow, 3, padding=1)
        self.conv5 = nn.Conv2d(num_feat + 4 * num_grow, num_feat, 3, padding=1)
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            nn.init.kaiming_normal_(conv.weight)
            with torch.no_grad():
                conv.weight.mul_(0.1)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y1 = _lrelu(self.conv1(x))
        y2 = _lrelu(self.conv2(torch.cat((x, y1), 1)))
        y3 = _lrelu(self.conv3(torch.cat((x, y1, y2), 1)))
        y4 = _lrelu(self.conv4(torch.cat((x, y1, y2, y3), 1)))
        return torch.add(x, self.conv5(torch.cat((x, y1, y2, y3, y4), 1)), alpha=0.2)


class RRDB(nn.Module):
    """Three dense blocks in a damped residual; reaches 15 pixels."""

    def __init__(self, num_feat: int, num_grow: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(num_feat, num_grow)
        self.rdb2 = DenseBlock(num_feat, num_grow)
        self.rdb3 = DenseBlock(num_feat, num_grow)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.rdb3(self.rdb2(self.rdb1(x))), alpha=0.2)


class RRDBNet(nn.Module):
    """Upscale features by 4 after a deep residual trunk.

    For x2 and x1 the input is first pixel-unshuffled by 2 or 4, so all three have the same trunk.

    Args:
        scale: 1, 2 or 4.
        in_channels: channels of `lq`.
        out_channels: channels of `pred`.
        num_feat: channels of the trunk.
        num_block: residual-in-residual blocks.
        num_grow: channels that each dense convolution adds.
        gradient_checkpointing: in training, store only each block's input and compute the rest
            again in the backward pass: much less memory, about a third more time.

    Raises:
        ConfigError: an unsupported scale or a count below 1.
    """

    def __init__(
        self,
        scale: int,
        in_channels: int = 3,
        out_channels: int = 3,
        num_feat: int = 64,
        num_block: int = 23,
        num_grow: int = 32,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_choice("RRDBNet", "scale", scale, (1, 2, 4))
        check_count("RRDBNet", "in_channels", in_channels)
        check_count("RRDBNet", "out_channels", out_channels)
        check_count("RRDBNet", "num_feat", num_feat)
        check_count("RRDBNet", "num_block", num_block)
        check_count("RRDBNet", "num_grow", num_grow)
        self.unshuffle = 4 // scale
        # On the grid of the features: 1 + 15 each + 1 in the trunk, and 2 through the upsampling.
        self.spec = NetSpec(
            scale=scale,
            in_channels=in_channels,
            out_channels=out_channels,
            colour=colour_of(in_channels, out_channels),
            size_multiple=self.unshuffle,
            min_size=self.unshuffle,
            receptive_field=self.unshuffle * (15 * num_block + 4),
        )
        self.gradient_checkpointing = gradient_checkpointing
        self.conv_first = nn.Conv2d(in_channels * self.unshuffle**2, num_feat, 3, padding=1)
        self.body = nn.Sequential(*[RRDB(num_feat, num_grow) for _ in range(num_block)])
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_up1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_up2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_last = nn.Conv2d(num_feat, out_channels, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, out_channels, H*scale, W*scale) for `lq` (B, in_channels, H, W)."""
        height, width = lq.shape[-2:]
        x = functional.pixel_unshuffle(pad_to(lq, self.unshuffle), self.unshuffle)
        shallow = self.conv_first(x)
        x = shallow
        for block in self.body:
            x = run_block(block, x, recompute=self.gradient_checkpointing and self.training)
        x = shallow + self.conv_body(x)
        x = _lrelu(self.conv_up1(_double(x)))
        x = _lrelu(self.conv_up2(_double(x)))
        pred = self.conv_last(_lrelu(self.conv_hr(x)))
        return pred[..., : height * self.spec.scale, : width * self.spec.scale]
