import copy

import pytest
import torch
from torch import nn

from sr_train.engine.ema import Ema

ONE, ZERO = torch.tensor(1.0), torch.tensor(0.0)


def test_follows_the_formula():
    net = nn.Linear(1, 1, bias=False)
    ema = Ema(net, decay=0.5)
    expected = net.weight.item()
    for n in range(12):
        net.weight.data.fill_(float(n))
        ema.update(ONE)
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
        ema.update(ONE)
    assert float(ema.net.weight) == pytest.approx(1.0, abs=1e-3)


def test_a_skipped_step_changes_nothing_not_even_with_non_finite_neighbours():
    net = nn.Linear(4, 4)
    ema = Ema(net)
    before = copy.deepcopy(ema.state_dict())
    net.weight.data.add_(1.0)
    ema.update(ZERO)
    assert torch.equal(before["net"]["weight"], ema.net.weight)
    assert float(ema.num_updates) == 0


def test_the_live_network_is_never_touched():
    net = nn.Linear(4, 4)
    live = net.weight.clone()
    Ema(net).update(ONE)
    assert torch.equal(live, net.weight)
    assert net.weight.requires_grad


def test_buffers_are_copied():
    net = nn.BatchNorm1d(2)
    ema = Ema(net)
    net.running_mean.fill_(3.0)
    ema.update(ONE)
    assert torch.equal(ema.net.running_mean, net.running_mean)


def test_state_round_trip():
    net = nn.Linear(3, 3)
    ema = Ema(net)
    net.weight.data.mul_(2)
    ema.update(ONE)
    other = Ema(net)
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    assert torch.equal(other.net.weight, ema.net.weight)
    assert float(other.num_updates) == 1


def test_impossible_decay_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        Ema(nn.Linear(1, 1), decay=1.0)


def test_a_skipped_step_leaves_statistics_alone():
    """A batch with NaN spoils the running mean of the live network, not that of the average."""
    net = nn.BatchNorm2d(3)
    ema = Ema(net)
    net(torch.rand(2, 3, 4, 4))
    ema.update(torch.ones(()))
    kept = ema.net.running_mean.clone()
    assert not torch.equal(kept, torch.zeros(3))
    net(torch.full((2, 3, 4, 4), float("nan")))
    ema.update(torch.zeros(()))
    assert torch.equal(ema.net.running_mean, kept)
    assert int(ema.net.num_batches_tracked) == 1
