"""torchvision's own networks with the weights of our extractors: what to compare them with."""

import torch
from torch import Tensor, nn

from losses.features import Features


def vgg16(features: Features) -> nn.Sequential:
    return filled("D", features)


def vgg19(features: Features) -> nn.Sequential:
    return filled("E", features)


def filled(configuration: str, features: Features) -> nn.Sequential:
    """Return a VGG's layers with the extractor's weights, and without in-place ReLUs."""
    from torchvision.models.vgg import cfgs, make_layers

    layers = make_layers(cfgs[configuration])
    for index, layer in enumerate(layers):
        if isinstance(layer, nn.Conv2d):
            layer.load_state_dict(
                {key: features.get_buffer(f"{key}{index}") for key in ("weight", "bias")}
            )
        elif isinstance(layer, nn.ReLU):
            layer.inplace = False
    return layers


@torch.no_grad()
def each_layer(layers: nn.Sequential, image: Tensor, last: int) -> list[Tensor]:
    """Return what the layers up to a number make of an image."""
    x = normalised(image)
    found = []
    for layer in layers[: last + 1]:
        x = layer(x)
        found.append(x)
    return found


def normalised(image: Tensor) -> Tensor:
    """Return an image of [0, 1] as ImageNet's classifiers want it."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (image - mean) / std
