"""Losses on the discrete Fourier transform."""

import torch
from torch import Tensor

from losses.common import pair
from sr_train.api.loss import Loss


class FFTL1Loss(Loss):
    """Mean of |Re D| and |Im D|, D = rfft2(pred) - rfft2(target), not normalised.

    The transform is that of each plane, its redundant half left out. The value of white noise
    grows with the square root of the number of pixels, hence the paper's weight of 0.1.

    Takes (B, C, H, W) images of any range and number of channels.

    Reference: Cho et al., Rethinking Coarse-to-Fine Approach in Single Image Deblurring, ICCV
        2021, eq. 6, https://arxiv.org/abs/2108.05054; there the whole spectrum is averaged.
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        return torch.view_as_real(torch.fft.rfft2(pred - target)).abs().mean()


class FocalFrequencyLoss(Loss):
    """Mean of w |D|^2, D = fft2(pred) - fft2(target) with orthonormal scaling.

    The weight w = |D|^alpha, or log(1 + |D|^alpha), divided by its largest value, so that it runs
    from 0 to 1; no gradient flows through it. Frequencies that are far off thus count more.

    Takes (B, C, H, W) images of any range and number of channels.

    Args:
        alpha: focus on what is far off; 0 weighs all frequencies alike.
        patches: the image is cut into patches x patches parts, each with its own spectrum; a
            remainder at the right and bottom is left out. At most as many as there are pixels.
        ave_spectrum: compare the mean spectra of the batch.
        log_matrix: use the logarithm for the weight.
        batch_matrix: divide by the largest value of the whole batch, not of each plane.

    Raises:
        ValueError: if alpha is below zero or patches below one.

    Reference: Jiang et al., Focal Frequency Loss for Image Reconstruction and Synthesis, ICCV
        2021, eq. 8 to 10, https://arxiv.org/abs/2012.12821
    """

    def __init__(
        self,
        alpha: float = 1.0,
        patches: int = 1,
        ave_spectrum: bool = False,
        log_matrix: bool = False,
        batch_matrix: bool = False,
    ) -> None:
        super().__init__()
        if alpha < 0:
            raise ValueError(f"alpha must be at least zero, got {alpha}")
        if patches < 1:
            raise ValueError(f"patches must be at least one, got {patches}")
        self.alpha = alpha
        self.patches = patches
        self.ave_spectrum = ave_spectrum
        self.log_matrix = log_matrix
        self.batch_matrix = batch_matrix

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        pred, target = pair(pred, target)
        # The transform is linear: that of the difference is the difference of the two.
        off = self._cut(pred - target)
        if self.ave_spectrum:
            off = off.mean(dim=0, keepdim=True)
        square = torch.view_as_real(torch.fft.fft2(off, norm="ortho")).square().sum(dim=-1)
        return (self._weight(square.detach()) * square).mean()

    def _cut(self, x: Tensor) -> Tensor:
        """Return (B, C, p, q, H // p, W // q)."""
        rows, columns = (min(self.patches, side) for side in x.shape[-2:])
        height, width = x.shape[-2] // rows, x.shape[-1] // columns
        x = x[..., : rows * height, : columns * width]
        return x.unflatten(-1, (columns, width)).unflatten(-3, (rows, height)).transpose(-3, -2)

    def _weight(self, square: Tensor) -> Tensor:
        weight = square.sqrt() ** self.alpha
        if self.log_matrix:
            weight = torch.log1p(weight)
        top = weight.amax() if self.batch_matrix else weight.amax(dim=(-2, -1), keepdim=True)
        return weight / top.clamp(min=torch.finfo(top.dtype).tiny)
