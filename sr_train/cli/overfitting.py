"""The gate that shows whether a network, its losses and a precision can learn at all."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sr_train.cli import assemble, learning, networks
from sr_train.config.schema import DiscriminatorConfig, OverfitConfig, TilingConfig
from sr_train.config.term_checks import asked_of
from sr_train.engine.host import keep_heap
from sr_train.engine.model import SRModel
from sr_train.engine.randomness import seed_everything
from sr_train.engine.schedule import Cosine
from sr_train.engine.validator import Upscale
from sr_train.monitoring.console import console, progress_bar, start_logging
from sr_train.ops.errors import ConfigError, SRTrainError
from sr_train.ops.loss_inputs import JUDGED
from sr_train.ops.resize import imresize

log = logging.getLogger(__name__)


def run_overfit(cfg: OverfitConfig) -> None:
    """Train on a few fixed crops and score the live network on the same crops.

    Raises:
        SRTrainError: if the gain over bicubic stays below the threshold.
    """
    start_logging()
    keep_heap()
    seed_everything(cfg.seed)
    device = assemble.choose_device(cfg.device)
    dataset = assemble.make_sets({"data.train": cfg.data.train}, cfg.plugins)["data.train"]
    count = min(cfg.num_samples, len(dataset))
    samples = [dataset.sample(0, index) for index in range(count)]
    model = learning.make_model(cfg if cfg.gan else without_gan(cfg), device)
    model.generator.schedule = Cosine(steps=cfg.num_steps)
    _train(model, samples, cfg)
    metric = assemble.make_metrics(cfg.metrics, cfg.plugins)[cfg.best_metric]
    network = networks.make_upscaler(
        model.generator.net, model.spec, model.precision, TilingConfig(tile=None)
    )

    def bicubic(lq: np.ndarray, name: str) -> np.ndarray:
        return imresize(lq, out_size=(lq.shape[0] * cfg.scale, lq.shape[1] * cfg.scale))

    reached = _mean_score(network, metric, samples, cfg.scale)
    reference = _mean_score(bicubic, metric, samples, cfg.scale)
    gain = (reached - reference) * (1 if metric.higher_is_better else -1)
    verdict = (
        f"{cfg.best_metric} {reached:.4f}, bicubic {reference:.4f}, gain {gain:+.4f}; "
        f"threshold {cfg.threshold:+g}; {count} samples, {cfg.num_steps} steps, "
        f"{model.precision.name}"
    )
    if not gain >= cfg.threshold:
        raise SRTrainError(f"overfit failed: {verdict}")
    console.print(f"overfit passed: {verdict}")


def without_gan(cfg: OverfitConfig) -> OverfitConfig:
    """Return the config without the discriminator and the terms that ask for it.

    Raises:
        ConfigError: if no term is left.
    """
    kept = {
        name: term
        for name, term in cfg.objective.items()
        if not asked_of(term.loss, cfg.plugins) & set(JUDGED)
    }
    dropped = [name for name in cfg.objective if name not in kept]
    if dropped:
        log.info("without the GAN terms: %s (gan=true keeps them)", ", ".join(dropped))
    if not kept:
        raise ConfigError("objective: has GAN terms alone; add another, or set gan=true")
    return replace(cfg, objective=kept, adversary={}, discriminator=DiscriminatorConfig())


def _train(model: SRModel, samples: Sequence[Mapping[str, Tensor]], cfg: OverfitConfig) -> None:
    batches = _batches(samples, cfg.data.batch_size // cfg.train.accum)
    taken = 0
    with progress_bar("overfit", cfg.num_steps) as bar:
        for step in range(1, cfg.num_steps + 1):
            for micro_batch in range(1, cfg.train.accum + 1):
                batch = batches[taken % len(batches)]
                taken += 1
                model.optimize_parameters(batch, last_micro_batch=micro_batch == cfg.train.accum)
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


def _mean_score(
    upscale: Upscale, metric: Any, samples: Sequence[Mapping[str, Tensor]], scale: int
) -> float:
    values = []
    for number, sample in enumerate(samples):
        lq, gt = (sample[name].permute(1, 2, 0).contiguous().numpy() for name in ("lq", "gt"))
        values.append(metric(upscale(lq, f"sample {number}"), gt, scale))
    return math.fsum(values) / len(values)
