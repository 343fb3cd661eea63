"""The step before a run measures what it needs, and says what would fit."""

import logging
import re
import time

import pytest
import torch
from torch import nn

from sr_train.commands.checks import dry_step
from sr_train.commands.checks.dry_step import (
    Size,
    Static,
    largest_divisor,
    measure,
    real_step,
    toy_step,
)
from sr_train.commands.checks.trial import try_parts
from sr_train.factory.determinism import use_deterministic
from sr_train.factory.models import make_model
from tests.configs import composed

GIB = 2**30


def config_of(*overrides):
    fixed = ["name=x", "scale=2", "train.steps=5", "data.train.gt=.", "~data.val.main"]
    size = ["precision=fp32", "data.batch_size=8", "data.lq_size=64"]
    return composed(*fixed, *size, *overrides)


COMPACT = ["arch=compact", "arch.num_feat=64", "arch.num_conv=4"]
SWINIR = ["arch=swinir_light", "arch.embed_dim=24", "arch.depths=[12]", "arch.num_heads=[2]"]


def sample_of(cfg):
    side = cfg.data.lq_size
    return {
        "lq": torch.randint(0, 256, (3, side, side), dtype=torch.uint8),
        "gt": torch.randint(0, 256, (3, 2 * side, 2 * side), dtype=torch.uint8),
    }


@pytest.fixture
def ready():
    def make(*overrides, net=COMPACT):
        cfg = config_of(*net, *overrides)
        model = make_model(cfg, torch.device("cpu"))
        sample = sample_of(cfg)
        assert toy_step(cfg, model, sample) == []
        return cfg, model, sample

    return make


def test_what_lies_there_between_steps_is_added_up(ready):
    _, model, _ = ready("ema.enabled=true")
    static = Static.of(model)
    count = sum(p.numel() for p in model.generator.net.parameters())
    assert static.weights == static.gradients == static.averages == 4 * count
    assert static.optimizer == pytest.approx(2 * 4 * count, rel=0.01)


def test_activations_are_measured_and_grow_with_the_batch(ready):
    cfg, model, sample = ready()
    one = measure(cfg, model, sample, Size(2, 1, 64))
    four = measure(cfg, model, sample, Size(8, 1, 64))
    # Each of four convolutions and four PReLUs keeps its input of 64 channels.
    assert four > 8 * 64**2 * 64 * 4 * 8
    assert 2.0 < four / one < 8.0


def test_a_step_that_fits_is_told_with_its_room(ready, caplog):
    caplog.set_level(logging.INFO, "sr_train")
    cfg, model, sample = ready()
    assert real_step(cfg, model, sample) == []
    assert re.search(
        r"real step \(data\.batch_size=8, data\.lq_size=64\): activations [\d.]+ [GM]iB; "
        r"[\d.]+ [GM]iB available, enough for .* times as much",
        caplog.text,
    )
    assert "memory: weights" in caplog.text


def test_a_step_that_does_not_fit_is_not_tried_and_what_would_fit_is_said(ready, monkeypatch):
    cfg, model, sample = ready()
    monkeypatch.setattr(dry_step, "free_bytes", lambda device: 0.06 * GIB)
    sizes = []
    original = dry_step.measure

    def watched(cfg, model, sample, size):
        sizes.append(size)
        return original(cfg, model, sample, size)

    monkeypatch.setattr(dry_step, "measure", watched)
    (problem,) = real_step(cfg, model, sample)
    assert Size(8, 1, 64) not in sizes
    assert "data.batch_size=8, data.lq_size=64: the activations of a step take about" in problem
    accum = int(re.search(r"train\.accum=(\d+) \(the same gradient\)", problem)[1])
    side = int(re.search(r"or data\.lq_size=(\d+)", problem)[1])
    assert accum in (2, 4, 8)
    assert 16 <= side < 64
    monkeypatch.setattr(dry_step, "free_bytes", lambda device: 0.09 * GIB)  # it is not exact
    for changed in (f"train.accum={accum}", f"data.lq_size={side}"):
        smaller, model, sample = ready(changed)
        assert real_step(smaller, model, sample) == []


def test_a_step_that_ran_out_of_memory_is_told_alike(ready, monkeypatch):
    cfg, model, sample = ready()
    forward = model.generator.net.forward

    def short(lq):
        if len(lq) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(lq)

    monkeypatch.setattr(model.generator.net, "forward", short)
    (problem,) = real_step(cfg, model, sample)
    assert "train.accum=" in problem


