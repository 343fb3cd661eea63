"""From a typed config to networks, and from their weights to use."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sr_train.api.errors import CheckpointError, ConfigError
from sr_train.api.network import NetSpec
from sr_train.api.text import brief, first_few
from sr_train.config.build import at_scale, build
from sr_train.config.schema import ChannelsLast, NetworkUseConfig, TilingConfig, UseConfig
from sr_train.engine.model_card import ModelCard
from sr_train.engine.precision import Precision
from sr_train.engine.weights import Weights, load_into, read_weights
from sr_train.factory.components import choose_device, make_precision
from sr_train.factory.contracts import check_module
from sr_train.factory.described import network_of_card
from sr_train.inference.clips import ClipUpscale, ClipUpscaler, frame_by_frame
from sr_train.inference.probing import fit_sizes
from sr_train.inference.upscaler import Upscaler

log = logging.getLogger(__name__)

Around = Callable[[], AbstractContextManager[Any]]


def make_net(arch: Mapping[str, Any], plugins: list[str], scale: int) -> tuple[nn.Module, NetSpec]:
    """Build a network and check that it upscales by what the config says."""
    net = build(arch, "arch", plugins)
    check_module(net, "arch")
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
        split: whether the weights are split over ranks, which FSDP2 does only in NCHW.

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
    net: nn.Module,
    spec: NetSpec,
    precision: Precision,
    tiling: TilingConfig,
    *,
    measure: bool = False,
    around: Around | None = None,
) -> Upscaler:
    """Wrap a network that takes single images; see `make_clip_upscaler`."""
    return Upscaler(
        net,
        spec,
        device=precision.device,
        autocast=around or precision.autocast,
        tile=tiling.tile,
        overlap=tiling.overlap,
        tile_batch=tiling.tile_batch,
        measure=measure,
    )


def make_clip_upscaler(
    net: nn.Module,
    spec: NetSpec,
    precision: Precision,
    tiling: TilingConfig,
    *,
    measure: bool = False,
    around: Around | None = None,
) -> ClipUpscale:
    """Wrap a network for clips; one that takes single images goes frame by frame.

    Args:
        net: on the device of `precision`.
        spec: of the network.
        precision: in which it runs.
        tiling: of space and time.
        measure: how far tiles are from the whole, and let `auto` go by memory, see `SizedTiler`;
            False: the same tiles each time, as while a network learns.
        around: makes the context of each forward; None: that of `precision`.
    """
    if not spec.takes_clips:
        return frame_by_frame(
            make_upscaler(net, spec, precision, tiling, measure=measure, around=around)
        )
    return ClipUpscaler(
        net,
        spec,
        device=precision.device,
        autocast=around or precision.autocast,
        tile=tiling.tile,
        overlap=tiling.overlap,
        tile_batch=tiling.tile_batch,
        frames=tiling.frames,
        frame_overlap=tiling.frame_overlap,
        measure=measure,
    )


def card_of(arch: Mapping[str, Any], spec: NetSpec) -> ModelCard:
    """Describe a network for the files its weights go into."""
    left_out = {"_target_", *spec.weight_files}
    arguments = {key: value for key, value in arch.items() if key not in left_out}
    return ModelCard(str(arch["_target_"]), arguments, spec.scale, padding=padding_of(spec))


def padding_of(spec: NetSpec) -> dict[str, int]:
    """Return what the inputs of a network must be padded to, for its card; nothing: it does so."""
    if spec.pads_inside:
        return {}
    return {"size_multiple": spec.size_multiple, "min_size": spec.min_size}


def load_for_use(cfg: UseConfig) -> tuple[nn.Module, NetSpec, Weights]:
    """Read a checkpoint and build its network.

    The config's `arch` is used where it is given, else the file's own card: its class is resolved
    like any target, its arguments are plain data.

    Raises:
        SRTrainError: if the file names no architecture and none is given, or nothing fits.
    """
    weights = read_weights(Path(cfg.checkpoint).expanduser(), cfg.weights)
    card = weights.card
    where = f"checkpoint={weights.source}"
    if cfg.arch is not None:
        scale = cfg.scale if cfg.scale is not None else (card.scale if card else None)
        if scale is None:
            raise ConfigError(f"{where}: names no scale; add scale=2, 3 or 4")
        net, spec = make_net(at_scale(cfg.arch, scale, cfg.plugins), cfg.plugins, scale)
    elif card is not None and card.architecture:
        net, spec = _described(cfg, weights)
    else:
        raise ConfigError(f"{where}: names no architecture; {_how_to_name(weights)}")
    load_into(net, weights, strict=cfg.strict)
    spec = fit_sizes(net, spec, torch.device("cpu"))
    log.info("%s x%d from %s", type(net).__name__, spec.scale, weights.source)
    return net, spec, weights


def _described(cfg: UseConfig, weights: Weights) -> tuple[nn.Module, NetSpec]:
    """Build the network of a file's card, of the scale that the card says."""
    card, where = weights.card, f"checkpoint={weights.source}"
    assert card is not None
    if cfg.scale is not None and card.scale not in (None, cfg.scale):
        raise ConfigError(f"scale={cfg.scale}: the checkpoint's is {card.scale}; leave it out")
    net = network_of_card(weights, cfg.plugins, strict=cfg.strict)
    told = cfg.scale or card.scale
    if told is None and not isinstance(getattr(net, "spec", None), NetSpec):
        raise ConfigError(f"{where}: names no scale, nor does its network; add scale=2, 3 or 4")
    spec = spec_of(net, told or 1)
    if told is not None and spec.scale != told:
        said = f"says scale {card.scale}" if cfg.scale is None else f"scale={cfg.scale}"
        raise CheckpointError(f"{where}: {said}, but its network upscales by {spec.scale}")
    return net, spec


def _how_to_name(weights: Weights) -> str:
    names = list(weights.tensors)
    shown = first_few([brief(name, 60) for name in names], 3)
    return (
        "add arch=... and scale=..., for example arch=imdn scale=2 (the choices are in --help; a "
        f"network of your own: plugins=[...]); it holds {len(names)} tensors: {shown}"
    )


def use_precision(cfg: NetworkUseConfig) -> Precision:
    """Resolve device and precision of a command that uses a network."""
    return make_precision(cfg.precision, choose_device(cfg.device))
