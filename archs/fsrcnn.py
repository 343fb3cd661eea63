"""FSRCNN: a small luma network that works on the LQ grid and ends in a transposed convolution.

Reference: Accelerating the Super-Resolution Convolutional Neural Network, C. Dong, C. C. Loy,
X. Tang, ECCV 2016, https://arxiv.org/abs/1608.00367.
Names in the state dict are those of the PyTorch port https://github.com/yjn870/FSRCNN-pytorch,
which pads with zeros; its weights load strictly.
"""

import math

from torch import Tensor, nn

from archs.common import check_choice, check_count
from sr_train.api.network import NetSpec


class FSRCNN(nn.Module):
    """Upscale luma: extract, shrink, map, expand, deconvolve.

    Args:
        scale: 2, 3 or 4.
        d: channels of the extracted features.
        s: channels of the mapping layers.
        m: number of mapping layers.

    Raises:
        ConfigError: an unsupported scale, or a count below its least value.
    """

    def __init__(self, scale: int, d: int = 56, s: int = 12, m: int = 4) -> None:
        super().__init__()
        check_choice("FSRCNN", "scale", scale, (2, 3, 4))
        check_count("FSRCNN", "d", d)
        check_count("FSRCNN", "s", s)
        check_count("FSRCNN", "m", m, least=0)
        # The deconvolution reaches (scale + 3) // scale pixels: 9x9, stride `scale`, padding 4.
        self.spec = NetSpec(
            scale=scale,
            in_channels=1,
            out_channels=1,
            colour="y",
            receptive_field=2 + m + (scale + 3) // scale,
        )
        self.first_part = nn.Sequential(nn.Conv2d(1, d, 5, padding=2), nn.PReLU(d))
        middle: list[nn.Module] = [nn.Conv2d(d, s, 1), nn.PReLU(s)]
        for _ in range(m):
            middle += [nn.Conv2d(s, s, 3, padding=1), nn.PReLU(s)]
        middle += [nn.Conv2d(s, d, 1), nn.PReLU(d)]
        self.mid_part = nn.Sequential(*middle)
        self.last_part = nn.ConvTranspose2d(
            d, 1, 9, stride=scale, padding=4, output_padding=scale - 1
        )
        self._initialise()

    def _initialise(self) -> None:
        """Draw He-normal convolutions (fan out) and a deconvolution of almost nothing."""
        for layer in (*self.first_part, *self.mid_part):
            if isinstance(layer, nn.Conv2d):
                fan_out = layer.out_channels * layer.kernel_size[0] * layer.kernel_size[1]
                nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.last_part.weight, std=0.001)
        nn.init.zeros_(self.last_part.bias)  # type: ignore[arg-type]

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, 1, H*scale, W*scale) for luma `lq` (B, 1, H, W) in [0, 1]."""
        return self.last_part(self.mid_part(self.first_part(lq)))
