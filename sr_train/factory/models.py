"""From a typed config to everything that learns."""

import copy
import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sr_train.api import loss_inputs
from sr_train.api.errors import ConfigError, did_you_mean
from sr_train.api.network import NetSpec
from sr_train.api.optimizers import averages_itself
from sr_train.config.build import build, resolve_target
from sr_train.config.schema import (
    PrecisionConfig,
    RunConfig,
    Strategy,
)
from sr_train.config.settings import ObjectiveTermConfig
from sr_train.engine.adversary import Adversary, Pace
from sr_train.engine.averages import AveragedWeights, Ema, OptimizerAverage, Swa
from sr_train.engine.compiling import compile_or_tell
from sr_train.engine.distributed import World
from sr_train.engine.joining import convert_sync_batchnorm
from sr_train.engine.learner import Learner
from sr_train.engine.model import SRModel, to_layout
from sr_train.engine.objective import Objective, Term
from sr_train.engine.precision import LossScaler, Precision
from sr_train.engine.sharding import shard_
from sr_train.engine.weights import load_into, read_weights
from sr_train.factory.components import make_precision
from sr_train.factory.contracts import check_module
from sr_train.factory.networks import make_net, use_channels_last
from sr_train.factory.optimizers import called, make_optimizer, make_schedule
from sr_train.inference.calling import padded
from sr_train.inference.probing import fit_sizes
from sr_train.utils.failures import in_words, naming

log = logging.getLogger(__name__)


def make_model(cfg: RunConfig, device: torch.device, world: World | None = None) -> SRModel:
    """Build the networks, their learners, objectives and averages, on the device.

    Args:
        cfg: checked config.
        device: of this process.
        world: the ranks that a network may be split over; None: only this process.
    """
    precision = make_precision(cfg.precision, device)
    net, spec = make_net(cfg.arch, cfg.plugins, cfg.scale)
    start_from(net, cfg.net_g.pretrained, "ema", strict=cfg.net_g.strict)
    freeze(net, cfg.net_g.freeze, "net_g.freeze")
    check_learns(net, "arch")
    fsdp = cfg.distributed.strategy is Strategy.fsdp and world is not None and world.size > 1
    channels_last = use_channels_last(cfg.net_g.channels_last, precision, split=fsdp)
    net = placed(net, device, channels_last)
    spec = fit_sizes(net, spec, device)
    net = convert_sync_batchnorm(net, device, world)
    averages = make_averages(cfg, net)
    full_net = None
    if fsdp:
        full_net = copy.deepcopy(net).requires_grad_(False)
        for split in (net, *(average.net for average in averages.values())):
            shard_(split)
    if cfg.net_g.compile:
        sample = torch.rand(input_shape(cfg, spec), device=device)
        sample = to_layout(padded(sample, spec), channels_last)
        compile_or_tell(net, sample, precision, "net_g.compile")
    learner = Learner(
        net,
        make_optimizer(cfg, net),
        schedule=make_schedule(cfg.scheduler, "scheduler", cfg),
        scaler=make_scaler(cfg.precision, precision),
        max_norm=cfg.train.max_norm,
    )
    for average in averages.values():
        average.follow(learner.optimizer)
    adversary = make_adversary(cfg, spec, precision, channels_last, world)
    return SRModel(
        learner,
        spec,
        make_objective(cfg, spec),
        precision,
        averages,
        adversary,
        channels_last,
        full_net=full_net,
    )


