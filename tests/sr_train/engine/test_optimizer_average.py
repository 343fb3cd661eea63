import copy

import pytest
import torch
from torch import nn

from losses.pixel import L1Loss
from sr_train.api.optimizers import averages_itself
from sr_train.engine.averages import OptimizerAverage
from sr_train.engine.learner import Learner
from sr_train.engine.model import SRModel
from sr_train.engine.objective import Objective, Term
from sr_train.engine.precision import LossScaler, resolve_precision
from sr_train.engine.schedule import Constant

from .conftest import CPU, TinyNet

outside = pytest.importorskip("pytorch_optimizer")


def make(optimizer="ScheduleFreeAdamW", precision="fp32", terms=None):
    torch.manual_seed(0)
    net = TinyNet()
    resolved = resolve_precision(precision, CPU)
    average = OptimizerAverage(net)
    learner = Learner(
        net,
        getattr(outside, optimizer)(net.parameters(), lr=1e-2),
        schedule=Constant(),
        scaler=LossScaler(CPU, dynamic=resolved.scales_loss),
    )
    average.follow(learner.optimizer)
    objective = Objective(terms or {"l1": Term("l1", L1Loss())})
    return SRModel(learner, net.spec, objective, resolved, {"ema": average})


def train(model, make_batch, steps, first=0):
    for seed in range(first, first + steps):
        model.optimize_parameters(make_batch(seed), last_micro_batch=True)


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_schedule_free_optimizers_are_told_from_others():
    assert averages_itself(outside.ScheduleFreeAdamW)
    assert not averages_itself(outside.Adan)
    assert not averages_itself(torch.optim.Adam)


@pytest.mark.parametrize("optimizer", ["ScheduleFreeAdamW", "ScheduleFreeRAdam"])
def test_the_weights_to_use_are_what_the_optimizer_averaged(make_batch, optimizer):
    model = make(optimizer)
    train(model, make_batch, 10)  # the first steps of RAdam are of length zero
    live = weights(model.generator.net)
    used = weights(model.net_for_use())
    assert not equal(live, used)
    model.generator.optimizer.eval()
    assert equal(weights(model.generator.net), used)


def test_looking_at_the_average_does_not_change_the_run(make_batch):
    looked, alone = make(), make()
    for step in range(6):
        for model in (looked, alone):
            train(model, make_batch, 1, first=step)
        before = weights(looked.generator.net)
        looked.net_for_use()
        looked.state_dict()
        assert equal(before, weights(looked.generator.net))
    assert equal(weights(looked.generator.net), weights(alone.generator.net))


def test_the_average_follows_every_step(make_batch):
    model = make()
    seen = []
    for step in range(3):
        train(model, make_batch, 1, first=step)
        seen.append(weights(model.net_for_use()))
    assert not equal(seen[0], seen[1])
    assert not equal(seen[1], seen[2])


def test_before_the_first_step_the_average_is_the_network():
    model = make()
    assert equal(weights(model.net_for_use()), weights(model.generator.net))


def test_a_loss_may_compare_with_the_average_in_the_midst_of_a_step(make_batch):
    class ToAverage(nn.Module):
        def forward(self, pred, ema_pred):
            return (pred - ema_pred).abs().mean()

    model = make(terms={"l1": Term("l1", L1Loss()), "to": Term("to", ToAverage())})
    train(model, make_batch, 3)
    assert model.meter.read().means["loss/to"] > 0


@pytest.mark.parametrize("name", ["ScheduleFreeAdamW", "Adan"])
def test_resume_is_exact_with_the_counters_that_lie_in_groups(make_batch, name):
    whole = make(name) if name != "Adan" else without_average(name)
    train(whole, make_batch, 4)
    state = copy.deepcopy(whole.state_dict())
    train(whole, make_batch, 4, first=4)
    again = make(name) if name != "Adan" else without_average(name)
    notes = again.load_state_dict(state)
    assert notes[0] == "optimizer state kept"
    train(again, make_batch, 4, first=4)
    assert equal(weights(whole.generator.net), weights(again.generator.net))
    assert equal(weights(whole.net_for_use()), weights(again.net_for_use()))


def without_average(name):
    torch.manual_seed(0)
    net = TinyNet()
    learner = Learner(
        net,
        getattr(outside, name)(net.parameters(), lr=1e-2),
        schedule=Constant(),
        scaler=LossScaler(CPU, dynamic=False),
    )
    objective = Objective({"l1": Term("l1", L1Loss())})
    return SRModel(learner, net.spec, objective, resolve_precision("fp32", CPU))


def test_a_skipped_step_changes_neither_weights_nor_average(make_batch):
    model = make(precision="fp16")
    train(model, make_batch, 3)
    live, used = weights(model.generator.net), weights(model.net_for_use())
    counters = copy.deepcopy(model.generator.state_dict()["optimizer"]["counters"])
    bad = make_batch(9)
    bad["gt"] = torch.full(bad["gt"].shape, float("nan"))
    model.optimize_parameters(bad, last_micro_batch=True)
    assert equal(live, weights(model.generator.net))
    assert equal(used, weights(model.net_for_use()))
    assert counters == model.generator.state_dict()["optimizer"]["counters"]
    assert model.generator.num_skipped == 1
