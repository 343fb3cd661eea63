"""One step before the run: whether it is finite, and how much memory it takes, measured."""

import gc
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sr_train.api.errors import SRTrainError
from sr_train.api.network import NetSpec
from sr_train.api.text import first_few
from sr_train.config.schema import RunConfig
from sr_train.engine.micro_batches import take_step
from sr_train.engine.model import SRModel
from sr_train.engine.sharding import to_local
from sr_train.factory import models
from sr_train.utils.heap import PeakMemory, free_bytes, trim_heap
from sr_train.utils.memory import is_out_of_memory

log = logging.getLogger(__name__)

TOY_SIZE = 16
"""Side of the toy crop, LQ pixels."""

_LOOKS = 5
"""Steps in a row without a gradient after which a parameter is named."""

_GIB = 2**30
_SAFE = 0.9
"""Share of the memory that a step may take."""

_TELLING = 64 * 2**20
"""Bytes of activations from which on they show how many those of a larger step will be."""

_HOPELESS = 4
"""Times the memory there is that a step is expected to take, beyond which none larger is tried."""

_LARGEST_SEARCHED = 1 << 20
"""Samples up to which a divisor of the batch is looked for."""

_MOST_ACCUM = 64
"""Micro-batches of a step beyond which a smaller batch is proposed, too."""

_MICRO_BATCHES = 2
"""As many show the memory of a step as any number does: the second is run beside the gradient."""

Sample = Mapping[str, Tensor]


@dataclass(frozen=True)
class Size:
    """How large a micro-batch is."""

    samples: int
    frames: int
    lq_size: int

    @property
    def volume(self) -> int:
        """LQ pixels, in which the memory of activations is linear."""
        return self.samples * self.frames * self.lq_size**2