def make_adversary(
    cfg: RunConfig,
    spec: NetSpec,
    precision: Precision,
    channels_last: bool,
    world: World | None = None,
) -> Adversary | None:
    """Build the discriminator with its learner, objective and pace; None without an arch."""
    wanted = cfg.discriminator
    if wanted.arch is None:
        return None
    net = build(wanted.arch, "discriminator.arch", cfg.plugins)
    check_module(net, "discriminator.arch")
    side = cfg.data.lq_size * cfg.scale
    check_discriminator(net, (1, spec.out_channels, side, side))
    start_from(net, wanted.pretrained, "net_d", strict=wanted.strict)
    freeze(net, wanted.freeze, "discriminator.freeze")
    check_learns(net, "discriminator.arch")
    net = convert_sync_batchnorm(
        placed(net, precision.device, channels_last), precision.device, world
    )
    if wanted.compile:
        images = num_discriminator_images(cfg, spec)
        sample = torch.rand(images, spec.out_channels, side, side, device=precision.device)
        sample = to_layout(sample, channels_last)
        compile_or_tell(net, sample, precision, "discriminator.compile")
    learner = discriminator_learner(cfg, net, precision)
    return Adversary(learner, adversary_objective(cfg), Pace(wanted), wanted.frames)


def input_shape(cfg: RunConfig, spec: NetSpec) -> tuple[int, ...]:
    """Return the shape of what a micro-batch feeds the generator."""
    channels = spec.in_channels + sum(spec.extra_inputs.values())
    frames = (cfg.data.frames,) if spec.takes_clips else ()
    micro_batch = cfg.data.batch_size // cfg.train.accum
    return (micro_batch, *frames, channels, cfg.data.lq_size, cfg.data.lq_size)


