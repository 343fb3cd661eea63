import copy
import math

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from sr_train.engine import learning_rates as module
from sr_train.engine.learner import Learner
from sr_train.engine.learning_rates import LearningRates
from sr_train.engine.precision import LossScaler
from sr_train.engine.schedule import Cosine, CosineRestarts, MultiStep, OneCycle

CPU = torch.device("cpu")
ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)
KINDS = {"fused": True, "not fused": False}


def rates_of(schedule, on_device, lrs=(0.5,)):
    net = nn.ModuleList(nn.Linear(2, 2) for _ in lrs)
    groups = [{"params": part.parameters(), "lr": lr} for part, lr in zip(net, lrs, strict=True)]
    optimizer = torch.optim.SGD(groups, lr=0.1, fused=on_device)
    return optimizer, LearningRates(schedule, optimizer, on_device=on_device)


def now(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def falling(step):
    return 1.0 / (1 + step)


@pytest.mark.parametrize("on_device", KINDS.values(), ids=KINDS)
def test_a_skipped_step_does_not_move_the_schedule(on_device):
    optimizer, rates = rates_of(falling, on_device)
    seen = []
    for step, applied in enumerate((ONE, ZERO, ZERO, ONE, ONE), start=1):
        seen.append(now(optimizer)[0])
        rates.advance(applied, step)
    seen.append(now(optimizer)[0])
    assert seen == pytest.approx([0.5, 0.25, 0.25, 0.25, 0.5 / 3, 0.125])
    assert rates.last() == pytest.approx([0.5 / 3])


@pytest.mark.parametrize("on_device", KINDS.values(), ids=KINDS)
def test_each_group_keeps_its_factor(on_device):
    optimizer, rates = rates_of(falling, on_device, lrs=(0.4, 0.1, 0.0))
    rates.advance(ONE, 1)
    assert now(optimizer) == pytest.approx([0.2, 0.05, 0.0])
    assert rates.last() == [0.4, 0.1, 0.0]


@pytest.mark.parametrize("on_device", KINDS.values(), ids=KINDS)
def test_the_schedule_goes_on_past_the_first_table(monkeypatch, on_device):
    monkeypatch.setattr(module, "_FIRST_LENGTH", 4)
    optimizer, rates = rates_of(falling, on_device)
    for step in range(1, 40):
        rates.advance(ONE if step % 5 else ZERO, step)
        applied = step - step // 5
        assert now(optimizer) == pytest.approx([0.5 / (1 + applied)], rel=1e-6), step


@pytest.mark.parametrize("on_device", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("steps", [4095, 4096, 4097, 100_000])
def test_a_resume_lands_anywhere_in_the_table(on_device, steps):
    optimizer, rates = rates_of(falling, on_device)
    rates.resume(torch.tensor([steps - 7]), steps)
    assert now(optimizer) == pytest.approx([0.5 / (steps - 6)], rel=1e-6)
    rates.advance(ONE, steps + 1)
    assert now(optimizer) == pytest.approx([0.5 / (steps - 5)], rel=1e-6)


@pytest.mark.parametrize("on_device", KINDS.values(), ids=KINDS)
def test_another_schedule_keeps_the_count_of_applied_steps(on_device):
    optimizer, rates = rates_of(falling, on_device)
    for step in range(1, 4):
        rates.advance(ONE, step)
    rates.follow(MultiStep(milestones=[3], gamma=0.1), 3)
    assert int(rates.applied) == 3
    assert now(optimizer) == pytest.approx([0.05])


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(steps=20, warmup=3),
        OneCycle(steps=20),
        CosineRestarts(periods=[8, 12]),
        MultiStep(milestones=[5, 9]),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
@pytest.mark.parametrize("on_device", KINDS.values(), ids=KINDS)
def test_the_table_is_the_schedule(schedule, on_device):
    optimizer, rates = rates_of(schedule, on_device)
    for step in range(25):
        assert now(optimizer)[0] == pytest.approx(0.5 * schedule(step), abs=1e-7)
        rates.advance(ONE, step + 1)


def test_on_the_device_nothing_waits():
    _, rates = rates_of(falling, True)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        for step in range(1, 6):
            rates.advance(ONE, step)
    waits = {"aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero"}
    assert not waits & {event.key for event in trace.key_averages()}


def learner_of(optimizer, precision="fp16", **settings):
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    return Learner(
        net,
        optimizer(net.parameters(), lr=1e-2, **settings),
        schedule=falling,
        scaler=LossScaler(CPU, dynamic=precision == "fp16"),
    )


def one_step(learner, seed=0, factor=1.0):
    given = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    learner.accumulate(learner.net(given).square().mean() * factor)
    return learner.step()


def test_an_optimizer_that_is_not_fused_waits_once_a_step():
    learner = learner_of(torch.optim.SGD, momentum=0.9, fused=False)  # has no counter to read
    one_step(learner)
    learner.accumulate(learner.net(torch.ones(4, 3)).square().mean())
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        learner.step()
    reads = {event.key: event.count for event in trace.key_averages()}
    assert reads.get("aten::_local_scalar_dense", 0) == 1


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.NAdam, {}),
        (torch.optim.RAdam, {}),
        (torch.optim.Adam, {"foreach": True}),
        (torch.optim.Adam, {"fused": True}),
        (torch.optim.SGD, {"fused": True, "momentum": 0.9}),
    ],
)
def test_every_optimizer_leaves_a_skipped_step_in_fp16_untouched(optimizer, settings):
    learner = learner_of(optimizer, **settings)
    for seed in range(3):
        one_step(learner, seed)
    weights = copy.deepcopy(learner.net.state_dict())
    moments = copy.deepcopy(learner.optimizer.state_dict()["state"])
    rate = float(learner.optimizer.param_groups[0]["lr"])
    assert float(one_step(learner, factor=math.inf).applied) == 0.0
    after = learner.optimizer.state_dict()["state"]
    for name, value in weights.items():
        assert torch.equal(value, learner.net.state_dict()[name])
    for place, row in moments.items():
        for name, value in row.items():
            same = torch.equal(torch.as_tensor(value), torch.as_tensor(after[place][name]))
            assert same, name
    assert float(learner.optimizer.param_groups[0]["lr"]) == rate
    assert float(learner.scaler.scale) == 32768.0
    one_step(learner, seed=4)
    assert not torch.equal(weights["weight"], learner.net.weight)
    assert float(learner.optimizer.param_groups[0]["lr"]) == pytest.approx(1e-2 / 5)


@pytest.mark.parametrize("optimizer", [torch.optim.NAdam, torch.optim.RAdam])
def test_fp16_takes_the_steps_of_fp32_without_fused_kernels(optimizer):
    half, full = learner_of(optimizer), learner_of(optimizer, precision="fp32")
    for seed in range(5):
        one_step(half, seed)
        one_step(full, seed)
    torch.testing.assert_close(half.net.weight, full.net.weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("on_device", KINDS.values(), ids=KINDS)
def test_a_group_may_begin_later(on_device):
    optimizer, _ = rates_of(falling, on_device)
    late = nn.Linear(2, 2)
    optimizer.add_param_group({"params": late.parameters(), "lr": 0.2, "start": 2})
    rates = LearningRates(falling, optimizer, on_device=on_device)
    seen = []
    for step, applied in enumerate((ONE, ZERO, ONE, ONE), start=1):
        seen.append(now(optimizer)[1])
        rates.advance(applied, step)
    assert seen == pytest.approx([0.0, 0.0, 0.0, 0.2 / 3])
    assert rates.last() == pytest.approx([0.5 / 3, 0.2 / 3])
    rates.resume(torch.tensor([1]), 2)
    assert now(optimizer)[1] == 0.0
    assert rates.last()[1] == 0.0
