"""From a typed config to the parts of a run."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from sr_train.config.build import build, resolve_target
from sr_train.config.schema import (
    ChannelsLast,
    NetworkUseConfig,
    ParamGroupConfig,
    PrecisionConfig,
    RunConfig,
    TilingConfig,
    UseConfig,
)
from sr_train.engine.ema import Ema
from sr_train.engine.learner import Learner
from sr_train.engine.model import SRModel
from sr_train.engine.objective import Objective, Term
from sr_train.engine.precision import LossScaler, Precision, resolve_precision
from sr_train.engine.weights import Card, Weights, load_into, read_weights
from sr_train.inference.upscaler import Upscaler
from sr_train.ops.errors import ConfigError, Problems, SRTrainError, did_you_mean
from sr_train.ops.spec import NetSpec

log = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """Return the device a config names; `auto` takes the fastest kind there is.

    Raises:
        ConfigError: for an unknown name or a device this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        valid = ["auto", "cpu", "cuda", "mps"]
        raise ConfigError(f"device={name}: unknown{did_you_mean(name, valid)}") from None
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise ConfigError(f"device={name}: this machine has {count} of that kind; try device=auto")
    return device


def make_precision(cfg: PrecisionConfig, device: torch.device) -> Precision:
    """Resolve the precision and say why it was chosen."""
    precision = resolve_precision(cfg.name.value, device)
    log.info("device %s, precision %s (%s)", device, precision.name, precision.reason)
    return precision


def make_net(arch: Mapping[str, Any], plugins: list[str], scale: int) -> tuple[nn.Module, NetSpec]:
    """Build a network and check that it upscales by what the config says."""
    net = build(arch, "arch", plugins)
    if not isinstance(net, nn.Module):
        raise ConfigError(f"arch._target_={arch['_target_']}: expected a torch.nn.Module")
    spec = spec_of(net, scale)
    if spec.scale != scale:
        raise ConfigError(f"arch.scale={spec.scale}: expected scale={scale}")
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


def make_model(cfg: RunConfig, device: torch.device) -> SRModel:
    """Build the network, its learner, objective and average, on the device."""
    precision = make_precision(cfg.precision, device)
    net, spec = make_net(cfg.arch, cfg.plugins, cfg.scale)
    if cfg.net_g.pretrained is not None:
        path = Path(cfg.net_g.pretrained).expanduser()
        load_into(net, read_weights(path), strict=cfg.net_g.strict)
        log.info("started from the weights in %s", path)
    channels_last = use_channels_last(cfg.net_g.channels_last, precision)
    net = net.to(device)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Ema(net, cfg.ema.decay) if cfg.ema.enabled else None
    if cfg.net_g.compile:
        net.compile()
    learner = Learner(
        net,
        make_optimizer(cfg, net),
        schedule=build(cfg.scheduler, "scheduler", cfg.plugins),
        scaler=make_scaler(cfg.precision, precision),
        max_norm=cfg.train.max_norm,
        accum=cfg.train.accum,
    )
    return SRModel(learner, spec, make_objective(cfg), precision, ema, channels_last)


def use_channels_last(wish: ChannelsLast, precision: Precision) -> bool:
    """Return whether weights and 4-D inputs are laid out as NHWC; `auto`: where it pays.

    It pays for half-precision convolutions on CUDA and on the CPU (about 10 % of a bf16 step).
    """
    if wish is ChannelsLast.auto:
        half = precision.dtype != torch.float32
        return half and precision.device.type in {"cuda", "cpu"}
    return wish is ChannelsLast.always


def make_scaler(cfg: PrecisionConfig, precision: Precision) -> LossScaler:
    """Return the loss scale that a precision needs."""
    settings = asdict(cfg)
    settings.pop("name")
    return LossScaler(precision.device, dynamic=precision.scales_loss, **settings)


def make_objective(cfg: RunConfig) -> Objective:
    """Build the loss terms."""
    terms = {}
    for name, term in cfg.objective.items():
        loss = build(term.loss, f"objective.{name}.loss", cfg.plugins)
        terms[name] = Term(name, loss, term.weight, term.target, term.colour)
    return Objective(terms)


