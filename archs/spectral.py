"""Convolutions whose weights are divided by their largest singular value.

Reference: Spectral Normalization for Generative Adversarial Networks, T. Miyato, T. Kataoka,
M. Koyama, Y. Yoshida, ICLR 2018, algorithm 1, https://arxiv.org/abs/1802.05957.
Names in the state dict are those of `torch.nn.utils.spectral_norm`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from archs.common import at_least_fp32, without_autocast

EPS = 1e-12
"""Keeps the direction of a zero vector, and zero weights, finite."""

SAME_DIRECTION = 1e-6
"""Entries of unit vectors that differ by less were made from the same weights."""

START_ITERATIONS = 15
"""Iterations on the initial weights, without which the first quotient is far from 1."""


class SpectralConv2d(nn.Module):
    """A convolution of norm 1: `conv(x, weight_orig / sigma)`, sigma from a power iteration.

    In training, the iteration advances once for each change of the weights, in the first call
    that follows it, as in the paper's algorithm. Further calls (the generator's phase, real and
    fake images, micro-batches, a gradient penalty) see the same sigma, so that their number
    and order do not matter. In evaluation nothing moves. sigma is computed in float32 or wider
    and outside autocast; it carries a gradient to the weights, the singular vectors do not.

    The iteration uses no random numbers and no statistics of the input: processes that hold
    equal weights and vectors stay equal without communication.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the result.
        kernel_size: side of the kernel.
        stride: step of the kernel, pixels.
        padding: zeros around the input, pixels.
        bias: add a bias, which is not normalised.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias)
        self.stride = stride
        self.padding = padding
        self.bias: nn.Parameter | None
        self.register_parameter("bias", plain.get_parameter("bias") if bias else None)
        self.weight_orig = plain.weight
        matrix = self.weight_orig.detach().flatten(1)
        u = _direction(torch.randn_like(matrix[:, 0]))
        v = _direction(matrix.mT @ u)
        for _ in range(START_ITERATIONS):
            u, v = _iterated(matrix, u)
        self.register_buffer("weight_u", u)
        self.register_buffer("weight_v", v)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.normalised(), self.bias, self.stride, self.padding)

    def normalised(self) -> Tensor:
        """Return `weight_orig / sigma`, after at most one iteration."""
        with without_autocast(self.weight_orig):
            weight = at_least_fp32(self.weight_orig)
            matrix = weight.flatten(1)
            u, v = self._singular_vectors(matrix.detach())
            sigma = torch.dot(u, torch.mv(matrix, v))
            return (weight / (sigma + EPS)).to(self.weight_orig.dtype)

    @torch.no_grad()
    def _singular_vectors(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        # Copies: the graph keeps them, and the buffers change before a later backward pass.
        u, v = self.weight_u.to(matrix.dtype, copy=True), self.weight_v.to(matrix.dtype, copy=True)
        if not self.training:
            return u, v
        # u is the image of v exactly where the weights are those of the last iteration.
        off = (_direction(torch.mv(matrix, v)) - u).abs().amax()
        next_u, next_v = _iterated(matrix, u)
        # Zero weights have no direction to move to; weights that are not finite give none either.
        moves = (off > SAME_DIRECTION) & (next_u.square().sum() > 0.5)
        u, v = torch.where(moves, next_u, u), torch.where(moves, next_v, v)
        self.weight_u.copy_(u)
        self.weight_v.copy_(v)
        return u, v


def _iterated(matrix: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    v = _direction(torch.mv(matrix.mT, u))
    return _direction(torch.mv(matrix, v)), v


def _direction(vector: Tensor) -> Tensor:
    return functional.normalize(vector, dim=0, eps=EPS)