def num_discriminator_images(cfg: RunConfig, spec: NetSpec) -> int:
    """Return how many images of a micro-batch the discriminator sees."""
    frames = cfg.data.frames if spec.takes_clips else 1
    shown = min(frames, cfg.discriminator.frames or frames)
    return shown * (cfg.data.batch_size // cfg.train.accum)


def discriminator_learner(cfg: RunConfig, net: nn.Module, precision: Precision) -> Learner:
    """Build what makes the discriminator learn; unset settings are the generator's."""
    wanted = cfg.discriminator
    node, where = cfg.optimizer, "optimizer"
    if wanted.optimizer is not None:
        node, where = wanted.optimizer, "discriminator.optimizer"
    if wanted.lr is not None:
        node = {**node, "lr": wanted.lr}
    scheduler, path = cfg.scheduler, "scheduler"
    if wanted.scheduler is not None:
        scheduler, path = wanted.scheduler, "discriminator.scheduler"
    trainable = [p for p in net.parameters() if p.requires_grad]
    return Learner(
        net,
        called(build(node, where, cfg.plugins), [{"params": trainable}], where),
        schedule=make_schedule(scheduler, path, cfg),
        scaler=make_scaler(cfg.precision, precision),
        max_norm=wanted.max_norm,
    )


def adversary_objective(cfg: RunConfig) -> Objective:
    """Build the discriminator's loss terms."""
    terms = {
        name: Term(
            name,
            make_loss(term.loss, f"objective_d.{name}.loss", cfg.plugins),
            ObjectiveTermConfig(term.loss, term.weight, term.start, term.ramp),
            group="objective_d",
            available_inputs=loss_inputs.ADVERSARY,
        )
        for name, term in cfg.objective_d.items()
    }
    return Objective(terms, "objective_d")


def check_discriminator(net: nn.Module, shape: tuple[int, int, int, int]) -> None:
    """Raise where a discriminator does not take images of a shape; nothing is computed.

    Raises:
        ConfigError: with what the network said.
    """
    with naming("discriminator.arch", net, lambda: "a copy of it"):
        twin = copy.deepcopy(net).to("meta").eval()
    try:
        twin(torch.empty(shape, device="meta"))
    except Exception as err:  # a network of anybody's may raise anything
        if isinstance(err, NotImplementedError) or "meta" in str(err).lower():
            return  # it needs numbers to say
        raise ConfigError(
            f"discriminator.arch: {type(net).__name__} does not take images of {shape[1:]}, "
            f"which data.lq_size times scale, and arch, make: {in_words(err)}"
        ) from err


def make_averages(cfg: RunConfig, net: nn.Module) -> dict[str, AveragedWeights]:
    """Build the averages of the generator's weights that are wanted, by kind.

    An optimizer's own average takes the place of an EMA.
    """
    averages: dict[str, AveragedWeights] = {}
    with naming("arch", net, lambda: "a copy of it, for its average (ema.enabled, swa.enabled)"):
        if cfg.ema.enabled:
            averages["ema"] = _make_ema(cfg, net)
        if cfg.swa.enabled:
            start = 3 * cfg.train.steps // 4 if cfg.swa.start is None else cfg.swa.start
            averages["swa"] = Swa(net, start, cfg.swa.every)
    return averages


def _make_ema(cfg: RunConfig, net: nn.Module) -> AveragedWeights:
    target = cfg.optimizer["_target_"]
    if averages_itself(resolve_target(target, "optimizer", cfg.plugins)):
        log.info("%s averages by itself: its average is used, ema.decay is not read", target)
        return OptimizerAverage(net)
    return Ema(net, cfg.ema.decay)


def start_from(net: nn.Module, path: str | None, which: str, *, strict: bool) -> None:
    """Load the weights that a network starts from, if any."""
    if path is None:
        return
    source = Path(path).expanduser()
    load_into(net, read_weights(source, which), strict=strict)
    log.info("%s started from the weights in %s", type(net).__name__, source)


def freeze(net: nn.Module, patterns: Sequence[str], where: str) -> None:
    """Keep parameters as they are whose name matches a shell pattern.

    Raises:
        ConfigError: naming a pattern that matches nothing, or if nothing is left to learn.
    """
    named = dict(net.named_parameters())
    for position, pattern in enumerate(patterns):
        matched = [name for name in named if fnmatchcase(name, pattern)]
        if not matched:
            hint = did_you_mean(pattern, named)
            raise ConfigError(f"{where}[{position}]={pattern}: matches no parameter{hint}")
        for name in matched:
            named[name].requires_grad_(False)
    if patterns:
        left = sum(p.requires_grad for p in named.values())
        if left == 0:
            raise ConfigError(f"{where}: freezes every parameter; nothing is left to learn")
        log.info("%s: %d of %d parameters frozen", where, len(named) - left, len(named))


def check_learns(net: nn.Module, where: str) -> None:
    """Raise where nothing of a network can learn.

    Raises:
        ConfigError: naming it.
    """
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise ConfigError(f"{where}: {type(net).__name__} has no parameter that could learn")


def placed(net: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """Bring a network to its device; with `channels_last`, its 2-D convolutions in NHWC.

    Other weights stay as they are: those of 3-D convolutions have five axes, and what else has
    four is no image.
    """
    net = net.to(device)
    if channels_last:
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def make_scaler(cfg: PrecisionConfig, precision: Precision) -> LossScaler:
    """Return the loss scale that a precision needs."""
    return LossScaler(
        precision.device,
        dynamic=precision.scales_loss,
        settings=cfg,
    )


def make_objective(cfg: RunConfig, spec: NetSpec) -> Objective:
    """Build the generator's loss terms."""
    available_inputs = loss_inputs.GENERATOR
    if cfg.discriminator.arch is not None:
        available_inputs += loss_inputs.DISCRIMINATOR_INPUTS
    terms = {}
    for name, term in cfg.objective.items():
        if term.colour == "cbcr" and spec.colour == "y":
            raise ConfigError(f"objective.{name}.colour=cbcr: the network makes only luma")
        loss = make_loss(term.loss, f"objective.{name}.loss", cfg.plugins)
        planes = loss_inputs.COLOURS.get(term.colour) or spec.out_channels
        loss_inputs.check_planes(loss, planes, f"objective.{name}")
        terms[name] = Term(
            name,
            loss,
            term,
            available_inputs=available_inputs,
        )
    return Objective(terms)


def make_loss(node: Any, path: str, plugins: Sequence[str]) -> nn.Module:
    """Build the loss of a term."""
    loss = build(node, path, plugins)
    check_module(loss, path)
    return loss
