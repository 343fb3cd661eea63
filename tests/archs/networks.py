"""Small forms of every network, shared by the tests of this folder."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from archs.basicvsr import BasicVSR
from archs.basicvsrpp import BasicVSRPlusPlus
from archs.compact import SRVGGNetCompact
from archs.fsrcnn import FSRCNN
from archs.imdn import IMDN
from archs.rrdb import RRDBNet
from archs.span import SPAN
from archs.swinir import SwinIR
from archs.temporal import TemporalWindow
from archs.vrt import VRT

NetT = TypeVar("NetT", bound=nn.Module)


def rrdb(scale: int, *, gradient_checkpointing: bool = False, num_block: int = 1) -> RRDBNet:
    return RRDBNet(
        scale,
        num_feat=4,
        num_block=num_block,
        num_grow=4,
        gradient_checkpointing=gradient_checkpointing,
    )


def swinir(scale: int, upsampler: str, *, resi_connection: str = "1conv", **more) -> SwinIR:
    small = {
        "window_size": 4,
        "img_size": 8,
        "embed_dim": 8,
        "depths": (2, 2),
        "num_heads": (2, 4),
        "drop_path_rate": 0.0,
    }
    return SwinIR(scale, upsampler=upsampler, resi_connection=resi_connection, **{**small, **more})


def slim_flow(net: NetT) -> NetT:
    """Leave one convolution of each scale of the flow network, which has no small form."""
    for refine in net.spynet.basic_module:
        refine.basic_module = nn.Sequential(nn.Conv2d(8, 2, 7, padding=3))
    return net


def basicvsr(scale: int, **more) -> BasicVSR:
    return slim_flow(BasicVSR(scale, **{"mid_channels": 8, "num_blocks": 1, **more}))


def basicvsrpp(scale: int, **more) -> BasicVSRPlusPlus:
    small = {"mid_channels": 8, "num_blocks": 1, "max_residue_magnitude": 2.0}
    return slim_flow(BasicVSRPlusPlus(scale, **{**small, **more}))


def vrt(scale: int, *, slim: bool = True, **more) -> VRT:
    small = {
        "window_size": (2, 4, 4),
        "depths": (2,) * 7 + (1, 1),
        "indep_reconsts": (8,),
        "embed_dims": (16,) * 7 + (20,) * 2,
        "num_heads": (2,) * 9,
        "mul_attn_ratio": 0.5,
        "drop_path_rate": 0.0,
        "deformable_groups": 4,
    }
    net = VRT(scale, **{**small, **more})
    return slim_flow(net) if slim and hasattr(net, "spynet") else net


SMALL: dict[str, Callable[[], nn.Module]] = {
    "fsrcnn_x2": lambda: FSRCNN(2, d=8, s=4, m=1),
    "fsrcnn_x3": lambda: FSRCNN(3, d=8, s=4, m=2),
    "fsrcnn_x4": lambda: FSRCNN(4, d=8, s=4, m=1),
    "compact_x1": lambda: SRVGGNetCompact(1, num_feat=8, num_conv=2, activation="relu"),
    "compact_x2": lambda: SRVGGNetCompact(2, num_feat=8, num_conv=3),
    "compact_x4": lambda: SRVGGNetCompact(4, num_feat=8, num_conv=1, activation="leakyrelu"),
    "compact_luma": lambda: SRVGGNetCompact(3, 1, 1, num_feat=8, num_conv=1),
    "rrdb_x1": lambda: rrdb(1),
    "rrdb_x2": lambda: rrdb(2),
    "rrdb_x4": lambda: rrdb(4),
    "imdn_x2": lambda: IMDN(2, num_feat=16, num_block=2),
    "imdn_x3": lambda: IMDN(3, num_feat=36, num_block=1),
    "imdn_x4": lambda: IMDN(4, num_feat=16, num_block=2),
    "span_x2": lambda: SPAN(2, num_feat=8),
    "span_x4": lambda: SPAN(4, num_feat=8),
    "span_merged": lambda: SPAN(2, num_feat=8, reparameterised=True),
    "swinir_classical_x2": lambda: swinir(2, "pixelshuffle"),
    "swinir_classical_x3": lambda: swinir(3, "pixelshuffle", resi_connection="3conv"),
    "swinir_classical_x8": lambda: swinir(8, "pixelshuffle"),
    "swinir_light_x4": lambda: swinir(4, "pixelshuffledirect"),
    "swinir_real_x2": lambda: swinir(2, "nearest+conv"),
    "swinir_real_x4": lambda: swinir(4, "nearest+conv"),
    "swinir_denoise": lambda: swinir(1, ""),
    "swinir_jpeg_luma": lambda: swinir(1, "", in_channels=1, img_range=255.0),
    "temporal_compact": lambda: TemporalWindow(
        SRVGGNetCompact(2, in_channels=9, num_feat=8, num_conv=1), frames=3
    ),
    "temporal_rrdb": lambda: TemporalWindow(
        RRDBNet(2, in_channels=20, num_feat=4, num_block=1, num_grow=4),
        frames=5,
        extra_inputs={"spikes": 1},
    ),
    "basicvsr_x2": lambda: basicvsr(2),
    "basicvsrpp_x4": lambda: basicvsrpp(4),
    "basicvsrpp_restoration": lambda: basicvsrpp(
        1, is_low_res_input=False, extra_inputs={"spikes": 2}
    ),
    "vrt_x2": lambda: vrt(2),
    "vrt_spikes": lambda: vrt(1, pa_frames=4, extra_inputs={"spikes": 2}),
}

CHECKPOINTED: dict[str, Callable[[bool], nn.Module]] = {
    "rrdb": lambda on: rrdb(2, num_block=2, gradient_checkpointing=on),
    "imdn": lambda on: IMDN(2, num_feat=16, num_block=2, gradient_checkpointing=on),
    "span": lambda on: SPAN(2, num_feat=8, gradient_checkpointing=on),
    "swinir": lambda on: swinir(
        2, "pixelshuffledirect", drop_path_rate=0.5, gradient_checkpointing=on
    ),
    "basicvsr": lambda on: basicvsr(2, gradient_checkpointing=on),
    "basicvsrpp": lambda on: basicvsrpp(2, gradient_checkpointing=on),
    "vrt": lambda on: vrt(
        1,
        depths=(2, *(1,) * 6, 2),
        embed_dims=(16,) * 8,
        num_heads=(2,) * 8,
        indep_reconsts=(),
        pa_frames=0,
        drop_path_rate=0.5,
        gradient_checkpointing=on,
    ),
}


def build(make: Callable[[], nn.Module]) -> nn.Module:
    """Build with fixed weights, all of them far enough from zero to matter.

    Flow stays as made: more of it would point beyond images of a few pixels.
    """
    torch.manual_seed(0)
    net = make()
    with torch.no_grad():
        for name, weights in net.named_parameters():
            if not name.startswith("spynet."):
                weights.add_(torch.randn_like(weights) * 0.05)
    return net


def image(net: nn.Module, height: int, width: int, batch: int = 1, num_frames: int = 3) -> Tensor:
    """Return noise in [0, 1] that the network takes: (batch, channels, height, width), or a clip.

    A clip is (batch, num_frames, channels, height, width), with the channels of extra inputs.
    """
    generator = torch.Generator().manual_seed(height * 1000 + width)
    frames = (num_frames,) if net.spec.takes_clips else ()
    channels = net.spec.in_channels + sum(net.spec.extra_inputs.values())
    return torch.rand((batch, *frames, channels, height, width), generator=generator)
