"""The VGG-style discriminator of SRGAN and ESRGAN: one logit for each image.

Reference: ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks, X. Wang et al.,
ECCVW 2018, https://arxiv.org/abs/1809.00219; after SRGAN, C. Ledig et al., CVPR 2017, figure 4,
https://arxiv.org/abs/1609.04802.
Names in the state dict are those of https://github.com/XPixelGroup/BasicSR.
"""

from torch import Tensor, nn
from torch.nn import functional

from archs.common import check_choice, check_count
from sr_train.api.errors import ConfigError

INPUT_SIZES = (32, 64, 128, 256, 512)
LAST_SIZE = 4
"""Side of the features that the linear layers take, pixels."""


class VGGStyleDiscriminator(nn.Module):
    """Halve the image with strided convolutions down to 4x4, then judge it as a whole.

    Batch normalisation takes its statistics from each call (and, among several processes, from
    each process's own images), so a step in micro-batches is not exactly one in a whole batch.

    Args:
        in_channels: channels of the image.
        num_feat: channels of the features at full size; they double at each halving up to 8
            times as many.
        input_size: side of the images, pixels: `data.lq_size` times `scale`. Published for 128
            and 256; 32, 64 and 512 have fewer or more stages of the same make.

    Raises:
        ConfigError: an impossible number of channels, or an unsupported size.
    """

    def __init__(self, in_channels: int = 3, num_feat: int = 64, input_size: int = 128) -> None:
        super().__init__()
        check_count("VGGStyleDiscriminator", "in_channels", in_channels)
        check_count("VGGStyleDiscriminator", "num_feat", num_feat)
        check_choice("VGGStyleDiscriminator", "input_size", input_size, INPUT_SIZES)
        self.in_channels = in_channels
        self.input_size = input_size
        self.num_stages = (input_size // LAST_SIZE).bit_length() - 1
        width = num_feat
        self.conv0_0 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.conv0_1 = nn.Conv2d(width, width, 4, stride=2, padding=1, bias=False)
        self.bn0_1 = nn.BatchNorm2d(width)
        for stage in range(1, self.num_stages):
            wider = min(2 * width, 8 * num_feat)
            self.add_module(f"conv{stage}_0", nn.Conv2d(width, wider, 3, padding=1, bias=False))
            self.add_module(f"bn{stage}_0", nn.BatchNorm2d(wider))
            self.add_module(
                f"conv{stage}_1", nn.Conv2d(wider, wider, 4, stride=2, padding=1, bias=False)
            )
            self.add_module(f"bn{stage}_1", nn.BatchNorm2d(wider))
            width = wider
        self.linear1 = nn.Linear(width * LAST_SIZE**2, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(
        self, image: Tensor, with_features: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return logits (B, 1) for `image` (B, in_channels, input_size, input_size) in [0, 1].

        Args:
            image: real or made.
            with_features: also return the activations after each halving.

        Raises:
            ConfigError: the image has another size.
        """
        self._check_size(image)
        x = _lrelu(self.conv0_0(image))
        x = _lrelu(self.bn0_1(self.conv0_1(x)))
        features = [x]
        for stage in range(1, self.num_stages):
            for half in (0, 1):
                conv = self.get_submodule(f"conv{stage}_{half}")
                norm = self.get_submodule(f"bn{stage}_{half}")
                x = _lrelu(norm(conv(x)))
            features.append(x)
        logits = self.linear2(_lrelu(self.linear1(x.flatten(1))))
        return (logits, features) if with_features else logits

    def _check_size(self, image: Tensor) -> None:
        expected = (self.in_channels, self.input_size, self.input_size)
        if tuple(image.shape[1:]) == expected:
            return
        fitting = [s for s in INPUT_SIZES if image.shape[-2:] == (s, s)]
        way_out = (
            f"set discriminator.arch.input_size={fitting[0]}"
            if fitting
            else f"make data.lq_size x scale one of {', '.join(map(str, INPUT_SIZES))} "
            "and input_size the same"
        )
        raise ConfigError(
            f"VGGStyleDiscriminator: expected images of (channels, height, width) {expected}, "
            f"found {tuple(image.shape[1:])}; {way_out}"
        )


def _lrelu(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2, inplace=True)
