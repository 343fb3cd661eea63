import copy

import pytest
import torch
from torch import nn

from sr_train.api.errors import PluginError
from sr_train.engine.learner import Learner
from sr_train.engine.precision import LossScaler
from sr_train.engine.schedule import Constant, Cosine, MultiStep

CPU = torch.device("cpu")


def make(lr=0.1, schedule=None, optimizer=torch.optim.SGD, **settings):
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    return Learner(
        net,
        optimizer(net.parameters(), lr=lr, fused=True),
        schedule=schedule or Constant(),
        scaler=LossScaler(CPU, dynamic=False),
        **settings,
    )


def one_step(learner, seed=0):
    generator = torch.Generator().manual_seed(seed)
    learner.accumulate(learner.net(torch.randn(4, 3, generator=generator)).square().mean())
    return learner.step()


def test_gradients_are_freed_before_backward_not_after_the_step():
    learner = make()
    one_step(learner)
    assert all(p.grad is not None for p in learner.parameters)
    first = [p.grad.clone() for p in learner.parameters]
    one_step(learner, seed=1)
    assert not any(torch.equal(a, p.grad) for a, p in zip(first, learner.parameters, strict=True))


def test_clip_is_measured_before_it_is_applied():
    free = one_step(make())
    bound = one_step(make(max_norm=float(free.grad_norm) / 2))
    loose = one_step(make(max_norm=float(free.grad_norm) * 2))
    assert float(bound.grad_norm) == float(free.grad_norm) == float(loose.grad_norm)
    assert (float(bound.clipped), float(loose.clipped), float(free.clipped)) == (1.0, 0.0, 0.0)


def test_learning_rate_is_initial_times_schedule():
    learner = make(lr=0.4, schedule=MultiStep(milestones=[1, 3], gamma=0.5))
    used = []
    for _ in range(4):
        used.append(float(learner.optimizer.param_groups[0]["lr"]))
        one_step(learner)
        assert learner.lrs == pytest.approx([used[-1]])
    assert used == pytest.approx([0.4, 0.2, 0.2, 0.1])


def test_resume_takes_the_rates_of_the_config_and_the_state_of_the_file():
    old = make(lr=0.1, optimizer=torch.optim.Adam)
    for seed in range(5):
        one_step(old, seed)
    new = make(lr=0.3, optimizer=torch.optim.Adam, schedule=Cosine(steps=10))
    notes = new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert new.steps == 5
    assert new.optimizer.param_groups[0]["lr"] == pytest.approx(0.15)
    assert float(new.optimizer.state[new.parameters[0]]["step"]) == 5
    assert notes[0] == "optimizer state kept"


def test_state_of_another_optimizer_is_dropped_and_said():
    old = make(optimizer=torch.optim.Adam)
    one_step(old)
    new = make(optimizer=torch.optim.SGD)
    assert "Adam" in new.load_state_dict(copy.deepcopy(old.state_dict()))[0]
    one_step(new)


def test_parameters_without_gradient_are_named():
    learner = make()
    learner.net.bias.data.zero_()
    learner.accumulate((learner.net.weight * torch.tensor([[1.0, 2.0, 3.0]] * 2)).sum())
    learner.step()
    assert learner.parameters_without_grad() == ["bias"]
    learner.accumulate(learner.net.weight.sum() + 0 * learner.net.bias.sum())
    before = learner.net.weight.clone()
    assert float(learner.step().applied) == 1.0
    assert learner.parameters_without_grad() == ["bias"]
    assert not torch.equal(before, learner.net.weight)


def test_skipped_in_row_counts_and_falls_back_to_zero():
    learner = make()
    for value, expected in ((float("nan"), 1), (float("inf"), 2), (1.0, 0), (float("nan"), 1)):
        learner.accumulate(learner.net(torch.ones(1, 3)).mean() * value)
        learner.step()
        assert int(learner.skipped_in_row) == expected
    assert int(learner.num_skipped) == 3


@pytest.mark.parametrize("schedule", [Constant(warmup=4), Cosine(steps=20, warmup=4)])
def test_warmup_rises_linearly(schedule):
    assert [schedule(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert schedule(4) == 1.0


def test_cosine_values():
    schedule = Cosine(steps=8, final=0.1)
    assert [schedule(s) for s in (0, 4, 8, 99)] == pytest.approx([1.0, 0.55, 0.1, 0.1])


@pytest.mark.parametrize(
    "make_schedule", [lambda: Cosine(steps=3, warmup=3), lambda: MultiStep(milestones=[5, 5])]
)
def test_impossible_schedules_are_refused(make_schedule):
    with pytest.raises(ValueError, match=r"must"):
        make_schedule()


class OwnSGD(torch.optim.SGD):
    def step(self, closure=None):
        raise KeyError("momentum")


def own_schedule(step):
    return {0: 1.0}[step]


def test_what_fails_in_an_optimizer_or_a_schedule_of_ones_own_is_named(make_batch, make_model):
    batch = make_batch()
    model = make_model(optimizer=OwnSGD, fused=False)
    with pytest.raises(PluginError, match=r"^optimizer: OwnSGD failed on step 1: KeyError: 'mom"):
        model.optimize_parameters(batch, last_micro_batch=True)
    model = make_model(optimizer=torch.optim.SGD, fused=False, schedule=own_schedule)
    with pytest.raises(PluginError, match=r"^scheduler: function failed on step 1: KeyError"):
        model.optimize_parameters(batch, last_micro_batch=True)