def make_optimizer(cfg: RunConfig, net: nn.Module) -> Optimizer:
    """Build the optimizer over the trainable parameters, in groups by name pattern."""
    factory: Callable[..., Optimizer] = build(cfg.optimizer, "optimizer", cfg.plugins)
    groups = split_parameters(net, cfg.param_groups, cfg.optimizer.get("lr"))
    try:
        optimizer = factory(groups)
    except (TypeError, ValueError) as err:
        raise ConfigError(f"optimizer: {cfg.optimizer['_target_']}: {err}") from err
    if not getattr(optimizer, "_step_supports_amp_scaling", False):
        log.info(
            "%s is not fused: each step waits once for the device to learn whether its gradient "
            "is finite (optimizer.fused=true, where it can)",
            type(optimizer).__name__,
        )
    return optimizer


def split_parameters(
    net: nn.Module, patterns: list[ParamGroupConfig], lr: float | None
) -> list[dict[str, Any]]:
    """Put each trainable parameter into the group of the first pattern that matches its name.

    Raises:
        ConfigError: naming a pattern that matches nothing.
    """
    if patterns and lr is None:
        raise ConfigError("param_groups: optimizer.lr is needed beside them, found none")
    remaining = {name: p for name, p in net.named_parameters() if p.requires_grad}
    every = list(remaining)
    groups: list[dict[str, Any]] = []
    for position, pattern in enumerate(patterns):
        names = [name for name in remaining if fnmatchcase(name, pattern.match)]
        if not names:
            raise ConfigError(
                f"param_groups[{position}].match={pattern.match}: matches no parameter that an "
                f"earlier pattern left{did_you_mean(pattern.match, every)}"
            )
        group = [remaining.pop(name) for name in names]
        groups.append({"params": group, "lr": (lr or 0.0) * pattern.lr_factor})
    if remaining:
        groups.insert(0, {"params": list(remaining.values())})
    return groups


def make_metrics(nodes: Mapping[str, Any], plugins: list[str]) -> dict[str, Any]:
    """Build the metrics by name."""
    return {name: build(node, f"metrics.{name}", plugins) for name, node in nodes.items()}


def make_sets(nodes: Mapping[str, Any], plugins: list[str]) -> dict[str, Any]:
    """Build data sets by config path; the problems of all of them are reported together.

    Args:
        nodes: config path -> node.
        plugins: the user's packages.
    """
    sets, problems = {}, []
    for path, node in nodes.items():
        try:
            sets[path] = build(node, path, plugins)
        except Problems as err:
            problems += [f"{path}: {problem}" for problem in err.problems]
        except SRTrainError as err:
            text = str(err)
            problems.append(text if text.startswith(path) else f"{path}: {text}")
    if problems:
        raise Problems(problems)
    for path, dataset in sets.items():
        log.info("%s: %s", path, dataset.report())
    return sets


def make_upscaler(
    net: nn.Module, spec: NetSpec, precision: Precision, tiling: TilingConfig
) -> Upscaler:
    """Wrap a network for whole pictures."""
    return Upscaler(
        net,
        spec,
        device=precision.device,
        autocast=precision.autocast,
        tile=tiling.tile,
        overlap=tiling.overlap,
        tile_batch=tiling.tile_batch,
    )


def card_of(arch: Mapping[str, Any], spec: NetSpec) -> Card:
    """Describe a network for the files its weights go into."""
    arguments = {key: value for key, value in arch.items() if key != "_target_"}
    return Card(str(arch["_target_"]), arguments, spec.scale)


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
        net, spec = make_net({**cfg.arch, "scale": scale}, cfg.plugins, scale)
    elif card is not None:
        if cfg.scale not in (None, card.scale):
            raise ConfigError(f"scale={cfg.scale}: the checkpoint's is {card.scale}; leave it out")
        factory = resolve_target(card.architecture, "checkpoint", cfg.plugins)
        if not (isinstance(factory, type) and issubclass(factory, nn.Module)):
            raise ConfigError(f"checkpoint={weights.source}: names {card.architecture}, no network")
        net = factory(**card.arguments)
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