def toy_batches(cfg: RunConfig, sample: Sample) -> list[Mapping[str, Tensor]]:
    """Return a small crop of a training sample and the whole of it, as small batches.

    Some discriminators, losses and networks take no crop smaller than those of the run, and some no
    single sample.
    """
    samples = min(2, cfg.data.batch_size // cfg.train.accum)
    sides = dict.fromkeys([min(TOY_SIZE, cfg.data.lq_size), cfg.data.lq_size])
    if cfg.discriminator.arch is not None:
        sides = {cfg.data.lq_size: None}
    return [_cut(sample, Size(samples, cfg.data.frames, side), cfg.scale) for side in sides]


def toy_step(
    cfg: RunConfig, model: SRModel, sample: Sample, batch: Mapping[str, Tensor] | None = None
) -> list[str]:
    """Take a step on a small crop, or on a batch; return what is wrong with it."""
    toy = toy_batches(cfg, sample)[0] if batch is None else batch
    _one_step(model, toy, cfg.train.accum)
    values = model.meter.read()
    if values.non_finite:
        return [f"toy step: not finite: {', '.join(values.non_finite)}"]
    _tell_silent(cfg, model, toy)
    log.info("toy step: loss %.5f, gradient finite", values.means["loss/total"])
    return []


def _tell_silent(cfg: RunConfig, model: SRModel, toy: Mapping[str, Tensor]) -> None:
    """Warn of parameters that no gradient reaches; stochastic depth leaves out others each time."""
    silent = {name: learner.parameters_without_grad() for name, learner in model.learners.items()}
    for _ in range(_LOOKS - 1):
        if not any(silent.values()):
            return
        _one_step(model, toy, cfg.train.accum)
        for name, learner in model.learners.items():
            now = set(learner.parameters_without_grad())
            silent[name] = [each for each in silent[name] if each in now]
    for name, found in silent.items():
        if found:
            log.warning(
                "warning: net_%s: in %d steps no gradient reaches %d parameters: %s",
                name,
                _LOOKS,
                len(found),
                first_few(found),
            )


def real_step(
    cfg: RunConfig, model: SRModel, sample: Sample, *, takes_small: bool = True
) -> list[str]:
    """Measure the memory of a step; return what to change where it does not fit.

    Ever larger steps are measured, as long as the last one shows that the next will fit, and that
    the whole may: the memory of the host is that of everybody.

    Args:
        cfg: of the run.
        model: that has taken a step.
        sample: of the training set.
        takes_small: whether crops smaller than those of the run may be measured.
    """
    full = Size(cfg.data.batch_size // cfg.train.accum, cfg.data.frames, cfg.data.lq_size)
    log.info("%s", Static.of(model))
    room = free_bytes(model.device) * _SAFE
    least = _least_bytes(model.spec)
    tried, per_pixel, words = None, least, "more than"
    for size in _ladder(full, model, takes_small):
        if per_pixel * size.volume > room:
            break
        try:
            activations = measure(cfg, model, sample, size)
        except SRTrainError:
            if size == full:
                raise
            continue  # some networks take no single sample
        if activations is None:
            per_pixel, words = max(per_pixel, (room + 1) / size.volume), "more than"
            break
        tried, per_pixel, words = size, max(least, activations / size.volume), "about"
        if activations > _TELLING and per_pixel * full.volume > _HOPELESS * room:
            break
    expected = per_pixel * full.volume
    if expected <= room:
        log.info(
            "real step (%s): activations %s; %s available, enough for %s times as much",
            _shown(cfg, full),
            shown_size(expected),
            shown_size(room),
            f"about {room / expected:.1f}" if room < 100 * expected else "more than 100",
        )
        return []
    advice = _advice(cfg, model, sample, tried, per_pixel, room)
    return [
        f"{_shown(cfg, full)}: the activations of a step take {words} {shown_size(expected)}, "
        f"{shown_size(room)} are available; try {' or '.join(advice) or 'another network'}"
    ]


@dataclass(frozen=True)
class Static:
    """Bytes that a run takes between its steps."""

    weights: int
    gradients: int
    optimizer: int
    averages: int

    @property
    def state(self) -> int:
        """Bytes of a training state."""
        return self.weights + self.optimizer + self.averages

    @classmethod
    def of(cls, model: SRModel) -> "Static":
        """Add up a model that has taken a step."""
        learners = model.learners.values()
        averages = [average.net for average in model.averages.values()]
        return cls(
            weights=sum(_bytes(_of(learner.net.state_dict())) for learner in learners),
            gradients=sum(_bytes(learner.parameters) for learner in learners),
            optimizer=sum(
                _bytes(value for state in learner.optimizer.state.values() for value in _of(state))
                for learner in learners
            ),
            averages=sum(_bytes(_of(net.state_dict())) for net in averages),
        )

    def __str__(self) -> str:
        return (
            f"memory: weights {shown_size(self.weights)}, gradients {shown_size(self.gradients)}, "
            f"optimizer state {shown_size(self.optimizer)}, averages {shown_size(self.averages)}"
        )


def measure(cfg: RunConfig, model: SRModel, sample: Sample, size: Size) -> float | None:
    """Return the bytes that a step needs beyond what lies there before it; None: too many."""
    batch = _cut(sample, size, cfg.scale)
    model.discard_gradients()
    gc.collect()
    trim_heap()
    try:
        with PeakMemory(model.device) as memory:
            _one_step(model, batch, cfg.train.accum)
    except RuntimeError as err:
        if not is_out_of_memory(err):
            raise
        model.discard_gradients()
        return None
    return float(memory.growth)


def _ladder(full: Size, model: SRModel, takes_small: bool) -> Iterator[Size]:
    """Yield sizes from a small part of a micro-batch up to the whole."""
    frames, side = full.frames, full.lq_size
    if model.spec.takes_clips:
        frames = min(frames, max(2, model.spec.min_frames))
    if takes_small and model.adversary is None:
        side = min(side, max(TOY_SIZE, side // 2))
    smallest = Size(1, frames, side)
    if smallest.volume < full.volume:
        yield smallest
    samples = 1
    while samples < full.samples:
        yield Size(samples, full.frames, full.lq_size)
        samples *= 4
    yield full


def _advice(
    cfg: RunConfig,
    model: SRModel,
    sample: Sample,
    tried: Size | None,
    per_pixel: float,
    room: float,
) -> Iterator[str]:
    """Yield settings with each of which a step would fit.

    Args:
        cfg: of the run.
        model: that was measured.
        sample: of the data set.
        tried: the largest size that was measured; None: none was.
        per_pixel: bytes of activations for each LQ pixel.
        room: bytes that there are.
    """
    samples = cfg.data.batch_size // cfg.train.accum
    expected = per_pixel * samples * cfg.data.frames * cfg.data.lq_size**2
    if tried is not None and not cfg.arch.get("gradient_checkpointing", True):
        saved = _with_checkpointing(cfg, sample, tried, model.device)
        if saved is not None:
            ratio = saved / tried.volume / per_pixel
            fits = "" if ratio * expected <= room else ", with one of the others"
            yield f"arch.gradient_checkpointing=true ({ratio:.0%} of it{fits})"
    part = room / expected
    most = min(samples - 1, math.floor(samples * part))
    fitting = largest_divisor(samples, most)
    accum = None if fitting is None else cfg.data.batch_size // fitting
    if accum is not None and accum <= _LARGEST_SEARCHED:
        yield f"train.accum={accum} (the same gradient)"
    if most > 0 and (accum is None or accum > _MOST_ACCUM):
        yield f"data.batch_size={most * cfg.train.accum}"
    frames = math.floor(cfg.data.frames * part)
    if model.spec.takes_clips and frames >= max(2, model.spec.min_frames):
        yield f"data.frames={frames}"
    side = math.floor(cfg.data.lq_size * math.sqrt(part)) // 4 * 4
    if side >= TOY_SIZE:
        yield f"data.lq_size={side}"


def largest_divisor(number: int, most: int) -> int | None:
    """Return the largest divisor of a number up to `most`, as far as it is searched.

    Returns:
        None: there is none below the bounds of the search.
    """
    candidates = range(min(most, _LARGEST_SEARCHED), 0, -1)
    return next((each for each in candidates if number % each == 0), None)


def _least_bytes(spec: NetSpec) -> float:
    """Return what each LQ pixel takes for its input, prediction and truth, in fp32."""
    return 4.0 * (spec.in_channels + 2 * spec.out_channels * spec.scale**2)


def _with_checkpointing(
    cfg: RunConfig, sample: Sample, size: Size, device: torch.device
) -> float | None:
    """Return the activations of a step of the same network with gradient checkpointing."""
    arch = {**cfg.arch, "gradient_checkpointing": True}
    twin = models.make_model(replace(cfg, arch=arch), device)
    _one_step(twin, _cut(sample, size, cfg.scale), cfg.train.accum)
    return measure(cfg, twin, sample, size)


def _cut(sample: Sample, size: Size, scale: int) -> dict[str, Tensor]:
    """Return a batch of a size, cut from one sample and repeated."""
    batch = {}
    for name, value in sample.items():
        side = size.lq_size * (scale if name == "gt" else 1)
        piece = value[..., :side, :side]
        piece = piece[: size.frames] if piece.ndim == 4 else piece
        batch[name] = torch.stack([piece] * size.samples)
    return batch


def _one_step(model: SRModel, batch: Mapping[str, Tensor], accum: int) -> None:
    """Take a step of the same micro-batch over and over, as often as shows anything new."""
    take_step(model, [batch] * min(accum, _MICRO_BATCHES))


def _of(state: Mapping[str, Any]) -> Iterator[Tensor]:
    return (value for value in state.values() if isinstance(value, Tensor))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in map(to_local, tensors))


def shown_size(size: float) -> str:
    """Return a number of bytes in words."""
    if size >= 1024 * _GIB:
        return f"{size / 1024 / _GIB:,.1f} TiB"
    return f"{size / _GIB:.2f} GiB" if size >= _GIB else f"{size / 2**20:.0f} MiB"


def _shown(cfg: RunConfig, size: Size) -> str:
    clips = f", data.frames={size.frames}" if size.frames > 1 else ""
    accum = f" in {cfg.train.accum} micro-batches" if cfg.train.accum > 1 else ""
    return f"data.batch_size={cfg.data.batch_size}{accum}{clips}, data.lq_size={size.lq_size}"
