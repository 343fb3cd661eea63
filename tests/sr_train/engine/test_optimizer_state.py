import copy

import pytest
import torch
from torch import nn

from sr_train.engine.optimizer_state import OptimizerState


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.tail = nn.Linear(3, 4), nn.Linear(4, 2)


def make(*groups, optimizer=torch.optim.Adam, **settings):
    """Return (net, optimizer, its state); each group is a list of parameter names."""
    torch.manual_seed(0)
    net = Net()
    named = dict(net.named_parameters())
    groups = groups or (list(named),)
    made = optimizer([{"params": [named[n] for n in group]} for group in groups], **settings)
    return net, made, OptimizerState(made, [name for group in groups for name in group])


def step(net, optimizer):
    optimizer.zero_grad()
    net.tail(net.head(torch.ones(2, 3))).square().sum().backward()
    optimizer.step()


def moment(net, optimizer, name):
    return optimizer.state[dict(net.named_parameters())[name]].get("exp_avg")


HEAD, TAIL = ["head.weight", "head.bias"], ["tail.weight", "tail.bias"]


def test_moments_find_their_parameters_in_other_groups():
    old = make()
    step(*old[:2])
    new = make(TAIL, HEAD)
    assert new[2].load_state_dict(copy.deepcopy(old[2].state_dict())) == "optimizer state kept"
    for name in (*HEAD, *TAIL):
        assert torch.equal(moment(*new[:2], name), moment(*old[:2], name)), name
    step(*new[:2])


def test_parameters_set_free_start_without_moments_and_it_is_said():
    old = make(TAIL)
    step(*old[:2])
    new = make()
    note = new[2].load_state_dict(copy.deepcopy(old[2].state_dict()))
    assert note == "optimizer state kept, 2 of 4 parameters start without"
    assert moment(*new[:2], "head.weight") is None
    assert torch.equal(moment(*new[:2], "tail.weight"), moment(*old[:2], "tail.weight"))
    step(*new[:2])


def test_moments_of_parameters_frozen_since_are_dropped_and_it_is_said():
    old = make()
    step(*old[:2])
    new = make(TAIL)
    note = new[2].load_state_dict(copy.deepcopy(old[2].state_dict()))
    assert note == "optimizer state kept, that of 2 other parameters dropped"


def test_settings_of_groups_stay_those_of_the_config():
    old = make(weight_decay=0.5)
    step(*old[:2])
    new = make(weight_decay=0.1)
    new[2].load_state_dict(copy.deepcopy(old[2].state_dict()))
    assert new[1].param_groups[0]["weight_decay"] == 0.1


class Counting(torch.optim.SGD):
    """Counts in its groups, as some optimizers do."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["taken"] = group.get("taken", 0) + 1
        return super().step(closure)


@pytest.mark.parametrize("groups", [(), (HEAD, TAIL)])
def test_counters_that_lie_in_groups_are_kept(groups):
    old = make(optimizer=Counting, lr=0.1, momentum=0.9)
    for _ in range(3):
        step(*old[:2])
    state = copy.deepcopy(old[2].state_dict())
    assert state["counters"] == [{"taken": 3}]
    new = make(*groups, optimizer=Counting, lr=0.2, momentum=0.5)
    new[2].load_state_dict(state)
    for group in new[1].param_groups:
        assert (group["taken"], group["lr"], group["momentum"]) == (3, 0.2, 0.5)


def test_state_of_another_class_is_dropped():
    old = make()
    step(*old[:2])
    new = make(optimizer=torch.optim.SGD, lr=0.1)
    note = new[2].load_state_dict(copy.deepcopy(old[2].state_dict()))
    assert note == "state of the Adam optimizer dropped"
    assert not new[1].state
