"""RRDBNet: the generator of ESRGAN, residual-in-residual dense blocks without normalisation.

Reference: ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, X. Wang et al.,
ECCVW 2018, https://arxiv.org/abs/1809.00219; the pixel-unshuffled x1 and x2 forms come from
Real-ESRGAN, ICCVW 2021, https://arxiv.org/abs/2107.10833.
Names in the state dict are those of https://github.com/XPixelGroup/BasicSR. Weights under the two
older naming schemes of https://github.com/xinntao/ESRGAN, which most published ones have, load too.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from archs.common import check_choice, check_count, colour_of, run_block
from sr_train.api.names import Argument, Shape
from sr_train.api.network import NetSpec
from sr_train.ops.padding import pad_to

_TRUNK = re.compile(
    r"(?:RRDB_trunk|(?:model\.)?1\.sub)\.(\d+)\.RDB([123])\.conv([1-5])(?:\.0)?\.(weight|bias)"
)
"""A convolution of the trunk, in both older schemes."""

_TRUNK_END = re.compile(r"(?:model\.)?1\.sub\.\d+\.(weight|bias)")
"""The convolution after the last block counts as one more item of the trunk."""

_LAYER = re.compile(r"(?:model\.)?(\d+)\.(weight|bias)")
"""A convolution outside the trunk, numbered together with what has no weights."""

_NUMBERED = {"0": "conv_first", "3": "conv_up1", "6": "conv_up2", "8": "conv_hr", "10": "conv_last"}
"""Where there are two upsampling stages of an upsampler, a convolution and an activation each."""

_NAMED = {
    "trunk_conv": "conv_body",
    "upconv1": "conv_up1",
    "upconv2": "conv_up2",
    "HRconv": "conv_hr",
}

_BLOCK = re.compile(r"body\.\d+\.")

_STAGES = {0: " (x1)", 1: " (x2 or x3)", 3: " (x8)", 4: " (x16)"}
"""What other numbers of upsampling stages make, without pixel-unshuffle."""


def _num_stages(shapes: Mapping[str, Shape]) -> int:
    """Count the upsampling stages that weights are of, under own names or an older scheme's.

    Where layers are numbered, the second one after the trunk and the last are no stages.
    """
    numbered = [name for name in shapes if _LAYER.fullmatch(name) and name.endswith(".weight")]
    own = [f"conv_up{stage}" for stage in (1, 2)]
    if not numbered:
        own += [f"upconv{stage}" for stage in range(3, 9)]
        return sum(f"{name}.weight" in shapes for name in own)
    taken = [f"{name}.weight" for name in _NUMBERED.values() if name != "conv_first"]
    return len(numbered) + sum(name in shapes for name in taken) - 2


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

    def own_name(self, name: str) -> str:
        """Return the name here of what an older scheme calls `name`."""
        trunk = _TRUNK.fullmatch(name)
        if trunk:
            return f"body.{trunk[1]}.rdb{trunk[2]}.conv{trunk[3]}.{trunk[4]}"
        end = _TRUNK_END.fullmatch(name)
        if end:
            return f"conv_body.{end[1]}"
        layer = _LAYER.fullmatch(name)
        if layer and layer[1] in _NUMBERED:
            return f"{_NUMBERED[layer[1]]}.{layer[2]}"
        head, _, kind = name.partition(".")
        return f"{_NAMED[head]}.{kind}" if head in _NAMED else name

    def arguments_in(self, shapes: Mapping[str, Shape]) -> dict[str, Argument] | None:
        """Read off the arguments of the RRDBNet that weights are of, see `Describes`."""
        ends = [shapes.get(f"{name}.weight", ()) for name in ("conv_first", "conv_last")]
        block = shapes.get("body.0.rdb1.conv1.weight", ())
        if len(ends[0]) != 4 or len(block) != 4:
            return None
        num_feat, in_channels = ends[0][:2]
        out_channels = ends[1][0] if ends[1] else self.spec.out_channels
        unshuffle = next((u for u in (2, 4) if in_channels == out_channels * u**2), 1)
        stages = _num_stages(shapes)
        return {
            "scale": 4 // unshuffle,
            "in_channels": in_channels // unshuffle**2,
            "out_channels": out_channels,
            "num_feat": num_feat,
            "num_block": len({name.split(".")[1] for name in shapes if _BLOCK.match(name)}),
            "num_grow": block[0],
            "upsampler": f"{stages} stage{'' if stages == 1 else 's'}{_STAGES.get(stages, '')}",
        }

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
