"""The step on two ranks: one gradient of both, one decision, one exchange."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from archs.compact import SRVGGNetCompact
from sr_train.api.errors import ConfigError
from sr_train.config.compose import typed
from sr_train.config.schema import RunConfig
from sr_train.engine.distributed import World, fault_of_ranks
from sr_train.engine.joining import wrap_ddp
from sr_train.engine.micro_batches import take_step
from sr_train.engine.sharding import gather_full
from sr_train.factory.models import make_model
from tests.closeness import assert_rounded_alike
from tests.ranks import on_ranks
from tests.sr_train.config.test_shipped import raw

pytestmark = pytest.mark.dist

CPU = torch.device("cpu")
WORDS = (
    "name=toy",
    "scale=2",
    "train.steps=9",
    "dataset=[skimage]",
    "arch=compact",
    "arch.num_feat=8",
    "arch.num_conv=1",
    "objective=[l1,gan,ldl]",
    "objective_d=[gan]",
    "discriminator=unet_sn",
    "discriminator.arch.num_feat=4",
    "scheduler=constant",
    "data.lq_size=8",
)


def joined(world, *words):
    torch.manual_seed(0)
    own = [word.split("=")[0] for word in words]
    kept = [word for word in WORDS if "arch" not in own or not word.startswith("arch")]
    cfg = typed(raw(*kept, *words), RunConfig)
    model = make_model(cfg, CPU, world)
    wrap_ddp(model, cfg.distributed, world)
    return model


def batches(world, step, accum, count=8):
    """Return this rank's micro-batches of a step: `count` samples for all ranks together."""
    generator = torch.Generator().manual_seed(step)
    lq = torch.rand(count, 3, 8, 8, generator=generator)
    gt = torch.rand(count, 3, 16, 16, generator=generator)
    mine = slice(world.rank, None, world.size)
    pieces = zip(lq[mine].chunk(accum), gt[mine].chunk(accum), strict=True)
    return [{"lq": a, "gt": b} for a, b in pieces]


def weights(model):
    nets = {name: learner.net for name, learner in model.learners.items()} | {
        "ema": model.averages["ema"].net
    }
    return {
        f"{name}.{key}": value.clone()
        for name, net in nets.items()
        for key, value in net.state_dict().items()
    }


def learn(world, accum, *words):
    model = joined(world, f"train.accum={accum}", f"data.batch_size={8 // world.size}", *words)
    before = weights(model)
    for step in range(5):
        take_step(model, batches(world, step, accum))
    return before, weights(model), model.meter.read(world.combine).means


ADAM = ("optimizer=adam", "optimizer.lr=1e-3", "+optimizer.eps=1e-2", "discriminator.lr=1e-2")
SGD = ("optimizer=sgd", "optimizer.lr=1e-2", "optimizer.momentum=0.9", "discriminator.lr=1")
SMOOTH = ("precision=fp32", "objective=[charbonnier,gan]", "train.max_norm=0.05")
ROUNDINGS = 16


@pytest.mark.parametrize(("accum", "optimizer"), [(1, ADAM), (2, SGD)], ids=["1-adam", "2-sgd"])
def test_two_ranks_learn_as_one_process_with_both_batches(accum, optimizer):
    """The bound: 16 roundings of 1, which is what the terms of the discriminator's gradient add to.

    Real and fake terms nearly cancel, so that the gradient is off by roundings of 1, not of itself;
    of that, lr times 1 / eps (Adam) or 1 / (1 - momentum) arrives in a weight. Five steps where
    every product is off by up to four roundings at random (scripts/rounding.py) end 5 apart.

    That much can be said only of steps that are continuous in the gradient. Adam with its own eps
    of 1e-8 is not: a gradient that is nothing but rounding moves its weight by up to lr in either
    direction. Nor are L1 and LDL, where a difference is near 0, nor the power iteration of the
    spectral norm, where weights move by less than it minds; hence the rates of the discriminator.
    """
    words = (*SMOOTH, "discriminator.max_norm=0.05", *optimizer)
    before, alone, means = learn(World(), 1, *words)
    for name in (n for n in alone if not n.endswith(("weight_u", "weight_v"))):
        moved = float((alone[name] - before[name]).abs().max())
        assert moved > 30 * ROUNDINGS * 2**-24, f"{name} moved by {moved}: no fault could be seen"
    results = on_ranks(learn, accum, *words)
    for _, found, logged in results:
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            assert_rounded_alike(found[name], value, ROUNDINGS, size=1.0, name=name)
        assert logged == results[0][2]
        # The norm of D's gradient, 0.015, is off by roundings of 1 too: 1e-6 / 0.015.
        for name in ("loss/total", "loss/gan", "loss_d/gan", "grad_norm/g", "grad_norm/d"):
            assert logged[name] == pytest.approx(means[name], rel=1e-4), name


