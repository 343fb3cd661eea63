"""PatchGAN: a logit for each overlapping patch of an image, at one scale or at several.

References: Image-to-Image Translation with Conditional Adversarial Networks, P. Isola et al.,
CVPR 2017, section 6.1.2, https://arxiv.org/abs/1611.07004; several scales: High-Resolution Image
Synthesis and Semantic Manipulation with Conditional GANs, T.-C. Wang et al., CVPR 2018, section
3.2, https://arxiv.org/abs/1711.11585. Names in the state dict of one scale are those of
https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix.
"""

from torch import Tensor, nn
from torch.nn import functional

from archs.common import check_choice, check_count
from archs.spectral import SpectralConv2d
from sr_train.ops.padding import pad_to

NORMS = ("spectral", "instance", "batch", "none")


class PatchGANDiscriminator(nn.Module):
    """4x4 convolutions, the first `num_layers` of which halve the image.

    Each logit sees a patch of 16, 34, 70, 142, ... pixels for 1, 2, 3, 4, ... layers; the
    published form has 3. An image with a side below `3 * 2**num_layers` pixels is mirrored at
    its right and bottom edges up to that.

    Args:
        in_channels: channels of the image.
        num_feat: channels of the first layer; they double with each up to 8 times as many.
        num_layers: convolutions that halve the image.
        norm: "spectral" divides every weight by its largest singular value; "instance" and
            "batch" (published) normalise the features of all layers but the first and the last.

    Raises:
        ConfigError: an impossible number of channels or layers, or an unknown norm.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_feat: int = 64,
        num_layers: int = 3,
        norm: str = "spectral",
    ) -> None:
        super().__init__()
        check_count("PatchGANDiscriminator", "in_channels", in_channels)
        check_count("PatchGANDiscriminator", "num_feat", num_feat)
        check_count("PatchGANDiscriminator", "num_layers", num_layers)
        check_choice("PatchGANDiscriminator", "norm", norm, NORMS)
        self.least_size = 3 * 2**num_layers
        widths = [num_feat * min(2**layer, 8) for layer in range(num_layers + 1)]
        layers: list[nn.Module] = [_conv(in_channels, widths[0], 2, norm), _lrelu()]
        for layer in range(1, num_layers + 1):
            stride = 2 if layer < num_layers else 1
            layers.append(_conv(widths[layer - 1], widths[layer], stride, norm, norm != "batch"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(widths[layer]))
            elif norm == "instance":
                layers.append(nn.InstanceNorm2d(widths[layer]))
            layers.append(_lrelu())
        self.model = nn.Sequential(*layers, _conv(widths[-1], 1, 1, norm))

    def forward(
        self, image: Tensor, with_features: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits (B, 1, h, w) for `image` (B, in_channels, H, W) in [0, 1].

        Args:
            image: real or made.
            with_features: also return each layer's activations, finest first.
        """
        x = pad_to(image, multiple=1, minimum=self.least_size)
        features = []
        for layer in self.model:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                features.append(x)
        return (x, features) if with_features else x


class MultiScalePatchGANDiscriminator(nn.Module):
    """The same PatchGAN, with weights of its own, on the image and on its halves.

    Args:
        in_channels: channels of the image.
        num_feat: channels of the first layer.
        num_layers: convolutions that halve the image; published with 3.
        num_scales: images that are looked at, each half as large as the one before.
        norm: as for `PatchGANDiscriminator`; published with "instance".

    Raises:
        ConfigError: an impossible number of channels, layers or scales, or an unknown norm.
    """

    def __init__(
        self,
        in_channels: int = 3,
        num_feat: int = 64,
        num_layers: int = 3,
        num_scales: int = 3,
        norm: str = "spectral",
    ) -> None:
        super().__init__()
        check_count("MultiScalePatchGANDiscriminator", "num_scales", num_scales)
        self.scales = nn.ModuleList(
            PatchGANDiscriminator(in_channels, num_feat, num_layers, norm)
            for _ in range(num_scales)
        )

    def forward(
        self, image: Tensor, with_features: bool = False
    ) -> list[Tensor] | tuple[list[Tensor], list[Tensor]]:
        """Return one map of logits (B, 1, h, w) for each scale, the finest first.

        Args:
            image: (B, in_channels, H, W) in [0, 1], real or made.
            with_features: also return the activations of all layers of all scales.
        """
        logits: list[Tensor] = []
        features: list[Tensor] = []
        for number, net in enumerate(self.scales):
            if number:
                image = functional.avg_pool2d(image, 3, 2, 1, count_include_pad=False)
            here, activations = net(image, with_features=True)
            logits.append(here)
            features += activations
        return (logits, features) if with_features else logits


def _conv(
    in_channels: int, out_channels: int, stride: int, norm: str, bias: bool = True
) -> nn.Module:
    kind = SpectralConv2d if norm == "spectral" else nn.Conv2d
    return kind(in_channels, out_channels, 4, stride=stride, padding=1, bias=bias)


def _lrelu() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)
