import copy
import logging

import pytest
import torch
from torch import nn

from sr_train.engine.averages import Ema, Swa

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def test_ema_follows_the_formula():
    net = nn.Linear(1, 1, bias=False)
    ema = Ema(net, decay=0.5)
    expected = net.weight.item()
    for n in range(12):
        net.weight.data.fill_(float(n))
        ema.update(ONE, 1)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        assert ema.net.weight.item() == pytest.approx(expected, rel=1e-5)
    assert decay == 0.5


def test_warm_up_leaves_a_bad_start_behind():
    """A plain 0.999 average would still hold 90 % of the start after 100 updates."""
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(100.0)
    ema = Ema(net, decay=0.999)
    net.weight.data.fill_(1.0)
    for _ in range(100):
        ema.update(ONE, 1)
    assert float(ema.net.weight) == pytest.approx(1.0, abs=1e-3)


def test_a_skipped_step_changes_nothing_not_even_with_non_finite_neighbours():
    net = nn.Linear(4, 4)
    ema = Ema(net)
    before = copy.deepcopy(ema.state_dict())
    net.weight.data.add_(1.0)
    ema.update(ZERO, 1)
    assert torch.equal(before["net"]["weight"], ema.net.weight)
    assert float(ema.num_updates) == 0


def test_the_live_network_is_never_touched():
    net = nn.Linear(4, 4)
    live = net.weight.clone()
    Ema(net).update(ONE, 1)
    assert torch.equal(live, net.weight)
    assert net.weight.requires_grad


def test_buffers_are_copied():
    net = nn.BatchNorm1d(2)
    ema = Ema(net)
    net.running_mean.fill_(3.0)
    ema.update(ONE, 1)
    assert torch.equal(ema.net.running_mean, net.running_mean)


def test_ema_state_round_trip():
    net = nn.Linear(3, 3)
    ema = Ema(net)
    net.weight.data.mul_(2)
    ema.update(ONE, 1)
    other = Ema(net)
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    assert torch.equal(other.net.weight, ema.net.weight)
    assert float(other.num_updates) == 1


def test_impossible_decay_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Ema(nn.Linear(1, 1), decay=1.0)


def test_a_skipped_step_leaves_statistics_as_they_are():
    """A batch with NaN spoils the running mean of the live network, not that of the average."""
    net = nn.BatchNorm2d(3)
    ema = Ema(net)
    net(torch.rand(2, 3, 4, 4))
    ema.update(torch.ones(()), 1)
    kept = ema.net.running_mean.clone()
    assert not torch.equal(kept, torch.zeros(3))
    net(torch.full((2, 3, 4, 4), float("nan")))
    ema.update(torch.zeros(()), 1)
    assert torch.equal(ema.net.running_mean, kept)
    assert int(ema.net.num_batches_tracked) == 1


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
def test_swa_is_the_mean_of_the_weights_taken(start, every, taken):
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
