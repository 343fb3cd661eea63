"""Small forms of every discriminator, shared by the tests of this folder."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from archs.patchgan import MultiScalePatchGANDiscriminator, PatchGANDiscriminator
from archs.unet_discriminator import UNetDiscriminatorSN
from archs.vgg_discriminator import VGGStyleDiscriminator

SMALL: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: UNetDiscriminatorSN(num_feat=4),
    "unet_no_skip": lambda: UNetDiscriminatorSN(num_feat=4, skip_connection=False),
    "vgg": lambda: VGGStyleDiscriminator(num_feat=4, input_size=32),
    "patchgan_spectral": lambda: PatchGANDiscriminator(num_feat=4),
    "patchgan_instance": lambda: PatchGANDiscriminator(num_feat=4, norm="instance"),
    "patchgan_batch": lambda: PatchGANDiscriminator(num_feat=4, norm="batch"),
    "patchgan_plain": lambda: PatchGANDiscriminator(num_feat=4, num_layers=1, norm="none"),
    "multiscale": lambda: MultiScalePatchGANDiscriminator(num_feat=4, num_layers=2, num_scales=2),
}

SPECTRAL = {name: SMALL[name] for name in ("unet", "patchgan_spectral", "multiscale")}

ANY_SIZE = {name: make for name, make in SMALL.items() if name != "vgg"}


def build(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def image(height: int = 32, width: int = 32, batch: int = 2, seed: int = 0) -> Tensor:
    """Return (batch, 3, height, width) noise in [0, 1]."""
    return torch.rand((batch, 3, height, width), generator=torch.Generator().manual_seed(seed))


def maps(logits: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """Return the logits as a list of maps, whatever the discriminator."""
    return [logits] if isinstance(logits, Tensor) else list(logits)


def total(logits: Tensor | Sequence[Tensor]) -> Tensor:
    """Return a scalar whose gradient depends on every logit."""
    return torch.stack([each.float().square().mean() for each in maps(logits)]).sum()
