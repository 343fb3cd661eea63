"""A state is held against the whole model before anything of the model changes."""

import copy

import pytest
import torch
from torch import nn

from sr_train.api.errors import CheckpointError
from sr_train.engine.optimizer_state import OptimizerState
from tests.toys import differing

from .conftest import TinyNet
from .gans import make_gan, run


@pytest.fixture
def stored(make_batch):
    """Return the state of a GAN after two steps."""
    model = make_gan()
    run(model, [make_batch(seed) for seed in (0, 1)])
    return copy.deepcopy(model.state_dict())


def fresh_snapshot(model):
    return copy.deepcopy(model.state_dict())


def refused(stored, model=None):
    """Return why a state is refused; the model must be what it was."""
    model = model or make_gan()
    before = fresh_snapshot(model)
    with pytest.raises(CheckpointError) as caught:
        model.load_state_dict(stored)
    assert differing(before, model.state_dict()) == []
    return str(caught.value)


def test_a_state_of_the_same_model_is_taken_up(stored):
    model = make_gan()
    model.load_state_dict(stored)
    assert differing(stored, model.state_dict()) == []


SPOILT = {
    "int32 instead of float32": lambda value: value.int(),
    "bool instead of float32": lambda value: value > 0,
    "complex64 instead of float32": lambda value: value.to(torch.complex64),
    "sparse": lambda value: value.to_sparse(),
    "without numbers (meta)": lambda value: value.to("meta"),
    "NaN or infinite": lambda value: value * float("nan"),
    "of another shape": lambda value: value[:1],
    "missing in the file": None,
}


def spoil(tensors, name, how):
    if SPOILT[how] is None:
        del tensors[name]
    else:
        tensors[name] = SPOILT[how](tensors[name])


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("part", ["net_g", "ema", "adversary.net"])
def test_weights_that_do_not_fit_are_named(stored, part, how):
    outer = part.partition(".")[0]
    tensors = stored[outer] if part == "net_g" else stored[outer]["net"]
    name = (
        "last.weight"
        if part != "adversary.net"
        else next(name for name in tensors if name.endswith("weight") and tensors[name].ndim == 4)
    )
    spoil(tensors, name, how)
    told = refused(stored)
    assert f"{part}: 1 {how}: {name}" in told


def test_names_of_no_part_of_the_network_are_named(stored):
    stored["net_g"]["extra\x1b[2J"] = torch.zeros(1)
    told = refused(stored)
    assert "net_g: 1 unknown to the network: extra" in told
    assert "\x1b" not in told


class Normed(TinyNet):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)


def test_statistics_that_a_step_has_spoilt_do_not_stop_a_resume(make_model):
    model = make_model(net=Normed())
    state = copy.deepcopy(model.state_dict())
    state["net_g"]["norm.running_mean"][0] = float("nan")
    make_model(net=Normed()).load_state_dict(state)


MOMENTS = {
    "exp_avg is missing": lambda row: row.pop("exp_avg"),
    "exp_avg is no tensor of shape (12, 8, 3, 3)": lambda row: row.update(exp_avg=torch.ones(1)),
    "exp_avg_sq is no tensor of shape (12, 8, 3, 3)": lambda row: row.update(exp_avg_sq=None),
    "exp_avg holds NaN": lambda row: row["exp_avg"].fill_(float("nan")),
    "step is no number": lambda row: row.update(step="3"),
}


@pytest.mark.parametrize("fault", MOMENTS)
def test_moments_that_the_optimizer_cannot_go_on_with_are_named(stored, fault):
    MOMENTS[fault](stored["generator"]["optimizer"]["moments"]["last.weight"])
    assert f"generator: 1 unfit for the optimizer: last.weight: {fault}" in refused(stored)


@pytest.mark.parametrize("name", ["params", "lr", "betas"])
def test_what_is_no_counter_is_named(stored, name):
    stored["generator"]["optimizer"]["counters"] = [{name: 5}]
    assert f"{name}: no counter of a group" in refused(stored)


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (torch.optim.Adam, {}),
        (torch.optim.AdamW, {"amsgrad": True}),
        (torch.optim.NAdam, {}),
        (torch.optim.RAdam, {}),
        (torch.optim.SGD, {"momentum": 0.9}),
        (torch.optim.SGD, {}),
        (torch.optim.RMSprop, {"momentum": 0.9}),
        (torch.optim.Adafactor, {}),
        (torch.optim.LBFGS, {}),
    ],
)
def test_what_optimizers_keep_passes(optimizer, settings):
    """Learnt from the optimizer itself, not from a list."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 5))
    made = optimizer(net.parameters(), lr=1e-3, **settings)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step(*([lambda: torch.zeros(())] if optimizer is torch.optim.LBFGS else []))
    kept = OptimizerState(made, [name for name, _ in net.named_parameters()])
    assert kept.faults(copy.deepcopy(kept.state_dict())) == []


def test_learning_what_an_optimizer_keeps_changes_nothing(stored):
    model = make_gan()
    before = fresh_snapshot(model)
    assert model.generator.faults(stored["generator"]) == []
    assert differing(before, model.state_dict()) == []
    weights = [p.grad for p in model.generator.parameters]
    assert weights == [None] * len(weights)


def test_a_setting_that_needs_more_than_was_stored_is_told(stored):
    """It would end the first step with a KeyError."""
    model = make_gan()
    for group in model.generator.optimizer.param_groups:
        group["amsgrad"] = True
    assert "max_exp_avg_sq is missing" in refused(stored, model)