def test_checkpointing_is_proposed_with_what_it_saves(ready, monkeypatch):
    # A few MiB come and go with the heap of the process; they are little beside this size.
    cfg, model, sample = ready("data.lq_size=64", net=SWINIR)
    monkeypatch.setattr(dry_step, "free_bytes", lambda device: 0.2 * GIB)
    (problem,) = real_step(cfg, model, sample)
    share = int(re.search(r"arch\.gradient_checkpointing=true \((\d+)% of it", problem)[1])
    assert 5 < share < 80


def test_a_loss_that_is_not_finite_is_told(ready):
    cfg, model, sample = ready()
    with torch.no_grad():
        next(model.generator.net.parameters()).fill_(torch.nan)
    (problem,) = toy_step(cfg, model, sample)
    assert problem.startswith("toy step: not finite: ")
    assert "loss/l1" in problem


@pytest.mark.parametrize(
    ("number", "most", "expected"),
    [(12, 5, 4), (12, 12, 12), (12, 0, None), (7, 6, 1), (10**9, 110_950, 100_000)],
)
def test_the_largest_divisor(number, most, expected):
    assert largest_divisor(number, most) == expected


@pytest.mark.parametrize(
    "samples",
    [
        *(pytest.param(each, marks=pytest.mark.slow) for each in (10**9, 10**9 + 7, 10**18 - 1)),
        10**18 + 9,
    ],
)
def test_no_number_of_samples_takes_long_or_much(ready, monkeypatch, samples):
    """A step that fits by far too little is told by arithmetic: the last number is a prime."""
    cfg, model, sample = ready(f"data.batch_size={samples}", "data.lq_size=16")
    monkeypatch.setattr(dry_step, "free_bytes", lambda device: 0.2 * GIB)
    volumes, original = [], dry_step.measure

    def watched(cfg, model, sample, size):
        volumes.append(size.volume)
        return original(cfg, model, sample, size)

    monkeypatch.setattr(dry_step, "measure", watched)
    started = time.perf_counter()
    (problem,) = real_step(cfg, model, sample)
    assert time.perf_counter() - started < 20.0
    # A pixel of this network keeps at least 8 planes of 64 channels in fp32: 2 KiB.
    assert max(volumes) < 0.2 * GIB / 2048
    assert re.search(r"take (about|more than) [\d,.]+ TiB", problem)
    proposed = int(re.search(r"data\.batch_size=(\d+)", problem.split("try")[1])[1])
    assert 100 < proposed < 0.2 * GIB / 2048 / 16**2
    assert not re.search(r"accum=\d{8}", problem)


def test_a_step_of_any_number_of_micro_batches_is_measured_with_two(ready):
    taken = []
    cfg, model, sample = ready("data.batch_size=1000000000", "train.accum=500000000")
    original = model.optimize_parameters

    def watched(batch, *, last_micro_batch):
        taken.append((len(batch["lq"]), model.micro_batches, last_micro_batch))
        original(batch, last_micro_batch=last_micro_batch)

    model.optimize_parameters = watched
    assert real_step(cfg, model, sample) == []
    assert taken[-2:] == [(2, 2, False), (2, 2, True)]


class Dropping(nn.Module):
    """Leaves out one of two layers by chance, and never uses a third."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 12, 1) for _ in range(3))

    def forward(self, lq):
        return nn.functional.pixel_shuffle(self.layers[int(torch.rand(()) < 0.5)](lq), 2)


def test_parameters_are_named_that_no_gradient_ever_reaches(ready, caplog):
    torch.manual_seed(0)
    target = f"{__name__}.Dropping"
    ready("plugins=[tests]", "data.lq_size=16", net=[f"+arch={{_target_: {target}}}"])
    (record,) = [r for r in caplog.records if "no gradient reaches" in r.getMessage()]
    assert record.getMessage().endswith("reaches 2 parameters: layers.2.weight, layers.2.bias")


@pytest.mark.gpu
def test_what_a_gpu_cannot_do_deterministically_is_told_before_a_run():
    words = ["arch=basicvsr", "arch.num_blocks=1", "data.frames=3", "data.lq_size=32"]
    cfg = config_of(*words, "train.deterministic=true", "data.batch_size=1")
    before = torch.are_deterministic_algorithms_enabled()
    try:
        use_deterministic(cfg)
        model = make_model(cfg, torch.device("cuda"))
        clip = {"lq": torch.rand(1, 3, 3, 32, 32), "gt": torch.rand(1, 3, 3, 64, 64)}
        problems, _ = try_parts(cfg, model, [clip])
    finally:
        torch.use_deterministic_algorithms(before)
    (problem,) = problems
    assert problem.startswith("train.deterministic=true: arch needs ")
    assert "grid_sampler" in problem
    assert "on cuda; set train.deterministic=false" in problem
