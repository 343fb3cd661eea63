"""The U-Net discriminator of Real-ESRGAN: one logit for each pixel.

Reference: Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data,
X. Wang, L. Xie, C. Dong, Y. Shan, ICCVW 2021, https://arxiv.org/abs/2107.10833.
Names in the state dict are those of https://github.com/XPixelGroup/BasicSR.
"""

from torch import Tensor, nn
from torch.nn import functional

from archs.common import check_count
from archs.spectral import SpectralConv2d
from sr_train.ops.padding import pad_to


class UNetDiscriminatorSN(nn.Module):
    """Three halvings, three doublings and skips between them, with spectral normalisation.

    An image whose sides are no multiples of 8 is mirrored at its right and bottom edges up to
    them, and the logits are cropped to its size; any size of at least one pixel will do.

    Args:
        in_channels: channels of the image.
        num_feat: channels of the features at full size.
        skip_connection: add the features of the way down to those of the way up.

    Raises:
        ConfigError: an impossible number of channels.
    """

    def __init__(
        self, in_channels: int = 3, num_feat: int = 64, skip_connection: bool = True
    ) -> None:
        super().__init__()
        check_count("UNetDiscriminatorSN", "in_channels", in_channels)
        check_count("UNetDiscriminatorSN", "num_feat", num_feat)
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(in_channels, num_feat, 3, padding=1)
        self.conv1 = _down(num_feat, num_feat * 2)
        self.conv2 = _down(num_feat * 2, num_feat * 4)
        self.conv3 = _down(num_feat * 4, num_feat * 8)
        self.conv4 = _same(num_feat * 8, num_feat * 4)
        self.conv5 = _same(num_feat * 4, num_feat * 2)
        self.conv6 = _same(num_feat * 2, num_feat)
        self.conv7 = _same(num_feat, num_feat)
        self.conv8 = _same(num_feat, num_feat)
        self.conv9 = nn.Conv2d(num_feat, 1, 3, padding=1)

    def forward(
        self, image: Tensor, with_features: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits (B, 1, H, W) for `image` (B, in_channels, H, W) in [0, 1].

        Args:
            image: real or made.
            with_features: also return the activations of the way down: at full size, 1/2, 1/4
                and 1/8, of the image as it was padded.
        """
        height, width = image.shape[-2:]
        x0 = _lrelu(self.conv0(pad_to(image, multiple=8)))
        x1 = _lrelu(self.conv1(x0))
        x2 = _lrelu(self.conv2(x1))
        x3 = _lrelu(self.conv3(x2))
        x = self._up(self.conv4, x3, x2)
        x = self._up(self.conv5, x, x1)
        x = self._up(self.conv6, x, x0)
        x = _lrelu(self.conv8(_lrelu(self.conv7(x))))
        logits = self.conv9(x)[..., :height, :width]
        return (logits, [x0, x1, x2, x3]) if with_features else logits

    def _up(self, conv: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
        doubled = functional.interpolate(
            x, size=skip.shape[-2:], mode="bilinear", align_corners=False
        )
        x = _lrelu(conv(doubled))
        return x + skip if self.skip_connection else x


def _down(in_channels: int, out_channels: int) -> SpectralConv2d:
    return SpectralConv2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)


def _same(in_channels: int, out_channels: int) -> SpectralConv2d:
    return SpectralConv2d(in_channels, out_channels, 3, padding=1, bias=False)


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2, inplace=True)
