"""The gate that shows whether a network, its losses and a precision can learn at all."""

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from sr_train.api.dataset import ClipInMemory, ClipsInMemory
from sr_train.api.errors import ConfigError, SRTrainError, raise_all
from sr_train.api.loss_inputs import DISCRIMINATOR_INPUTS
from sr_train.commands.checks.inputs import check_inputs
from sr_train.config.compose import typed
from sr_train.config.preflight import overfit_problems
from sr_train.config.schema import DiscriminatorConfig, OverfitConfig, TilingConfig
from sr_train.config.term_checks import required_inputs
from sr_train.engine.micro_batches import take_step
from sr_train.engine.model import SRModel
from sr_train.engine.randomness import seed_everything
from sr_train.engine.schedule import Cosine
from sr_train.engine.validator import Validator
from sr_train.factory import components, models, networks
from sr_train.inference.clips import frame_by_frame
from sr_train.io.formats.limits import set_max_megapixels
from sr_train.monitoring.console import console, progress_bar, start_logging
from sr_train.utils.heap import keep_heap

log = logging.getLogger(__name__)


def run(cfg: DictConfig) -> None:
    """Do one `overfit`.

    Raises:
        SRTrainError: for everything a user can fix, or where the network learns too little.
    """
    config = typed(cfg, OverfitConfig)
    raise_all(overfit_problems(config))
    _overfit(config)


def _overfit(cfg: OverfitConfig) -> None:
    """Train on a few fixed crops and score the live network on the same crops.

    Raises:
        SRTrainError: if the gain over bicubic stays below the threshold.
    """
    start_logging()
    keep_heap()
    seed_everything(cfg.seed)
    set_max_megapixels(cfg.io.max_megapixels)
    device = components.choose_device(cfg.device)
    dataset = components.make_sets({"data.train": cfg.data.train}, cfg.plugins)["data.train"]
    count = min(cfg.num_samples, len(dataset))
    samples = [dataset.sample(0, index) for index in range(count)]
    model = models.make_model(cfg if cfg.gan else without_gan(cfg), device)
    check_inputs(model.spec, {"data.train": dataset})
    model.generator.schedule = Cosine(steps=cfg.num_steps)
    if cfg.callbacks:
        log.info("overfit runs no callbacks: %s", ", ".join(cfg.callbacks))
    _train(model, samples, cfg)
    metric = components.make_metrics(cfg.metrics, cfg.plugins)[cfg.best_metric]
    network = networks.make_clip_upscaler(
        model.generator.net, model.spec, model.precision, TilingConfig(tile=None)
    )
    clips = [_clip(f"sample {number}", sample) for number, sample in enumerate(samples)]
    sets = {"samples": ClipsInMemory(clips)}
    validator = Validator(sets, {cfg.best_metric: metric}, cfg.scale)
    reached = validator.run(network).mean()[cfg.best_metric]
    reference = validator.run(frame_by_frame(validator.bicubic)).mean()[cfg.best_metric]
    gain = (reached - reference) * (1 if metric.higher_is_better else -1)
    outcome = (
        f"{cfg.best_metric} {reached:.4f}, bicubic {reference:.4f}, gain {gain:+.4f}; "
        f"threshold {cfg.threshold:+g}; {count} samples, {cfg.num_steps} steps, "
        f"{model.precision.name}"
    )
    if not gain >= cfg.threshold:
        raise SRTrainError(f"overfit failed: {outcome}")
    console.print(f"overfit passed: {outcome}")


def without_gan(cfg: OverfitConfig) -> OverfitConfig:
    """Return the config without the discriminator and the terms that ask for it.

    Raises:
        ConfigError: if no term is left.
    """
    kept = {
        name: term
        for name, term in cfg.objective.items()
        if not required_inputs(term.loss, cfg.plugins) & set(DISCRIMINATOR_INPUTS)
    }
    dropped = [name for name in cfg.objective if name not in kept]
    if dropped:
        log.info("without the GAN terms: %s (gan=true keeps them)", ", ".join(dropped))
    if not kept:
        raise ConfigError("objective: has only GAN terms; add another, or set gan=true")
    return replace(cfg, objective=kept, objective_d={}, discriminator=DiscriminatorConfig())


def _train(model: SRModel, samples: Sequence[Mapping[str, Tensor]], cfg: OverfitConfig) -> None:
    accum = cfg.train.accum
    batches = itertools.cycle(_batches(samples, cfg.data.batch_size // accum))
    with progress_bar("overfit", cfg.num_steps) as bar:
        for step in range(1, cfg.num_steps + 1):
            take_step(model, list(itertools.islice(batches, accum)))
            note = None
            if step % max(1, cfg.num_steps // 10) == 0:
                loss = model.meter.read().means.get("loss/total", math.nan)
                note = f"loss {loss:.5f}"
                log.info("step %d/%d  %s", step, cfg.num_steps, note)
            bar.advance(note)


def _batches(samples: Sequence[Mapping[str, Tensor]], size: int) -> list[dict[str, Tensor]]:
    return [
        {
            key: torch.stack([sample[key] for sample in samples[start : start + size]])
            for key in samples[0]
        }
        for start in range(0, len(samples), size)
    ]


def _clip(name: str, sample: Mapping[str, Tensor]) -> ClipInMemory:
    """Return a training sample as validation takes it; an image's has one frame."""
    parts = {key: _frames_last(value) for key, value in sample.items()}
    count = len(parts["gt"])
    frames = [{key: part[t] for key, part in parts.items()} for t in range(count)]
    return ClipInMemory(name, frames, [str(t) for t in range(count)])


def _frames_last(value: Tensor) -> np.ndarray:
    """Return (T, h, w, C) of a sample's (T, C, h, w), or of an image's (C, h, w) with T = 1."""
    clip = value if value.ndim == 4 else value[None]
    return clip.permute(0, 2, 3, 1).contiguous().numpy()