def count_exchanges(world):
    model = joined(world, "train.accum=3", "precision=fp32")
    calls = {"g": 0, "d": 0}
    for name, learner in model.learners.items():

        def hook(state, bucket, name=name):
            calls[name] += 1
            return allreduce_hook(None, bucket)

        learner.wrapped.register_comm_hook(None, hook)
    seen = []
    model.micro_batches = 3
    for step in range(2):
        for number, piece in enumerate(batches(world, step, 3, count=12), start=1):
            model.optimize_parameters(piece, last_micro_batch=number == 3)
            seen.append(dict(calls))
    return seen


def test_gradients_are_exchanged_on_the_last_micro_batch_alone():
    for seen in on_ranks(count_exchanges):
        per_step = [[row["g"] for row in seen], [row["d"] for row in seen]]
        for counts in per_step:
            assert counts[:2] == [0, 0]
            assert counts[2] >= 1
            assert counts[3:] == [counts[2]] * 2 + [2 * counts[2]]


SPLIT = (
    "arch=swinir_light",
    "arch.img_size=8",
    "arch.window_size=4",
    "arch.embed_dim=12",
    "arch.depths=[2,2]",
    "arch.num_heads=[2,2]",
    "+arch.drop_path_rate=0.0",
    "optimizer=sgd",
    "precision=fp32",
    "train.max_norm=0.05",
    "distributed.strategy=fsdp",
)


def accumulate_split(world):
    model = joined(world, "train.accum=2", *SPLIT, "optimizer.fused=false")
    held, model.micro_batches = [], 2
    for number, piece in enumerate(batches(world, 0, 2), start=1):
        model.optimize_parameters(piece, last_micro_batch=number == 2)
        held.append(sum(p.grad is not None for p in model.generator.parameters))
    silent = model.generator.parameters_without_grad()
    return (
        held,
        silent,
        gather_full(model.generator.net.state_dict()),
        model.meter.read(world.combine),
    )


def test_split_gradients_are_exchanged_on_the_last_micro_batch_alone():
    (_, silent_alone, alone, window) = accumulate_split(World())
    results = on_ranks(accumulate_split)
    for held, silent, found, logged in results:
        assert held[0] == 0, "nothing is exchanged yet"
        assert held[1] > 0
        assert silent == silent_alone == []
        assert logged.means["grad_norm/g"] == pytest.approx(window.means["grad_norm/g"], rel=1e-5)
        for name, value in alone.items():
            # One step of SGD: of the roundings of a gradient clipped to 0.05, lr = 0.01 arrives.
            assert_rounded_alike(found[name], value, roundings=8, name=name)


def split_with(world, *words):
    try:
        return type(joined(world, *SPLIT, *words).generator.optimizer).__name__
    except ConfigError as err:
        return str(err)


def test_an_optimizer_that_torch_cannot_split_is_refused():
    for told in on_ranks(split_with, "optimizer=sgd"):
        assert told.startswith("optimizer.fused=true: ")
        assert "SGD; with distributed.strategy=fsdp set optimizer.fused=false" in told
    assert on_ranks(split_with, "optimizer=adamw") == ["AdamW", "AdamW"]


class Idle(SRVGGNetCompact):
    """A network with a weight that nothing uses."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.idle = nn.Parameter(torch.ones(()))


def meet_idle(world, find):
    target = "arch._target_=tests.sr_train.engine.test_joined_step.Idle"
    words = ("plugins=[tests]", target, "precision=fp32", f"distributed.find_unused={find}")
    model = joined(world, *words)
    try:
        for step in range(3):
            take_step(model, batches(world, step, 1))
    except RuntimeError as err:
        return str(fault_of_ranks(err))
    return model.generator.parameters_without_grad()


def test_an_unused_weight_is_told_or_looked_for():
    for told in on_ranks(meet_idle, False):
        assert "set distributed.find_unused=true" in told
    assert on_ranks(meet_idle, True) == [["idle"], ["idle"]]


def meet_nan(world, precision, where):
    model = joined(world, f"precision={precision}", "precision.growth_interval=2")
    take_step(model, batches(world, 0, 1))
    before = weights(model)
    spoilt = batches(world, 1, 1)
    if world.rank == 1:
        spoilt[0][where][0, 0, 0, 0] = float("nan")
    take_step(model, spoilt)
    after = weights(model)
    take_step(model, batches(world, 2, 1))
    skipped = {name: learner.num_skipped for name, learner in model.learners.items()}
    scale = float(model.generator.scaler.scale)
    return before, after, weights(model), skipped, scale


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("where", ["lq", "gt"])
def test_nan_on_one_rank_is_skipped_by_both(precision, where):
    first, second = on_ranks(meet_nan, precision, where)
    for before, after, end, skipped, scale in (first, second):
        assert skipped == {"g": 1, "d": 1}
        assert scale == (1.0 if precision == "fp32" else 32768.0)
        for name in before:
            if "weight_u" in name or "weight_v" in name:
                continue  # the power iteration of the step before, made by the forward
            assert torch.equal(before[name], after[name]), name
        assert any(not torch.equal(end[name], after[name]) for name in end)
    for name, value in first[2].items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, second[2][name]), f"{name} differs between the ranks"
