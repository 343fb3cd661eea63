"""From a typed config to networks, and from their weights to use."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sr_train.cli.assemble import choose_device, make_precision
from sr_train.config.build import at_scale, build, resolve_target
from sr_train.config.schema import ChannelsLast, NetworkUseConfig, TilingConfig, UseConfig
from sr_train.engine.precision import Precision
from sr_train.engine.weights import Card, Weights, load_into, read_weights
from sr_train.inference.clips import ClipUpscale, ClipUpscaler, frame_by_frame
from sr_train.inference.upscaler import Upscaler
from sr_train.ops.errors import ConfigError
from sr_train.ops.spec import NetSpec

log = logging.getLogger(__name__)


def make_net(arch: Mapping[str, Any], plugins: list[str], scale: int) -> tuple[nn.Module, NetSpec]:
    """Build a network and check that it upscales by what the config says."""
    net = build(arch, "arch", plugins)
    if not isinstance(net, nn.Module):
        raise ConfigError(f"arch._target_={arch['_target_']}: expected a torch.nn.Module")
    spec = spec_of(net, scale)
    if spec.scale != scale:
        where = f"arch.scale={arch['scale']}" if "scale" in arch else "arch"
        raise ConfigError(
            f"{where}: {type(net).__name__} upscales by {spec.scale}; expected scale={scale}"
        )
    return net, spec


def spec_of(net: nn.Module, scale: int) -> NetSpec:
    """Return what a network says about itself.

    One that says nothing is taken to be RGB, of unbounded receptive field, fit for any size.
    """
    spec = getattr(net, "spec", None)
    if isinstance(spec, NetSpec):
        return spec
    log.info(
        "%s declares no spec: taken as RGB to RGB, scale %d, any size, unbounded receptive field",
        type(net).__name__,
        scale,
    )
    return NetSpec(scale=scale)


def use_channels_last(wish: ChannelsLast, precision: Precision, *, split: bool = False) -> bool:
    """Return whether weights and 4-D inputs are laid out as NHWC; `auto`: where it pays.

    It pays for half-precision convolutions on CUDA and on the CPU (about 10 % of a bf16 step).

    Args:
        wish: of the config.
        precision: of the run.
        split: whether the weights are split over ranks, which FSDP2 does in NCHW alone.

    Raises:
        ConfigError: where the wish cannot be had.
    """
    if split:
        if wish is ChannelsLast.always:
            raise ConfigError(
                "net_g.channels_last=always: distributed.strategy=fsdp cannot split weights in "
                "that format; expected auto or never"
            )
        return False
    if wish is ChannelsLast.auto:
        half = precision.dtype != torch.float32
        return half and precision.device.type in {"cuda", "cpu"}
    return wish is ChannelsLast.always


def make_upscaler(
    net: nn.Module, spec: NetSpec, precision: Precision, tiling: TilingConfig
) -> Upscaler:
    """Wrap a network that takes single pictures."""
    return Upscaler(
        net,
        spec,
        device=precision.device,
        autocast=precision.autocast,
        tile=tiling.tile,
        overlap=tiling.overlap,
        tile_batch=tiling.tile_batch,
    )


def make_clip_upscaler(
    net: nn.Module, spec: NetSpec, precision: Precision, tiling: TilingConfig
) -> ClipUpscale:
    """Wrap a network for clips; one that takes single pictures goes frame by frame."""
    if not spec.takes_clips:
        return frame_by_frame(make_upscaler(net, spec, precision, tiling))
    return ClipUpscaler(
        net,
        spec,
        device=precision.device,
        autocast=precision.autocast,
        tile=tiling.tile,
        overlap=tiling.overlap,
        tile_batch=tiling.tile_batch,
        frames=tiling.frames,
        frame_overlap=tiling.frame_overlap,
    )


def card_of(arch: Mapping[str, Any], spec: NetSpec) -> Card:
    """Describe a network for the files its weights go into."""
    left_out = {"_target_", *spec.weight_files}
    arguments = {key: value for key, value in arch.items() if key not in left_out}
    return Card(str(arch["_target_"]), arguments, spec.scale)


def network_of_card(
    architecture: str, arguments: Mapping[str, Any], where: str, plugins: list[str]
) -> nn.Module:
    """Build the network that a file describes, and the networks inside it.

    Nothing but networks of the allowed packages is called; all else in `arguments` is data.

    Args:
        architecture: dotted path of the class.
        arguments: of its constructor, plain Python; a network inside it is a mapping with a
            `_target_`.
        where: the file, for messages.
        plugins: the user's packages.

    Raises:
        ConfigError: if a class lies outside the allowed packages or is no network.
    """
    factory = resolve_target(architecture, "checkpoint", plugins, kind="network")
    made = {}
    for key, value in arguments.items():
        if isinstance(value, Mapping) and "_target_" in value:
            inner = {name: item for name, item in value.items() if name != "_target_"}
            value = network_of_card(str(value["_target_"]), inner, where, plugins)
        made[key] = value
    net: nn.Module = factory(**made)
    return net


def load_for_use(cfg: UseConfig) -> tuple[nn.Module, NetSpec, Weights]:
    """Read a checkpoint and build its network.

    The config's `arch` is used where it is given, else the file's own card: its class is resolved
    like any target, its arguments are plain data.

    Raises:
        SRTrainError: if the file names no architecture and none is given, or nothing fits.
    """
    weights = read_weights(Path(cfg.checkpoint).expanduser(), cfg.weights)
    card = weights.card
    if cfg.arch is not None:
        scale = cfg.scale if cfg.scale is not None else (card.scale if card else None)
        if scale is None:
            raise ConfigError(f"checkpoint={weights.source}: names no scale; add scale=2, 3 or 4")
        net, spec = make_net(at_scale(cfg.arch, scale), cfg.plugins, scale)
    elif card is not None:
        if cfg.scale not in (None, card.scale):
            raise ConfigError(f"scale={cfg.scale}: the checkpoint's is {card.scale}; leave it out")
        where = f"checkpoint={weights.source}"
        net = network_of_card(card.architecture, card.arguments, where, cfg.plugins)
        spec = spec_of(net, card.scale)
    else:
        raise ConfigError(
            f"checkpoint={weights.source}: names no architecture; add arch=... and scale=..., for "
            "example arch=imdn scale=2 (the choices are in --help)"
        )
    load_into(net, weights, strict=cfg.strict)
    log.info("%s x%d from %s", type(net).__name__, spec.scale, weights.source)
    return net, spec, weights


def use_precision(cfg: NetworkUseConfig) -> Precision:
    """Resolve device and precision of a command that uses a network."""
    return make_precision(cfg.precision, choose_device(cfg.device))
