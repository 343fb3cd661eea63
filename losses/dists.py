"""DISTS: structure and texture similarity of VGG16 features."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.features import PLANES, shared_features
from sr_train.api.errors import CheckpointError
from sr_train.api.loss import Loss
from sr_train.io.pretrained import check_numbers, find_weights, read_state

LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
CHANNELS = (3, 64, 128, 256, 512, 512)
"""Of the image itself and of each layer."""

_FILE = "dists_weights.pt"
_URL = f"https://github.com/photosynthesis-team/piq/releases/download/v0.4.1/{_FILE}"


class DISTSLoss(Loss):
    """1 - sum over channels of alpha * texture + beta * structure, with sum(alpha + beta) = 1.

    For one channel with means m, n, variances s, t and covariance v over positions:

        texture = (2 m n + c) / (m^2 + n^2 + c), structure = (2 v + c) / (s + t + c)

    The channels are those of the image and of five layers of VGG16, whose max pools are
    replaced by L2 pools (root of the Hann-weighted mean of squares). Texture is compared by means
    alone, which forgives that grass grows elsewhere; 0 for equal images. The authors' metric
    shrinks images to 256 pixels first, this loss does not. Always fp32.

    Args:
        weights: torchvision's `vgg16-397923af.pth`; None looks in torch hub's cache.
        calibration: the published alpha and beta, a file with these keys, (1, 1475, 1, 1) each;
            None looks in torch hub's cache for `dists_weights.pt`.
        random_init: leave the network untrained and weigh all channels alike; for tests.
        c: stabilises both ratios; above zero.

    Raises:
        CheckpointError: if one of the files is not there or is something else.
        ValueError: if c is not above zero, or at the call if the shapes differ.

    Reference: Ding et al., Image Quality Assessment: Unifying Structure and Texture Similarity,
        2020, https://arxiv.org/abs/2004.07728, https://github.com/dingkeyan93/DISTS
    """

    planes = PLANES

    alpha: Tensor
    beta: Tensor

    def __init__(
        self,
        weights: str | Path | None = None,
        calibration: str | Path | None = None,
        random_init: bool = False,
        c: float = 1e-6,
    ) -> None:
        super().__init__()
        if c <= 0:
            raise ValueError(f"c must be above zero, got {c}")
        self.c = c
        alpha, beta = _even() if random_init else _calibration(calibration)
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", alpha / total, persistent=False)
        self.register_buffer("beta", beta / total, persistent=False)
        self.features = shared_features("vgg16", weights, random_init)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        found, wanted = self.features.pair(pred, target, LAYERS, pool=l2_pool)
        described = [(_three_planes(pred), _three_planes(target.detach()))]
        described += [(found[layer], wanted[layer]) for layer in LAYERS]
        textures, structures = zip(*(self._similarities(x, y) for x, y in described), strict=True)
        lost = self.alpha * (1 - torch.cat(textures, 1)) + self.beta * (
            1 - torch.cat(structures, 1)
        )
        return lost.sum(1).mean()

    def _similarities(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return texture and structure of every channel, (B, C) each."""
        x, y = x.flatten(2), y.flatten(2)
        m, n = x.mean(2, keepdim=True), y.mean(2, keepdim=True)
        # Differences first: mean(x^2) - mean(x)^2 would cancel.
        x, y = x - m, y - n
        spread = x.square().mean(2) + y.square().mean(2)
        m, n = m.squeeze(2), n.squeeze(2)
        texture = (2 * m * n + self.c) / (m.square() + n.square() + self.c)
        structure = (2 * (x * y).mean(2) + self.c) / (spread + self.c)
        return texture, structure


def _three_planes(image: Tensor) -> Tensor:
    return image.float().expand(-1, CHANNELS[0], -1, -1)


def l2_pool(x: Tensor) -> Tensor:
    """Halve (B, C, H, W) by the root of the mean of squares, weighted [1, 2, 1] x [1, 2, 1] / 16.

    The border is padded with zeros, as published.
    """
    channels = x.shape[1]
    tap = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype, device=x.device)
    window = (tap[:, None] * tap).expand(channels, 1, 3, 3)
    squares = F.conv2d(x.square(), window, stride=2, padding=1, groups=channels)
    return torch.sqrt(squares + 1e-12)


def _even() -> tuple[Tensor, Tensor]:
    ones = torch.ones(sum(CHANNELS))
    return ones, ones


def _calibration(given: str | Path | None) -> tuple[Tensor, Tensor]:
    path = find_weights("DISTS calibration", _FILE, given, _URL, "calibration")
    state = read_state(path)
    found = []
    for key in ("alpha", "beta"):
        stored = state.get(key)
        if not isinstance(stored, Tensor) or stored.numel() != sum(CHANNELS):
            raise CheckpointError(
                f"{path} is not the calibration of DISTS: expected {key} of {sum(CHANNELS)} numbers"
            )
        check_numbers(stored, key, str(path))
        found.append(stored.float().flatten())
    return found[0], found[1]
