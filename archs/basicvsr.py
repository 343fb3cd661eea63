"""BasicVSR: features carried through the whole clip, backwards and forwards, along optical flow.

Reference: BasicVSR: The Search for Essential Components in Video Super-Resolution and Beyond,
K. C. K. Chan, X. Wang, K. Yu, C. Dong, C. C. Loy, CVPR 2021, https://arxiv.org/abs/2012.02181.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from archs.recurrent_layers import RecurrentNet, ResidualBlocks, check_sizes, enlarge, lrelu
from sr_train.api.network import NetSpec
from sr_train.ops.flow import flow_warp


class BasicVSR(RecurrentNet):
    """Upscale a clip with what every other frame of it shows.

    A frame sees the features of its neighbour, warped along the flow to it; one pass runs from
    the last frame to the first, one from the first to the last, and both are fused.

    A clip of one frame has no flow, so `spynet` then gets no gradient (which DDP waits for):
    train on two frames or more.

    Args:
        scale: 1, 2 or 4; published for 4.
        mid_channels: channels of the features.
        num_blocks: residual blocks of each pass.
        spynet: path of published weights of the flow network; None: it starts untrained.
        gradient_checkpointing: in training, store only the features of each frame and compute the
            rest again in the backward pass.

    Raises:
        ConfigError: an unsupported scale or a count below 1.
        CheckpointError: if `spynet` is not a file of SpyNet's weights.
    """

    def __init__(
        self,
        scale: int,
        mid_channels: int = 64,
        num_blocks: int = 30,
        spynet: str | Path | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        check_sizes("BasicVSR", scale, mid_channels, num_blocks)
        super().__init__(scale.bit_length() - 1, mid_channels, spynet, gradient_checkpointing)
        self.spec = NetSpec(
            scale=scale,
            receptive_field=None,
            takes_clips=True,
            time_field=None,
            weight_files=("spynet",),
        )
        self.mid_channels = mid_channels
        self.backward_resblocks = ResidualBlocks(mid_channels + 3, mid_channels, num_blocks)
        self.forward_resblocks = ResidualBlocks(mid_channels + 3, mid_channels, num_blocks)
        self.fusion = nn.Conv2d(2 * mid_channels, mid_channels, 1)

    def forward(self, lq: Tensor) -> Tensor:
        """Return (B, T, 3, H*scale, W*scale) for `lq` (B, T, 3, H, W)."""
        to_next, to_last = self.flows(lq)
        frames = list(lq.unbind(1))
        later = self._propagate(self.backward_resblocks, frames[::-1], to_next[::-1])[::-1]
        earlier = self._propagate(self.forward_resblocks, frames, to_last)
        preds = [
            self.run(self._reconstruct, *each) for each in zip(frames, later, earlier, strict=True)
        ]
        return torch.stack(preds, 1)

    def _propagate(
        self, trunk: ResidualBlocks, frames: list[Tensor], flows: list[Tensor]
    ) -> list[Tensor]:
        """Return the features of each frame, having seen those before it in the given order.

        Args:
            trunk: of this direction.
            frames: T images (B, 3, H, W).
            flows: T - 1 flows, from each frame but the first to the one before it.
        """

        def step(frame: Tensor, before: Tensor, flow: Tensor | None) -> Tensor:
            warped = before if flow is None else flow_warp(before, flow)
            return trunk(torch.cat((frame, warped), 1))

        batch, _, height, width = frames[0].shape
        features = [frames[0].new_zeros(batch, self.mid_channels, height, width)]
        for frame, flow in zip(frames, (None, *flows), strict=True):
            features.append(self.run(step, frame, features[-1], flow))
        return features[1:]

    def _reconstruct(self, frame: Tensor, later: Tensor, earlier: Tensor) -> Tensor:
        fused = lrelu(self.fusion(torch.cat((later, earlier), 1)))
        return self.upsample(fused) + enlarge(frame, self.spec.scale)
