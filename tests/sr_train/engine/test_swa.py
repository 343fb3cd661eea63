import copy
import logging

import pytest
import torch
from torch import nn

from sr_train.engine.swa import Swa

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def walk(net, swa, values, skipped=()):
    """Set the weight to each value in turn, as a step would, and tell the average."""
    for step, value in enumerate(values, start=1):
        if step not in skipped:
            net.weight.data.fill_(value)
        swa.update(ZERO if step in skipped else ONE, step)


def line():
    return nn.Linear(1, 1, bias=False)


@pytest.mark.parametrize(
    ("start", "every", "taken"),
    [(0, 1, [1, 2, 4, 8, 16, 32]), (2, 1, [4, 8, 16, 32]), (1, 2, [4, 16]), (0, 3, [4, 32])],
)
def test_it_is_the_mean_of_the_weights_taken(start, every, taken):
    net = line()
    swa = Swa(net, start, every)
    walk(net, swa, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert float(swa.num_updates) == len(taken)
    assert swa.net.weight.item() == pytest.approx(sum(taken) / len(taken), rel=1e-6)


def test_the_start_of_the_network_has_no_part_in_it():
    net = line()
    net.weight.data.fill_(1e6)
    swa = Swa(net, 0)
    walk(net, swa, [1.0, 2.0])
    assert swa.net.weight.item() == 1.5


def test_a_skipped_step_is_not_taken_in():
    net = line()
    swa = Swa(net, 0)
    walk(net, swa, [1.0, 2.0, 6.0], skipped={2})
    assert (float(swa.num_updates), swa.net.weight.item()) == (2, 3.5)


def test_a_skipped_first_step_leaves_it_not_started():
    net = line()
    swa = Swa(net, 0)
    walk(net, swa, [1.0], skipped={1})
    assert not swa.started
    walk(net, swa, [3.0])
    assert (swa.started, swa.net.weight.item()) == (True, 3.0)


def test_the_mean_goes_on_over_a_resume():
    net = line()
    swa = Swa(net, 0)
    walk(net, swa, [1.0, 2.0])
    state = copy.deepcopy(swa.state_dict())
    other = line()
    again = Swa(other, 0)
    again.load_state_dict(state)
    walk(other, again, [6.0])
    assert again.net.weight.item() == 3.0


def test_batch_norm_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        Swa(line(), 0)
        assert not caplog.records
        net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        swa = Swa(net, 0)
    assert "BatchNorm" in caplog.text
    net[1].running_mean.fill_(3.0)
    swa.update(ONE, 1)
    assert torch.equal(swa.net[1].running_mean, net[1].running_mean)


@pytest.mark.parametrize(("start", "every"), [(-1, 1), (0, 0)])
def test_impossible_settings_are_refused(start, every):
    with pytest.raises(ValueError, match="expected start >= 0"):
        Swa(line(), start, every)
